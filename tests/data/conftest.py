"""A small prepared data set on disk, of several shards."""

from pathlib import Path

import pytest

from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare
from bertjax.corpus import units as corpus

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."] + [str(digit) for digit in range(10)]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Two shards of the train split, two of the validation split; do not change it."""
    folder = tmp_path_factory.mktemp("made")
    text = "".join(f"{' '.join(str(i))}. The cat sat.\n\n" for i in range(3000))
    (folder / "corpus.txt").write_text(text)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    data = DataConfig(source=(str(folder / "corpus.txt"),), holdout=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "UNIT_BYTES", len(text) // 2)
        prepare.prepare(data, folder / "vocab.txt", folder / "data", runner=prepare.local(1))
    return folder / "data"


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """One that may be changed."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path
