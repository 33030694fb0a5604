"""ModernBERT: rotary positions, local attention in two layers of three, gated feed-forward parts, norms before.

Papers     Warner et al. 2024 (arXiv 2412.13663); the small sizes: Weller et al. 2025, Ettin (arXiv 2507.11412).
Expect     GLUE: base 88.4, large 90.4, after 1.7 trillion tokens.
Hardware   the paper: 8 H100.
Command    bertjax pretrain --config=modernbert:base --workdir=runs/modernbert-base \
               --config.data.tokenizer=tokenizer.json --config.data.prepared=data/web

The argument is the size: 17m, 32m, 68m (of Ettin), base or large. This is the first phase: packed rows of 1,024 tokens,
30 % of them masked, at a constant rate. A later one begins with it (`--config.run.init_from`), on longer rows, with
`--config.model.rotary_base=160000 --config.model.rotary_base_local=10000`; `--config.optim.decay_steps` ends a phase.
Differences from the published runs: the batch does not grow at first, evaluation masks as training does, and
attention-output dropout, 0.1 there, is off, as in their published configuration.
"""

from bertjax.config.recipe import default

SIZES = {
    # name: layers, hidden size, heads, width of the feed-forward part, learning rate
    "17m": (7, 256, 4, 384, 3e-3),
    "32m": (10, 384, 6, 576, 3e-3),
    "68m": (19, 512, 8, 768, 3e-3),
    "base": (22, 768, 12, 1_152, 8e-4),
    "large": (28, 1_024, 16, 2_624, 5e-4),
}


def get_config(size="base"):
    """The recipe of one size: 17m, 32m, 68m, base or large."""
    if size not in SIZES:
        raise ValueError(f"size {size!r} is not one of {', '.join(SIZES)}")
    layers, hidden, heads, ffn, lr = SIZES[size]
    config = default()
    config.model.update(
        vocab_size=50_368,
        num_layers=layers,
        hidden_size=hidden,
        embedding_size=hidden,
        num_heads=heads,
        ffn_size=ffn,
        max_positions=8_192,
        positions="rotary",
        window=64,
        global_every=3,
        token_types=0,
        heads=("mlm_head",),
        activation="gelu_erf",
        ffn="gated",
        norm="layer_no_bias",
        norm_place="pre",
        first_norm=False,
        biases="decoder",
        dropout=0.0,
        attention_dropout=0.0,
        initializer="megatron",
        layer_norm_eps=1e-5,
    )
    config.objective.pair = 0.0
    config.data.update(
        examples="doc_sentences",
        case="cased",
        batch_size=4_608,
        seq_len=1_024,
        packing=16,
        mask_rate=0.3,
        max_predictions=320,
    )
    config.optim.update(
        name="stableadamw",
        lr=lr,
        schedule="wsd_sqrt",
        warmup_steps=640,
        b2=0.98,
        weight_decay=1e-5,
        decay_by_lr=False,
        bias_correction=True,
        clip_norm=0.0,
    )
    config.run.steps = 364_000
    return config
