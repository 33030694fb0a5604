"""One's own pairs of texts, each with a number: how alike they are.

Expect     docs/results.md, for STS-B.
Hardware   any; a published model takes a GPU or a TPU, a small one of one's own 2 CPU cores.
Command    bertjax finetune --config=finetune/regress --workdir=DIR --config.run.init_from=MODEL
               --config.task.train=FILE --config.task.dev=FILE
               [--config.task.text=COLUMN --config.task.pair=COLUMN --config.task.label=COLUMN]

--config.task.pair= (nothing behind it) is for single texts.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern


def get_config():
    """The recipe; it takes no argument."""
    config = default()
    config.model.update(vocab_size=8_000)  # without run.init_from
    modern(config, num_layers=4, hidden_size=128)
    config.task.update(kind="regress", text="sentence1", pair="sentence2", label="score", epochs=6.0)
    config.data.update(batch_size=32, seq_len=128, buckets=(32, 64, 128))
    config.optim.update(lr=3e-4, bias_correction=True, shift_decay=True)
    return config
