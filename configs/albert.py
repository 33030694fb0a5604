"""ALBERT: factorised embeddings, shared layers, sentence order prediction.

Paper      Lan et al. 2019 (arXiv 1909.11942).
Expect     v1 base after 125k steps: MLM accuracy 54.0 %, SOP accuracy 86.5 % (20 predictions of 512 tokens).
           Average of SQuAD 1.1/2.0, MNLI, SST-2, RACE: base 80.1, large 82.4, xlarge 85.5, xxlarge 88.7.
Hardware   64 to 512 Cloud TPU v3; xxlarge took 32 hours.
Command    bertjax pretrain --config=albert:base --workdir=runs/albert-base \
               --config.data.tokenizer=spiece.model --config.data.prepared=data/wiki-books

The argument is the size, `base`, and optionally the version, `base_v2`. Version 2 trains without dropout, and longer
(base 10M steps, the others 3M). For a smaller batch, scale the learning rate by sqrt(batch / 4096). Differences
from the released code: masks are drawn afresh in each epoch, overlaps do not shorten n-grams, and a chunk of one
sentence has no SOP label. With short documents, `--config.data.packing=8` fills the rows; the paper has one example
per row.
"""

from bertjax.config.recipe import default

SIZES = {
    # name: layers, hidden size, heads, dropout of version 1, steps of version 2
    "base": (12, 768, 12, 0.1, 10_000_000),
    "large": (24, 1024, 16, 0.1, 3_000_000),
    "xlarge": (24, 2048, 16, 0.1, 3_000_000),
    "xxlarge": (12, 4096, 64, 0.0, 3_000_000),
}


def get_config(variant="base_v1"):
    """The recipe of SIZE or SIZE_VERSION: base, large, xlarge, xxlarge; v1 (default), v2."""
    size, _, version = variant.partition("_")
    if size not in SIZES or version not in ("", "v1", "v2"):
        raise ValueError(f"{variant!r} is not one of {', '.join(SIZES)}, each with or without _v1, _v2")
    layers, hidden, heads, dropout, steps = SIZES[size]
    dropout = 0.0 if version == "v2" else dropout
    config = default()
    config.model.update(
        vocab_size=30_000,
        num_layers=layers,
        hidden_size=hidden,
        embedding_size=128,
        num_heads=heads,
        ffn_size=4 * hidden,
        share="all",
        dropout=dropout,
        attention_dropout=dropout,
    )
    config.data.update(batch_size=4096, seq_len=512, examples="sop", masking="ngram", max_predictions=20)
    config.optim.update(name="lamb", lr=1.76e-3, warmup_steps=3_125)
    config.run.steps = steps if version == "v2" else 125_000
    return config
