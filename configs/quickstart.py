"""The five-minute run: a small nomic-bert of two shared layers, with MLM and SOP on the English that ships with Python.

Its positions are rotary: with a learned table the same run learns nothing from context, because the table must find out
what "the word before" is once for each place, and rotary positions bring it along. (`model.initializer=beside` does so
for a learned table.) An export gives each layer a copy of what the layers share.

Expect     context_gain about 1.5 nats: the words around a masked word are used. pair_accuracy near chance.
           About 80 % of the builtin minimal pairs right; 50 is chance.
Hardware   2 CPU cores.
Command    launch/quickstart.sh
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern


def get_config():
    """The recipe; it takes no argument."""
    config = default()
    modern(config, num_layers=2, hidden_size=128)
    config.model.update(vocab_size=4_000, max_positions=64, share="all")
    config.data.update(holdout=0.05, batch_size=32, seq_len=64, max_predictions=10, examples="sop")
    config.optim.update(lr=3e-3, warmup_steps=200, weight_decay=0.01, bias_correction=True, b2=0.98)
    config.run.update(steps=1_500, log_every=25, eval_every=250, eval_rows=1_024, save_every=250)
    return config
