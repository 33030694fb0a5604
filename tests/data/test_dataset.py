"""Whatever is damaged in a prepared data set is named, by opening, reading or `verify`, and nothing in it runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from data.damage import DAMAGE, flip, reseal

from bertjax.data import dataset
from bertjax.errors import DataError


def damaged(directory):
    return {name: problem for name, problem in dataset.verify(directory) if problem}


def test_a_whole_data_set_verifies(made):
    checked = dict(dataset.verify(made))
    assert not any(checked.values())
    assert {path.name for path in made.glob("*-of-*")} | {path.name for path in made.glob("*.npy")} <= set(checked)
    assert {"index of the train split", "index of the validation split"} <= set(checked)


def read_all(directory):
    """The tokens of every split, as training and evaluation read them."""
    prepared = dataset.load(directory)
    for split in (prepared.train, prepared.validation):
        split.tokens(0, int(split.record_offsets[-1]))


def refused(directory, name, *, asked=read_all):
    """Whether a damaged file is named in one line with the fix."""
    with pytest.raises(DataError) as caught:
        asked(directory)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{directory / name}: ")
    assert line.endswith(f"; delete {directory} and run `bertjax prepare` again")
    return line


NAMES = ["bertjax.json", "dataset_info.json", "features.json", "token_counts.npy"]
NAMES += [f"{split}.{part}.npy" for split in dataset.SPLITS for part in dataset.INDEX]
"""The files beside the shards."""


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_is_named_at_opening(copy, name):
    """Wherever it is in the file: in a header, in a number, in a name, in the space between."""
    whole = (copy / name).read_bytes()
    places = np.random.default_rng(len(name)).random(8)
    for place in (0, *places, 1 - 1e-9):
        flip(copy / name, place, bit=int(1e4 * place) % 8)
        line = refused(copy, name, asked=dataset.load)
        assert "missing or damaged" in line or "format_version" in line
        (copy / name).write_bytes(whole)
    read_all(copy)


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damaged_file_is_named_and_nothing_but_it(copy, damage):
    """By reading, and by `verify`."""
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        DAMAGE[damage](path)
        if path.name == "bertjax.json" and not path.is_file():
            with pytest.raises(DataError, match=f"^{copy}: no prepared data set; run `bertjax prepare`$"):
                dataset.load(copy)
        else:
            refused(copy, path.name)
            if path.name == "bertjax.json":
                refused(copy, path.name, asked=damaged)
            else:
                assert list(damaged(copy)) == [path.name]
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
    assert damaged(copy) == {}


def drop(key):
    """A change: `files` or `settings` without this key."""
    return lambda section: {name: value for name, value in section.items() if name != key}


SHARD = "bertjax-train.array_record-00000-of-00002"
CHANGES = {
    "no files": ("files", lambda files: {}),
    "no shard": ("files", drop(SHARD)),
    "no index": ("files", drop("train.documents.npy")),
    "no features": ("files", drop("features.json")),
    "size": ("files", lambda files: files | {SHARD: {"size": "1", "crc32": 1}}),
    "no checksum": ("files", lambda files: files | {SHARD: {"size": 1}}),
    "files as a list": ("files", list),
    "no settings": ("settings", lambda settings: {}),
    "no source": ("settings", drop("source")),
    "source": ("settings", lambda settings: settings | {"source": 3}),
    "no summary": ("summary", lambda summary: None),
    "no sources": ("summary", lambda summary: summary | {"sources": []}),
    "no split": ("summary", lambda summary: summary | {"sources": [{"source": "a", "documents": {"train": 1}}]}),
    "documents": ("summary", lambda summary: summary | {"documents": True}),
    "digest": ("tokenizer_digest", lambda digest: 7),
    "vocabulary": ("vocab_size", lambda size: size + 1),
    "vocabulary as text": ("vocab_size", str),
}


@pytest.mark.parametrize("change", CHANGES)
def test_metadata_of_another_form_is_refused(copy, change):
    """Also where its checksum is right: no key or type is taken for granted."""
    key, changed = CHANGES[change]
    before = json.loads((copy / "bertjax.json").read_text())[key]
    reseal(copy, **{key: changed(before)})
    refused(copy, "token_counts.npy" if change == "vocabulary" else "bertjax.json", asked=dataset.load)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[" * 100_000, "1" * 5000, "\udcff", '{"format_version": NaN}']
)
def test_metadata_that_is_something_else_is_refused(copy, text):
    (copy / "bertjax.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=f"^{copy / 'bertjax.json'}: ") as caught:
        dataset.load(copy)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


ARRAYS = ["train.documents.npy", "train.records.npy", "train.sentences.npy", "train.digests.npy", "token_counts.npy"]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("form", ["shorter", "empty", "two dimensions", "another type", "another end", "no header"])
def test_an_array_of_another_form_is_refused(copy, name, form):
    """Also where its checksum is right. One that is whole in itself may be told by the one that does not fit it."""
    array = np.load(copy / name)
    if form == "another end" and name in ("train.digests.npy", "token_counts.npy"):
        return  # any number may stand there
    other = {
        "two dimensions": array[None],
        "another type": array.astype(np.float32),
        "shorter": array[:-1],
        "empty": array[:0],
        "another end": np.concatenate([array[:-1], array[-1:] + 1]),
        "no header": array,
    }
    np.save(copy / name, other[form])
    if form == "no header":  # NumPy reads it with Python's tokenizer
        (copy / name).write_bytes((copy / name).read_bytes().replace(b"{'descr'", b"{('descr"))
    reseal(copy)
    others = (*ARRAYS, "bertjax.json") if form in ("shorter", "empty", "another end") else (name,)
    with pytest.raises(DataError) as caught:
        dataset.load(copy)
    path, _, rest = str(caught.value).partition(": missing or damaged (")
    assert path in {str(copy / other) for other in others} and rest.endswith("run `bertjax prepare` again")


def test_an_index_of_other_shards_is_refused(copy):
    """Also where its checksum is right."""
    for name in ("train.records.npy", "train.sentences.npy"):
        array = np.load(copy / name)
        array[3:5] += np.array([1, -1], array.dtype)
        np.save(copy / name, array)
    reseal(copy)
    assert list(damaged(copy)) == ["index of the train split"]
    split = dataset.load(copy).train
    assert "does not fit the shards" in refused(copy, "train.records.npy", asked=lambda _: split.tokens(0, 100))


def test_metadata_cannot_name_code_to_import(copy):
    """Also where its checksum is right."""
    features = (copy / "features.json").read_text()
    (copy / "features.json").write_text(features.replace("tensor_feature.Tensor", "text_feature.Text", 1))
    reseal(copy)
    with pytest.raises(DataError, match="names '.*', a class that is not to be imported"):
        dataset.load(copy)
    for spelling in ('"python_class_name"', '"type"'):  # that TFDS reads as well
        (copy / "features.json").write_text(features.replace('"pythonClassName"', spelling).replace("Tensor", "Text"))
        reseal(copy)
        with pytest.raises(DataError, match="names '.*', a class that is not to be imported"):
            dataset.load(copy)


def test_missing_directory_and_other_version(copy):
    with pytest.raises(DataError, match="bertjax prepare"):
        dataset.load(copy / "nothing")
    reseal(copy, format_version=1)
    assert "format_version = 1, this bertjax reads 4" in refused(copy, "bertjax.json", asked=dataset.load)


def test_another_data_set_has_another_digest(made, copy):
    """It is that of the text and its tokens: the settings and what TFDS writes are no part of it."""
    digest = dataset.load(made).digest
    assert dataset.load(copy).digest == digest
    counts = np.load(copy / "token_counts.npy")
    np.save(copy / "token_counts.npy", counts + 1)
    reseal(copy)
    other = dataset.load(copy).digest
    assert other != digest
    (copy / "dataset_info.json").write_text((copy / "dataset_info.json").read_text() + "\n")
    reseal(copy)
    assert dataset.load(copy).digest == other


def test_threads_read_the_same_tokens(made):
    split = dataset.load(made).train
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: split.tokens(7 * (i % 500), 7 * (i % 500) + 20).tolist(), range(2000)))
    assert found == [split.tokens(7 * i, 7 * i + 20).tolist() for i in range(500)] * 4


def test_another_tokenizer_than_the_data_set_s_is_refused(made):
    prepared = dataset.load(made)
    same, other = (SimpleNamespace(digest=digest) for digest in (prepared.tokenizer_digest, "cd" * 32))
    dataset.check_tokenizer(prepared, same)
    with pytest.raises(DataError, match=f"{prepared.tokenizer_digest[:8]}.*cdcdcdcd.*data.tokenizer") as caught:
        dataset.check_tokenizer(prepared, other)
    assert "\n" not in str(caught.value)
