"""A prepared data set that tests share."""

import pytest
from corpus.prepared import DOCUMENTS, PIECES, make

from bertjax.config.schema import DataConfig
from bertjax.corpus import units as corpus


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(config, path of the tokenizer, directory) of a data set of numbered documents in several units."""
    folder = tmp_path_factory.mktemp("prepared")
    text = "".join(f"{' '.join(str(i))}.\n{'The cat sat.' * (i % 4)}\n\n" for i in range(DOCUMENTS))
    (folder / "corpus.txt").write_text(text)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    data = DataConfig(source=(str(folder / "corpus.txt"),), format="sentences", holdout=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "UNIT_BYTES", len(text) // 4)
        make(data, folder / "vocab.txt", folder / "data")
    return data, folder / "vocab.txt", folder / "data"
