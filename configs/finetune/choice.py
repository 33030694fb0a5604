"""One's own questions with several endings, of which one is right, as SWAG.

Expect     BERT-base, SWAG dev: 81.6 % (Devlin et al. 2019, table 4).
Hardware   any; a published model takes a GPU or a TPU, a small one of one's own 2 CPU cores.
Command    bertjax finetune --config=finetune/choice --workdir=DIR --config.run.init_from=MODEL
               --config.task.train=FILE --config.task.dev=FILE
               [--config.task.text=COLUMN --config.task.endings=COLUMN,COLUMN ... --config.task.label=COLUMN]

A row holds a question with all its endings, so data.seq_len is for them together.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern


def get_config():
    """The recipe; it takes no argument."""
    config = default()
    config.model.update(vocab_size=8_000)  # without run.init_from
    modern(config, num_layers=4, hidden_size=128)
    endings = ("ending0", "ending1", "ending2", "ending3")
    config.task.update(kind="choice", text="sentence", endings=endings, epochs=3.0)
    config.data.update(batch_size=16, seq_len=256, packing=len(endings))
    config.optim.update(lr=2e-5, bias_correction=True, shift_decay=True)
    return config
