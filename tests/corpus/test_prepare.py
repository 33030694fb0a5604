"""A prepared data set is the same for any number of workers, goes on after a stop, and is what TFDS reads."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from bpe import train_bpe

from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare, shards
from bertjax.corpus import units as corpus
from bertjax.data import dataset
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError

DOCUMENTS = 1300
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."] + [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
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


@pytest.fixture
def small_units(made, monkeypatch):
    monkeypatch.setattr(corpus, "UNIT_BYTES", (made[2].parent / "corpus.txt").stat().st_size // 4)


def make(data, tokenizer, directory, **how):
    return prepare.prepare(data, tokenizer, directory, **{"runner": prepare.local(1)} | how)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def documents(split):
    """The tokens of each document."""
    ends = np.concatenate(([0], np.cumsum(split.sentence_lengths)))[split.document_offsets]
    return [split.tokens(int(a), int(b)).tolist() for a, b in zip(ends, ends[1:], strict=False)]


def number(tokens):
    """The number that a document of the corpus begins with."""
    return int("".join(PIECES[token] for token in tokens[: tokens.index(PIECES.index("."))]))


@pytest.mark.parametrize("workers", [2, 5])
def test_files_are_the_same_for_any_number_of_workers(made, small_units, tmp_path, workers):
    data, tokenizer, directory = made
    make(data, tokenizer, tmp_path / "data", runner=prepare.local(workers))
    assert contents(tmp_path / "data") == contents(directory)
    assert sum("train.array_record-" in path.name for path in directory.iterdir()) == 4
    assert not (tmp_path / "data.partial").exists()


def test_tfds_reads_what_the_index_describes(made):
    loaded = dataset.load(made[2])
    builder = tfds.builder_from_directory(made[2])
    for split in (loaded.train, loaded.validation):
        source = builder.as_data_source(split.name)
        assert len(source) == len(split.source) == len(split.document_offsets) - 1 == len(split.digests)
        for document, (record, tokens) in enumerate(zip(source, documents(split), strict=True)):
            start, end = split.document_offsets[document : document + 2]
            np.testing.assert_array_equal(record["sentence_lengths"], split.sentence_lengths[start:end])
            assert record["tokens"].tolist() == tokens == split.source[document]["tokens"].tolist()
    assert record["tokens"].dtype == np.uint16
    assert loaded.train.tokens(0, 5).dtype == loaded.train.tokens(3, 3).dtype == np.int32


def test_tokens_may_cross_documents_and_shards(made):
    split = dataset.load(made[2]).train
    stream = [token for tokens in documents(split) for token in tokens]
    assert split.tokens(0, len(stream)).tolist() == stream
    for start, end in ((0, 1), (5, 90), (len(stream) - 7, len(stream)), (1234, 2345)):
        assert split.tokens(start, end).tolist() == stream[start:end]


def test_every_document_is_in_one_split_in_the_order_of_the_corpus(made):
    loaded = dataset.load(made[2])
    numbers = [[number(tokens) for tokens in documents(split)] for split in (loaded.train, loaded.validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(DOCUMENTS))
    assert all(part == sorted(part) for part in numbers)
    assert 0.07 * DOCUMENTS < len(numbers[1]) < 0.13 * DOCUMENTS


def test_copies_of_a_document_are_on_one_side(made, tmp_path):
    (tmp_path / "x.txt").write_text("".join(f"the {i % 50}.\n\n" for i in range(500)))
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=0.3)
    make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    train, held_out = set(loaded.train.digests.tolist()), set(loaded.validation.digests.tolist())
    assert len(train) + len(held_out) == 50 and not train & held_out and held_out
    assert loaded.summary["documents"] == 500


def test_counts_and_summary(made):
    loaded = dataset.load(made[2])
    tokens = loaded.train.tokens(0, int(loaded.train.record_offsets[-1]))
    np.testing.assert_array_equal(loaded.token_counts, np.bincount(tokens, minlength=len(PIECES)))
    train = loaded.summary["splits"]["train"]
    assert train["tokens"] == tokens.size == loaded.train.sentence_lengths.sum()
    assert train["unknown"] == (tokens == 1).sum() and loaded.summary["skipped"] == {}
    assert loaded.summary["documents"] == DOCUMENTS
    (source,) = loaded.summary["sources"]
    assert source["documents"]["train"] == loaded.train.source_documents[0] == train["documents"]


def test_sources_are_stretches_of_a_split(made, tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} the {i}.\n\n" for i in range(40)))
    data = DataConfig(source=(str(tmp_path / "b.txt"), str(tmp_path / "a*.txt")), holdout=0.2)
    make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    sizes = [split.source_documents for split in (loaded.train, loaded.validation)]
    assert [sum(parts) for parts in zip(*sizes, strict=True)] == [40, 40]


@pytest.mark.parametrize(("count", "holdout", "expected"), [(2, 0.001, (1, 1)), (1, 0.001, (1, 0)), (3, 0.0, (3, 0))])
def test_small_corpora_and_documents_without_tokens(made, tmp_path, count, holdout, expected):
    (tmp_path / "x.txt").write_text("".join(f"The cat {i}.\n\n" for i in range(count)) + "\u0001\n")  # cleaned away
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=holdout)
    summary = make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    assert tuple(len(split.source) for split in (loaded.train, loaded.validation)) == expected
    assert summary == loaded.summary
    assert len(list((tmp_path / "data").glob("*-0*"))) == sum(n > 0 for n in expected)
    assert summary["documents"] == count and summary["skipped"] == {"documents_without_tokens": 1}


def test_a_corpus_that_is_all_held_out_is_refused(made, tmp_path):
    (tmp_path / "x.txt").write_text("The cat.\n\n")
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=1 - 2**-52)
    with pytest.raises(DataError, match=r"data\.holdout = .*leaves no document to train on"):
        make(data, made[1], tmp_path / "data")


def test_a_long_document_is_several_records(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES + [f"a{i}" for i in range(70_000)]) + "\n")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a69999 " * 20_000 + ".\n" + "The cat sat. " * 5_000}) + "\n")
    data = DataConfig(source=(str(tmp_path / "x.jsonl"),), holdout=0.0)
    make(data, tmp_path / "vocab.txt", tmp_path / "data")
    train = dataset.load(tmp_path / "data").train
    sizes = np.diff(train.record_offsets)
    assert len(train.document_offsets) == 2 and sizes[0] > 20_000 and (sizes[1:] <= shards.RECORD_TOKENS).all()
    (tokens,) = documents(train)
    assert tokens[:20_000] == [len(PIECES) + 69_999] * 20_000
    assert len(tokens) == sizes.sum() == train.sentence_lengths.sum()
    assert tfds.builder_from_directory(tmp_path / "data").as_data_source("train")[0]["tokens"].dtype == np.int32


def test_a_stopped_run_goes_on_with_what_is_missing(made, small_units, tmp_path):
    data, tokenizer, directory = made
    numbers, done = [], []

    def stops(folder, missing):
        numbers.append(list(missing))
        for unit in missing[:2]:
            prepare.work(folder, unit)
            yield unit
        raise StorageError("stopped")

    for _ in range(2):
        with pytest.raises(StorageError, match="stopped"):
            make(data, tokenizer, tmp_path / "data", runner=stops)
        assert not (tmp_path / "data").exists()
        (tmp_path / "data.partial" / "stray.tmp").mkdir(exist_ok=True)  # as a killed worker leaves
    assert numbers == [[0, 1, 2, 3], [2, 3]]
    make(data, tokenizer, tmp_path / "data", progress=lambda *counts: done.append(counts))
    assert done == [(4, 4)]
    assert contents(tmp_path / "data") == contents(directory)


def test_a_full_disk_keeps_the_finished_units(made, small_units, tmp_path, monkeypatch):
    data, tokenizer, directory = made
    write = shards.write_unit

    def full(folder, *rest):
        if any(folder.parent.glob("unit-*1")):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return write(folder, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_unit", full)
        with pytest.raises(StorageError, match="No space left on device.*the same command continues") as caught:
            make(data, tokenizer, tmp_path / "data")
    assert "\n" not in str(caught.value)
    left = sorted(path.name for path in (tmp_path / "data.partial").iterdir())
    assert left == ["job.json", "unit-0000000", "unit-0000001"]
    make(data, tokenizer, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(directory)


def test_other_text_or_settings_begin_anew(made, small_units, tmp_path):
    data, tokenizer, _ = made
    started = []

    def stops(folder, missing):
        started.append(len(missing))
        prepare.work(folder, missing[0])
        raise StorageError("stopped")

    copy = tmp_path / "corpus.txt"
    copy.write_bytes(Path(*data.source).read_bytes())
    data = replace(data, source=(str(copy),))
    for change in (
        lambda data: data,
        lambda data: data,
        lambda data: replace(data, holdout=0.2),
        lambda data: copy.write_text(copy.read_text().replace("9", "8")) and replace(data, holdout=0.2),
    ):
        with pytest.raises(StorageError, match="stopped"):
            make(change(data), tokenizer, tmp_path / "data", runner=stops)
    assert started == [4, 3, 4, 4]


def test_a_directory_that_cannot_be_used_is_named(made, tmp_path):
    data, tokenizer, directory = made
    with pytest.raises(StorageError, match="is not empty; delete it"):
        make(data, tokenizer, directory)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        make(data, tokenizer, tmp_path / "file" / "data")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="empty.txt"):
        make(replace(data, source=(str(tmp_path / "empty.txt"),)), tokenizer, tmp_path / "data")


def test_matches_compares_settings_and_tokenizer(made):
    data, tokenizer, directory = made
    loaded, digest = dataset.load(directory), load_tokenizer(tokenizer, lower_case=True).digest
    assert dataset.matches(loaded, replace(data, batch_size=3, prepare_workers=9), digest)
    assert not dataset.matches(loaded, data, "0" * 64)
    changes = {"source": ("builtin",), "format": "auto", "text_field": "x", "lower_case": False, "holdout": 0.2}
    assert not any(dataset.matches(loaded, replace(data, **{name: value}), digest) for name, value in changes.items())


def test_preparing_and_opening_import_neither_jax_nor_tensorflow(made):
    code = f"""
import sys
from pathlib import Path
from bertjax.corpus import prepare
from bertjax.data import dataset
dataset.load(Path({str(made[2])!r})).train.tokens(0, 9)
assert not {{"jax", "tensorflow"}} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_sentences_in_byte_level_bpe_keep_the_space_before_them(tmp_path):
    lines = ["The king of the north was lost. The garden of the city was quiet.", "A word. And another."]
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines) + "\n")
    tokenizer = train_bpe(tmp_path / "tokenizer.json")
    data = DataConfig(source=(str(tmp_path / "corpus.txt"),), format="paragraphs", holdout=0.0)
    summary = make(data, tokenizer, tmp_path / "data")
    assert summary["sentences"] > len(lines)
    loaded = load_tokenizer(tokenizer, lower_case=False)
    assert [loaded.decode(tokens) for tokens in documents(dataset.load(tmp_path / "data").train)] == lines
