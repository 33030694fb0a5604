"""One's own texts, each with a label.

Expect     docs/results.md: what small models reach on AG News and TREC.
Hardware   any; a published model takes a GPU or a TPU, a small one of one's own 2 CPU cores.
Command    bertjax finetune --config=finetune/classify --workdir=DIR --config.run.init_from=MODEL
               --config.task.train=FILE --config.task.dev=FILE [--config.task.text=COLUMN --config.task.label=COLUMN]

The argument may be a known set of files, agnews or trec, or imdb, which TFDS has. Without run.init_from the model
begins with random weights, its tokenizer made of the texts.
"""

from bertjax.config.recipe import default
from bertjax.config.structure import modern

FILES = {
    "own": {},
    "agnews": {"name": "agnews", "columns": ("text", "label"), "header": "no", "quotes": "yes"},
    "imdb": {"name": "imdb", "train": ("tfds:imdb_reviews[train]",), "test": ("tfds:imdb_reviews[test]",)},
    "trec": {"name": "trec", "columns": ("label", "text"), "header": "no", "delimiter": "space", "separator": ":"},
}


def get_config(files="own"):
    """The recipe for one's own files, or for those of agnews, trec or imdb."""
    if files not in FILES:
        raise ValueError(f"{files!r} is not one of {', '.join(FILES)}")
    config = default()
    config.model.update(vocab_size=8_000)  # without run.init_from
    modern(config, num_layers=4, hidden_size=128)
    config.task.update(kind="classify", epochs=4.0, **FILES[files])
    config.data.update(batch_size=32, seq_len=128, buckets=(32, 64, 128))
    config.optim.update(lr=3e-4, bias_correction=True, shift_decay=True)
    return config
