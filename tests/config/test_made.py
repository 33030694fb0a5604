"""`bertjax.config.made`: the fields that it names are those that are read where something is made."""

import dataclasses
import types

import pytest
from sequences import smiles

from bertjax.config import made
from bertjax.config.schema import Config, DataConfig, ModelConfig
from bertjax.data import dataset
from bertjax.tasks.inputs import make_tokenizer

NAMES = {f"{s.name}.{f.name}" for s in dataclasses.fields(Config) for f in dataclasses.fields(s.type)}


def reading(kind, section, found, **values):
    """A section that notes in `found` which of its fields are read."""

    def get(self, name):
        if f"{section}.{name}" in NAMES:
            found.add(f"{section}.{name}")
        return object.__getattribute__(self, name)

    return type("Reading", (kind,), {"__getattribute__": get})(**values)


@pytest.mark.parametrize(
    ("values", "text", "pieces"),
    [
        ({}, None, 300),
        ({"alphabet": "smiles"}, "\n".join(smiles()), 20),
        ({"alphabet": "dna", "kmer": 1}, "ACGT", 10),
        ({"format": "ids"}, "1 2 3", 9),
    ],
    ids=["words", "smiles", "dna", "ids"],
)
def test_a_tokenizer_is_made_of_these_fields_alone(values, text, pieces, tmp_path, corpus_file):
    (tmp_path / "text").write_text(text or corpus_file.read_text())
    found = set()
    config = Config(
        data=reading(DataConfig, "data", found, source=(str(tmp_path / "text"),), **values),
        model=reading(ModelConfig, "model", found, vocab_size=pieces),
    )
    found.clear()
    assert make_tokenizer(config, tmp_path).exists()
    assert {"data.source", "model.vocab_size"} <= found
    # That one says where it is.
    assert found - {"data.tokenizer"} <= set(made.TOKENIZER)


def test_a_data_set_knows_the_fields_that_it_is_made_of():
    """What is not among them cannot be read: the processes that make it get nothing else."""
    tokenizer = types.SimpleNamespace(digest="", lower_case=True)
    named = dataset.settings(DataConfig(), tokenizer).keys() - {"tokenizer_digest", "format_version"}
    assert {f"data.{name}" for name in named} == set(made.DATA_SET)


def test_they_exist():
    assert set(made.TOKENIZER) | set(made.DATA_SET) <= NAMES
