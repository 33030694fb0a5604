"""Names in texts: a tag for each word.

Expect     BERT-base cased, CoNLL-2003: entity F1 96.4 dev, 92.4 test (Devlin et al. 2019, table 7). What small models
           of one's own reach: docs/results.md.
Hardware   any; a published model takes a GPU or a TPU, a small one of one's own 2 CPU cores.
Command    bertjax finetune --config=finetune/ner --workdir=DIR --config.run.init_from=MODEL
               --config.task.train=FILE --config.task.dev=FILE

The argument may be conll2003, by TFDS. Files have a word and its tag on each line, and a blank line between sentences.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern


def get_config(data="files"):
    """The recipe for files, or for conll2003 of TFDS."""
    if data not in ("files", "conll2003"):
        raise ValueError(f"{data!r} is neither files nor conll2003")
    config = default()
    config.model.update(vocab_size=8_000)  # without run.init_from
    modern(config, num_layers=4, hidden_size=128)
    config.task.update(name="ner", kind="tag", text="tokens", label="ner", epochs=4.0)
    if data == "conll2003":
        config.task.update(name=data, train=("tfds:conll2003[train]",), dev=("tfds:conll2003[dev]",))
        config.task.test = ("tfds:conll2003[test]",)
    config.data.update(batch_size=32, seq_len=128, packing=8, case="cased")
    config.optim.update(lr=3e-4, bias_correction=True, shift_decay=True)
    return config
