"""Questions on texts that hold the answer, or do not: SQuAD, and one's own files in its form.

Expect     BERT-base, SQuAD 1.1 dev: exact match 80.8, F1 88.5 (Devlin et al. 2019, table 2). What small models of one's
           own reach: docs/results.md.
Hardware   one GPU or TPU for models of published size; `small` for 2 CPU cores.
Command    bertjax finetune --config=finetune/squad --workdir=DIR --config.run.init_from=MODEL
               --config.task.train=FILE --config.task.dev=FILE

The argument is small (the default), v1 or v2: the last two are the published settings of BERT for SQuAD 1.1 and 2.0,
with the examples of TFDS. An answer that is missing is known by the examples themselves.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern


def get_config(version="small"):
    """The recipe for small models, or for SQuAD 1.1 (v1) or 2.0 (v2) as published."""
    if version not in ("small", "v1", "v2"):
        raise ValueError(f"{version!r} is not one of small, v1, v2")
    config = default()
    config.model.update(vocab_size=8_000)  # without run.init_from
    modern(config, num_layers=4, hidden_size=128)
    config.task.update(name="squad", kind="span")
    config.model.update(classifier_dropout=0.0)
    config.optim.update(lr=3e-4, bias_correction=True, shift_decay=True)
    config.data.update(batch_size=32, seq_len=192, buckets=(128, 192))
    config.task.update(stride=64, epochs=3.0)
    if version != "small":
        name = {"v1": "squad", "v2": "squad/v2.0"}[version]
        config.task.update(name=f"squad_{version}", train=(f"tfds:{name}[train]",), dev=(f"tfds:{name}[validation]",))
        config.task.update(stride=128, epochs={"v1": 3.0, "v2": 2.0}[version])
        config.data.update(batch_size={"v1": 32, "v2": 48}[version], seq_len=384, buckets=(192, 384))
        config.optim.lr = 5e-5
    return config
