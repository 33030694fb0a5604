"""NeoBERT: rotary positions, RMSNorm before, SwiGLU, 28 layers of BERT-base's width, a decoder of its own.

Paper      Le Breton et al. 2025 (arXiv 2502.19587).
Expect     GLUE 89.0, after 2.1 trillion tokens.
Hardware   the paper: 8 H100.
Command    bertjax pretrain --config=neobert --workdir=runs/neobert \
               --config.data.tokenizer=vocab.txt --config.data.prepared=data/refinedweb

2,048 rows of 1,024 tokens for a million steps, and with `neobert:phases` another 50,000 steps of 512 rows of 4,096, at
the rate that is left. A fifth of the tokens is masked, all of them shown as [MASK]. Differences: weights begin as a
normal cut at two standard deviations of 0.02, theirs uniform within 0.02.
"""

from bertjax.config.recipe import default


def get_config(argument=""):
    """The recipe, of the first phase, or of both: phases."""
    if argument not in ("", "phases"):
        raise ValueError(f"{argument!r}: is not phases")
    config = default()
    config.data.tokenizer_kind = "wordpiece"
    config.model.update(
        vocab_size=30_522,
        num_layers=28,
        hidden_size=768,
        embedding_size=768,
        num_heads=12,
        ffn_size=2_048,
        max_positions=4_096,
        positions="rotary",
        rotary_pairs="neighbours",
        token_types=0,
        heads=("mlm_head",),
        activation="silu",
        ffn="gated",
        norm="rms",
        norm_place="pre",
        embedding_norm=False,
        biases="decoder",
        mlm_transform=False,
        tie_words=False,
        dropout=0.0,
        attention_dropout=0.0,
        layer_norm_eps=1e-5,
    )
    config.objective.pair = 0.0
    config.data.update(
        examples="doc_sentences",
        batch_size=2_048,
        seq_len=1_024,
        packing=16,
        mask_rate=0.2,
        mask_shares=(1.0, 0.0, 0.0),
        max_predictions=210,
    )
    config.optim.update(
        lr=6e-4,
        schedule="cosine",
        final_lr=0.1,
        warmup_steps=2_000,
        b2=0.95,
        eps=1e-8,
        weight_decay=0.1,
        bias_correction=True,
    )
    config.run.steps = 1_000_000
    if argument:
        config.run.steps += 50_000
        config.phases.update(
            steps=(1_000_000, 50_000),
            seq_len=(1_024, 4_096),
            batch_size=(2_048, 512),
            max_predictions=(210, 840),
            lr=(6e-4, 6e-5),
            warmup_steps=(2_000, 0),
            schedule=("cosine", "power"),
            power=(1.0, 0.0),
            final_lr=(0.1, 0.0),
        )
    return config
