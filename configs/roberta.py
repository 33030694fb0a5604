"""RoBERTa: BERT with masked words alone, on full sentences, in large batches.

Paper      Liu et al. 2019 (arXiv 1907.11692).
Expect     held-out MLM perplexity of a base model on books and Wikipedia (Table 3): 3.99 with 256 rows x 1M steps,
           3.68 with 2,048 x 125k, 3.77 with 8,192 x 31k.
Hardware   the paper: 1,024 V100 for about a day.
Command    bertjax pretrain --config=roberta:base --workdir=runs/roberta-base \
               --config.data.tokenizer=tokenizer.json --config.data.prepared=data/wiki-books

The tokenizer is byte-level BPE, as RoBERTa's own tokenizer.json (its text is cased), or SentencePiece with
`--config.data.tokenizer=spiece.model --config.data.case=uncased --config.model.vocab_size=32000`. There is no
next-sentence task and only one token type. A row is filled with consecutive sentences, across the ends of documents.
For a batch of 256 set optim.lr to 1e-4, for 2,048 to 5e-4.
"""

from bertjax.config.recipe import default

SIZES = {
    # name: layers, hidden size, heads, learning rate, warm-up
    "base": (12, 768, 12, 6e-4, 24_000),
    "large": (24, 1024, 16, 4e-4, 30_000),
}


def get_config(size="base"):
    """The recipe of one size: base or large."""
    if size not in SIZES:
        raise ValueError(f"size {size!r} is not one of {', '.join(SIZES)}")
    layers, hidden, heads, lr, warmup = SIZES[size]
    config = default()
    config.model.update(
        vocab_size=50_265,
        num_layers=layers,
        hidden_size=hidden,
        embedding_size=hidden,
        num_heads=heads,
        ffn_size=4 * hidden,
        token_types=1,
        heads=("mlm_head",),
        activation="gelu_erf",
        layer_norm_eps=1e-5,
    )
    config.objective.pair = 0.0
    config.data.update(examples="full_sentences", case="cased", batch_size=8_192, seq_len=512, max_predictions=77)
    config.optim.update(lr=lr, warmup_steps=warmup, b2=0.98, clip_norm=0.0, shift_decay=True, bias_correction=True)
    config.run.steps = 500_000
    return config
