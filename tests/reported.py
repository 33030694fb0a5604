"""Small prepared data sets of words w0 to w39, and their reports."""

from dataclasses import replace
from itertools import islice

import numpy as np

from bertjax.config.schema import Config, DataConfig, RunConfig
from bertjax.corpus import prepare
from bertjax.data import dataset
from bertjax.data.loader import train_batches
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.report.prepared import report

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *WORDS, "##s", ".", "<", ">", "/", "&", "script", "cafe"]
ROWS = 500


def make(folder, sources, **data):
    """(config, data set, tokenizer) of the named files: bytes of text by name."""
    for name, content in sources.items():
        (folder / name).write_bytes(content)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    source = tuple(str(folder / name) for name in sources)
    config = Config(data=DataConfig(**{"source": source, "batch_size": 50, "seq_len": 32} | data))
    config = replace(config, run=RunConfig(steps=10))
    prepare.prepare(config.data, folder / "vocab.txt", folder / "<b>data", runner=prepare.local(1))
    return config, dataset.load(folder / "<b>data"), load_tokenizer(folder / "vocab.txt", lower_case=True)


def change(made, **data):
    config, *rest = made
    return replace(config, data=replace(config.data, **data)), *rest


def prose(documents, sentences, seed):
    """Text of numbered documents with that many sentences, each of 4 to 9 words and a full stop."""
    rng = np.random.default_rng(seed)
    lines = [
        [" ".join(rng.choice(WORDS, rng.integers(4, 10))) + "." for _ in range(count)]
        for count in rng.choice(sentences, documents)
    ]
    return "\n\n".join("\n".join(document) for document in lines)


def told(made, **how):
    return report(*made, **{"rows": ROWS} | how)


def rows_of(made, rows=ROWS):
    """Rows of the first batches of training, each a dict of arrays, and the number of rows in them."""
    config, prepared, tokenizer = made
    batches = train_batches(config.data, prepared, tokenizer, seed=config.run.seed)
    taken = list(islice(batches, rows // config.data.batch_size))
    batches.close()
    return [{name: array[i] for name, array in batch.items()} for batch in taken for i in range(len(batch["tokens"]))]
