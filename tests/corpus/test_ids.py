"""Sequences of ids are the same from lines, JSONL and Parquet, and a bad one is named by its place."""

import bz2
import gzip
import json
import lzma
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from corpus.prepared import documents, make

from bertjax.config.schema import DataConfig
from bertjax.corpus import ids
from bertjax.corpus import units as corpus
from bertjax.data import dataset, tokenizer
from bertjax.errors import DataError

SEQUENCES = [[7, 5, 7, 6], [9], [5, 12345, 8, 8, 8], [6, 6]]
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"item{i}" for i in range(5, 12346))]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "vocab.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


def write(path, sequences=SEQUENCES):
    """A file of the form that its name says."""
    if path.suffix == ".parquet":
        column = pyarrow.array(sequences)
        pyarrow.parquet.write_table(pyarrow.table({"item": column}), path, row_group_size=2)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"item": sequence}) + "\n" for sequence in sequences))
    else:
        text = "".join(" ".join(map(str, sequence)) + "\n\n" for sequence in sequences).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def config(path, **fields):
    return DataConfig(source=(str(path),), format="ids", text_field="item", examples="doc_sentences", **fields)


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.jsonl", "x.parquet"])
def test_each_sequence_is_a_document_of_its_own_ids(tmp_path, names, name):
    data = config(write(tmp_path / name), holdout=0.0)
    make(data, names, tmp_path / "data")
    prepared = dataset.load(tmp_path / "data")
    assert documents(prepared.train) == SEQUENCES
    assert prepared.train.sentence_lengths.tolist() == [4, 1, 5, 2]
    assert prepared.token_counts[8] == 3


def test_units_change_nothing(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 99, rng.integers(1, 20)).tolist() for _ in range(200)]
    for name in ("x.txt", "x.jsonl", "x.parquet"):
        data = config(write(tmp_path / name, sequences))
        with monkeypatch.context() as patch:
            patch.setattr(corpus, "UNIT_BYTES", 500)
            units = corpus.units(data)
        assert len(units) > 5
        found = [document for unit in units for document in corpus.read(unit, data, Counter())]
        assert found == [[" ".join(map(str, sequence))] for sequence in sequences]


def test_encode_is_what_the_tokenizer_of_ids_would_say():
    found, lengths = ids.encode(["3 1 2", " 7", ""])
    assert (found.tolist(), lengths.tolist(), found.dtype) == ([3, 1, 2, 7], [3, 1, 0], np.int32)
    assert ids.encode([])[0].tolist() == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (12346, "id 12346 is not below 12346; correct it or use a tokenizer with more pieces"),
        (-1, "'-1' is not an integer of at least 0"),
        (1.5, "'1.5' is not an integer"),
        ("x", "'x' is not an integer"),
        ("٣", "is not an integer"),
        (10**30, "is not below 12346"),
        (2, "id 2 is the special piece [CLS]"),
        (0, "id 0 is the special piece [PAD]"),
    ],
)
@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.parquet"])
def test_a_bad_id_is_named_by_its_place(tmp_path, names, name, value, problem):
    if name == "x.parquet" and isinstance(value, int) and value > 2**63:
        pytest.skip("Parquet has no such integers")
    same = [[float(i) for i in s] for s in SEQUENCES] if isinstance(value, float) and name == "x.parquet" else SEQUENCES
    same = [list(map(str, s)) for s in SEQUENCES] if isinstance(value, str) and name == "x.parquet" else same
    path = write(tmp_path / name, [*same, [value]])
    place = {"x.txt": ":9: ", "x.jsonl": ":5: ", "x.parquet": ": row 0 of row group 2: "}[name]
    if isinstance(value, float) and name == "x.parquet":
        place, problem = ": row 0 of row group 0: ", "'7.0' is not an integer"
    with pytest.raises(DataError) as caught:
        make(config(path), names, tmp_path / "data")
    assert str(caught.value).startswith(f"{path}{place}") and problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"item": ', "not a JSON object with a list under 'item'"),
        ('{"body": [1]}', "set data.text_field"),
        ('{"item": "5 6"}', "'5 6' is no list of ids"),
        ("[5, 6]", "not a JSON object"),
        ('{"item": [[5]]}', "'[5]' is not an integer"),
        ('{"item": [true]}', "'True' is not an integer"),
    ],
)
def test_a_line_of_json_without_a_list_is_named(tmp_path, names, line, problem):
    path = tmp_path / "x.jsonl"
    path.write_text('{"item": [5]}\n' + line)
    with pytest.raises(DataError) as caught:
        make(config(path), names, tmp_path / "data")
    assert str(caught.value).startswith(f"{path}:2: ") and problem in str(caught.value)


def test_empty_sequences_and_nulls_are_counted(tmp_path):
    path = write(tmp_path / "x.parquet", [[5], None, [], [6]])
    counts = Counter()
    assert list(corpus.documents(config(path), counts)) == [["5"], ["6"]]
    assert counts == {"documents": 2, "sentences": 2, "bad_rows": 1, "empty_documents": 1}


def test_a_line_too_long_for_memory_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ids, "MAX_JSON_BYTES", 20)
    path = write(tmp_path / "x.txt", [[5, 6], list(range(30))])
    with pytest.raises(DataError, match=r"x\.txt:3: longer than 20 bytes; cut the sequence"):
        list(corpus.documents(config(path)))


def test_only_files_hold_ids():
    for source in ("builtin", "tfds:lm1b"):
        with pytest.raises(DataError, match=f"data.source = '{source}': data.format = ids"):
            corpus.units(DataConfig(source=(source,), format="ids"))


def test_numbers_are_written_one_way(tmp_path, names):
    (tmp_path / "x.txt").write_text("007\t  5 \n")
    assert list(corpus.documents(config(tmp_path / "x.txt"))) == [["7 5"]]
    assert tokenizer.load(names, lower_case=True).vocab_size == 12346


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_files_are_read_to_their_end(tmp_path, ending, pack):
    """They hold more bytes of text than they have bytes."""
    (tmp_path / f"x{ending}").write_bytes(pack(b"1 2 3\n" * 50_000))
    data = DataConfig(source=(str(tmp_path / f"x{ending}"),), format="ids")
    assert sum(1 for _ in corpus.documents(data)) == 50_000
