"""nomic-bert: BERT-base with rotary positions, SwiGLU, and no biases in its layers.

Paper      Nussbaum et al. 2024 (arXiv 2402.01613).
Expect     GLUE 84.0 at 2,048 positions.
Hardware   the paper: 8 A100 for four days.
Command    bertjax pretrain --config=nomic --workdir=runs/nomic \
               --config.data.tokenizer=vocab.txt --config.data.prepared=data/wiki-books

Norms come after each sum, as in BERT. 30 % of the tokens are masked; rows of 2,048 tokens hold several documents.
"""

from bertjax.config.recipe import default


def get_config():
    """The recipe; it takes no argument."""
    config = default()
    config.data.tokenizer_kind = "wordpiece"
    config.model.update(
        vocab_size=30_528,
        max_positions=2_048,
        positions="rotary",
        rotary_base=1_000.0,
        heads=("mlm_head",),
        activation="silu",
        ffn="gated",
        biases="heads",
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.objective.pair = 0.0
    config.data.update(
        examples="doc_sentences", batch_size=4_096, seq_len=2_048, packing=32, mask_rate=0.3, max_predictions=640
    )
    config.optim.update(
        lr=5e-4, warmup_steps=2_000, b2=0.98, weight_decay=1e-5, shift_decay=True, bias_correction=True, clip_norm=0.0
    )
    config.run.steps = 30_000
    return config
