"""The speedrun: what an encoder learns from 12 M tokens in 20 minutes on 2 CPU cores.

Expect     docs/speedrun.md: the score of each entry, and what did not help.
Hardware   2 CPU cores.
Command    bertjax tokenizer --config=configs/speedrun.py:modern --workdir=runs/modern --config.data.source='corpus/*'
           and `bertjax prepare` and `bertjax pretrain` with the same arguments (docs/speedrun.md).

The argument is the entry: bert_tiny (as published), classic (learned positions) or modern. The text is the same for
all: shards 00 to 07 of a Wikipedia of 2013 and 31 novels, 8,000 pieces; so is the evaluation, 15 % of the tokens with
BERT's masks. An entry may be anything else that `run.steps` steps of 2 cores do in 20 minutes.
"""

from bertjax.config.recipe import default

ENTRIES = ("bert_tiny", "classic", "modern")


def get_config(entry="modern"):
    """The recipe of one entry: bert_tiny, classic or modern."""
    if entry not in ENTRIES:
        raise ValueError(f"entry {entry!r} is not one of {', '.join(ENTRIES)}")
    config = default()
    config.model.update(vocab_size=8_000, hidden_size=128, embedding_size=128, num_heads=2, ffn_size=512)
    config.data.update(batch_size=64, seq_len=64, max_predictions=10)
    config.run.update(log_every=50, eval_every=500, eval_rows=1_024, save_every=500)
    if entry == "bert_tiny":
        config.model.num_layers = 2
        config.run.steps = 3_600
        config.optim.warmup_steps = 360
        return config
    config.model.update(num_layers=4, max_positions=64, dropout=0.0, attention_dropout=0.0)
    config.data.examples = "sop"
    config.optim.update(lr=3e-3, bias_correction=True, b2=0.98, schedule="wsd_sqrt", warmup_steps=200)
    config.run.steps = 2_500
    config.optim.decay_steps = 1_500
    if entry == "classic":
        config.model.initializer = "beside"
        return config
    config.model.update(
        positions="rotary",
        rotary_base=1_000.0,
        ffn="gated",
        activation="silu",
        ffn_size=352,
        biases="heads",
        initializer_range=0.05,
    )
    config.optim.name = "muon"
    # More words to guess while there is most to learn; evaluated at the last rate, as the other entries are.
    config.data.update(mask_rate=0.3, final_mask_rate=0.15, max_predictions=19)
    return config
