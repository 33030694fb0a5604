"""BERT: masked language model and next sentence prediction.

Paper      Devlin et al. 2018 (arXiv 1810.04805); the small sizes: Turc et al. 2019 (arXiv 1908.08962).
Expect     base: held-out MLM perplexity 3.99 (loss 1.384), NSP accuracy 97-98 %; large: 3.23 (1.172).
           GLUE test average: tiny 64.2, mini 65.8, small 71.2, medium 73.5, base 79.6, large 82.1.
Hardware   base on 4 Cloud TPUs (16 chips), large on 16 (64 chips), four days each, for 256 rows of 512 x 1M steps.
Command    bertjax pretrain --config=bert:base --workdir=runs/bert-base \
               --config.data.tokenizer=vocab.txt --config.data.prepared=data/wiki-books

Rows are of 128 tokens, as in 90 % of the paper's steps; with `bert:base,phases` they are of 512 in the last tenth of
them, as there, and one schedule of the rate goes through both. Differences from the released code: masks are drawn anew
in each epoch, and a chunk of one sentence has no NSP label.
"""

from bertjax.config.recipe import default

SIZES = {
    # name: layers, hidden size, heads
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}


def get_config(argument="base"):
    """The recipe of one size: tiny, mini, small, medium, base or large; with ",phases" behind it, in two phases."""
    size, comma, more = argument.partition(",")
    if size not in SIZES:
        raise ValueError(f"size {size!r} is not one of {', '.join(SIZES)}")
    if comma and more != "phases":
        raise ValueError(f"{argument!r}: what may follow the size is phases, as in {size},phases")
    layers, hidden, heads = SIZES[size]
    config = default()
    config.data.tokenizer_kind = "wordpiece"
    config.model.update(
        num_layers=layers, hidden_size=hidden, embedding_size=hidden, num_heads=heads, ffn_size=4 * hidden
    )
    if comma:
        config.phases.update(steps=(900_000, 100_000), seq_len=(128, 512), max_predictions=(20, 77))
    return config
