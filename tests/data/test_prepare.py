"""A prepared data set is the same for any number of workers, is what TFDS reads, and names what is damaged."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bertjax.config import DataConfig
from bertjax.data import corpus, dataset, prepare, tokenizer
from bertjax.errors import DataError, StorageError

DOCUMENTS = 1300  # more than a unit of 1,000 documents
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."] + [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(config, vocabulary path, directory) of a data set of numbered documents."""
    folder = tmp_path_factory.mktemp("prepared")
    text = "".join(f"{' '.join(str(i))}.\n{'The cat sat.' * (i % 4)}\n\n" for i in range(DOCUMENTS))
    (folder / "corpus.txt").write_text(text)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    data = DataConfig(source=str(folder / "corpus.txt"), format="sentences", holdout=0.1)
    prepare.prepare(data, folder / "vocab.txt", folder / "data", workers=1)
    return data, folder / "vocab.txt", folder / "data"


@pytest.fixture
def copy(made, tmp_path):
    for path in made[2].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def number(split, document):
    """The number that document i of the corpus begins with."""
    end = split.sentence_lengths[split.document_offsets[document]] - 1
    return int("".join(PIECES[token] for token in split.tokens(document)[:end]))


def test_files_are_the_same_for_any_number_of_workers(made, tmp_path):
    data, vocabulary, directory = made
    prepare.prepare(data, vocabulary, tmp_path / "data", workers=2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert files == {path.name: path.read_bytes() for path in directory.iterdir()}
    assert sum(".array_record-" in name for name in files) == 3
    assert not (tmp_path / "data.partial").exists()


def test_tfds_reads_what_the_index_describes(made):
    directory = made[2]
    loaded = dataset.load(directory)
    builder = tfds.builder_from_directory(directory)
    for split in (loaded.train, loaded.validation):
        source = builder.as_data_source(split.name)
        assert len(source) == len(split.source) == split.document_offsets.size - 1
        for document, record in enumerate(source):
            start, end = split.document_offsets[document : document + 2]
            np.testing.assert_array_equal(record["sentence_lengths"], split.sentence_lengths[start:end])
            np.testing.assert_array_equal(record["tokens"], split.tokens(document))
            np.testing.assert_array_equal(record["tokens"], split.source[document]["tokens"])
    assert record["tokens"].dtype == np.uint16
    assert loaded.train.tokens(0).dtype == np.int32


def test_every_document_is_in_one_split(made):
    loaded = dataset.load(made[2])
    numbers = [[number(split, i) for i in range(len(split.source))] for split in (loaded.train, loaded.validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(DOCUMENTS))
    assert all(part == sorted(part) for part in numbers)
    assert 0.07 * DOCUMENTS < len(numbers[1]) < 0.13 * DOCUMENTS


def test_tokens_and_summary_count_the_train_split(made):
    loaded = dataset.load(made[2])
    tokens = np.concatenate([loaded.train.tokens(i) for i in range(len(loaded.train.source))])
    np.testing.assert_array_equal(loaded.token_counts, np.bincount(tokens, minlength=len(PIECES)))
    assert loaded.summary["splits"]["train"]["tokens"] == tokens.size == loaded.train.sentence_lengths.sum()
    assert loaded.summary["documents"] == DOCUMENTS
    assert loaded.vocab_size == len(PIECES)


@pytest.mark.parametrize(("documents", "holdout", "expected"), [(2, 0.001, (1, 1)), (1, 0.5, (1, 0)), (3, 0.0, (3, 0))])
def test_small_corpora_and_documents_without_tokens(made, tmp_path, documents, holdout, expected):
    (tmp_path / "x.txt").write_text("The cat.\n\n" * documents + "\u0000\u0001\n")  # cleaned to nothing
    data = DataConfig(source=str(tmp_path / "x.txt"), holdout=holdout)
    summary = prepare.prepare(data, made[1], tmp_path / "data", workers=1)
    loaded = dataset.load(tmp_path / "data")
    assert (len(loaded.train.source), len(loaded.validation.source)) == expected
    assert summary == loaded.summary
    assert len(list((tmp_path / "data").glob("*-0*"))) == sum(count > 0 for count in expected)
    assert summary["documents"] + summary["dropped_documents"] == documents + 1


def test_a_large_vocabulary_and_a_long_sentence(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES + [f"a{i}" for i in range(70_000)]) + "\n")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a69999 " * 70_000}) + "\n")
    data = DataConfig(source=str(tmp_path / "x.jsonl"), holdout=0.0)
    prepare.prepare(data, tmp_path / "vocab.txt", tmp_path / "data", workers=1)
    loaded = dataset.load(tmp_path / "data")
    assert loaded.train.tokens(0).tolist() == [len(PIECES) + 69_999] * 70_000
    assert tfds.builder_from_directory(tmp_path / "data").as_data_source("train")[0]["tokens"].dtype == np.int32


def test_matches_compares_settings_and_tokenizer(made):
    data, vocabulary, directory = made
    loaded, digest = dataset.load(directory), tokenizer.load(vocabulary, lower_case=True).digest
    assert dataset.matches(loaded, replace(data, batch_size=3, prepare_workers=9), digest)
    assert not dataset.matches(loaded, data, "0" * 64)
    changes = {"source": "builtin", "format": "auto", "text_field": "x", "lower_case": False, "holdout": 0.2}
    assert not any(dataset.matches(loaded, replace(data, **{name: value}), digest) for name, value in changes.items())


def test_a_damaged_shard_is_named(copy):
    shard = sorted(copy.glob("bertjax-train*"))[1]
    content = bytearray(shard.read_bytes())
    content[:] = bytes(byte ^ 0x55 for byte in content)
    shard.write_bytes(content)  # of the right size, so that only reading finds it
    split = dataset.load(copy).train
    assert number(split, 0) == 0
    with pytest.raises(DataError, match=shard.name):
        split.tokens(1000)  # its first record
    for change in (lambda: shard.write_bytes(content[:-100]), shard.unlink):
        change()
        with pytest.raises(DataError, match=shard.name):
            dataset.load(copy)


@pytest.mark.parametrize("name", ["index.npz", "bertjax.json", "dataset_info.json"])
def test_other_damaged_files_are_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-40])
    with pytest.raises(DataError, match=name) as caught:
        dataset.load(copy)
    assert "\n" not in str(caught.value)


def test_an_index_of_other_shards_is_refused(copy):
    with np.load(copy / "index.npz") as file:
        index = dict(file)
    index["train_sentence_lengths"][0] += 1
    np.savez(copy / "index.npz", **index)
    with pytest.raises(DataError, match="index.npz"):
        dataset.load(copy).train.tokens(0)


def test_metadata_cannot_name_code_to_import(copy):
    features = (copy / "features.json").read_text()
    (copy / "features.json").write_text(features.replace("tensor_feature.Tensor", "text_feature.Text", 1))
    with pytest.raises(DataError, match="other classes"):
        dataset.load(copy)


def test_missing_directory_and_other_version(copy):
    with pytest.raises(DataError, match="bertjax prepare"):
        dataset.load(copy / "nothing")
    metadata = json.loads((copy / "bertjax.json").read_text())
    (copy / "bertjax.json").write_text(json.dumps(metadata | {"format_version": 0}))
    with pytest.raises(DataError, match="format_version = 0"):
        dataset.load(copy)


def test_threads_read_the_same_tokens(made):
    split = dataset.load(made[2]).train
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: number(split, i % 500), range(2000)))
    assert found == [number(split, i) for i in range(500)] * 4


def test_nothing_half_written_takes_the_place_of_a_data_set(made, tmp_path, monkeypatch):
    data, vocabulary, directory = made
    with pytest.raises(StorageError, match="is not empty; delete it"):
        prepare.prepare(data, vocabulary, directory, workers=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        prepare.prepare(data, vocabulary, tmp_path / "file" / "data", workers=1)

    def broken(*_):
        yield from ([f"{i}."] for i in range(1500))
        raise DataError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "documents", broken)
        with pytest.raises(DataError, match="broken"):
            prepare.prepare(data, vocabulary, tmp_path / "data", workers=2)
    assert not (tmp_path / "data").exists()
    (tmp_path / "data.partial" / "stray").write_text("")
    seen = []
    prepare.prepare(data, vocabulary, tmp_path / "data", workers=1, progress=lambda *totals: seen.append(totals))
    summary = dataset.load(tmp_path / "data").summary
    assert seen[-1] == (summary["documents"], summary["tokens"])
    assert len(list((tmp_path / "data").iterdir())) == len(list(directory.iterdir()))


def test_data_modules_import_neither_jax_nor_tensorflow(made):
    code = f"""
import sys
from pathlib import Path
from bertjax.data import dataset
dataset.load(Path({str(made[2])!r})).train.tokens(0)
assert not {{"jax", "tensorflow"}} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
