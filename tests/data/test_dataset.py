"""Whatever is damaged in a prepared data set is named, at opening or by `verify`, and nothing in it runs."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from bertjax import storage
from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare
from bertjax.corpus import units as corpus
from bertjax.data import dataset
from bertjax.errors import DataError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."] + [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
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
def copy(made, tmp_path):
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def damaged(directory):
    return {name: problem for name, problem in dataset.verify(directory) if problem}


def test_a_whole_data_set_verifies(made):
    checked = dict(dataset.verify(made))
    assert not any(checked.values())
    assert {path.name for path in made.glob("*-of-*")} | {path.name for path in made.glob("*.npy")} <= set(checked)
    assert {"index of the train split", "index of the validation split"} <= set(checked)


@pytest.mark.parametrize("pattern", ["*-00001-of-*", "bertjax-validation*-00000-of-*", "train.sentences.npy", "token*"])
def test_one_flipped_bit_is_found_and_named(copy, pattern):
    path = sorted(copy.glob(pattern))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    dataset.load(copy)  # of the right size: opening does not read it
    assert list(damaged(copy)) == [path.name]


def test_a_shard_that_is_cut_or_gone_is_named_at_once(copy):
    shard = sorted(copy.glob("bertjax-train*"))[1]
    for change in (lambda: shard.write_bytes(shard.read_bytes()[:-100]), shard.unlink):
        change()
        with pytest.raises(DataError, match=shard.name):
            dataset.load(copy)
        assert list(damaged(copy)) == [shard.name]


def test_reading_a_damaged_shard_names_it(copy):
    shard = sorted(copy.glob("bertjax-train*"))[1]
    shard.write_bytes(bytes(byte ^ 0x55 for byte in shard.read_bytes()))
    split = dataset.load(copy).train
    assert split.tokens(0, 4).size == 4
    with pytest.raises(DataError, match=shard.name):
        split.tokens(int(split.record_offsets[-2]), int(split.record_offsets[-1]))


def test_an_index_of_other_shards_is_refused(copy):
    metadata = json.loads((copy / "bertjax.json").read_text())
    for name, at in (("train.records.npy", 3), ("train.sentences.npy", 3)):
        array = np.load(copy / name)
        array[at] += 1
        np.save(copy / name, array)
        metadata["files"][name] = storage.checksum(copy / name)
    (copy / "bertjax.json").write_text(json.dumps(metadata))
    assert list(damaged(copy)) == ["index of the train split"]
    split = dataset.load(copy).train
    with pytest.raises(DataError, match="train.records.npy: does not fit"):
        split.tokens(0, 100)


@pytest.mark.parametrize("name", ["train.documents.npy", "bertjax.json", "dataset_info.json"])
def test_other_damaged_files_are_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-40])
    with pytest.raises(DataError, match=name) as caught:
        dataset.load(copy)
    assert "\n" not in str(caught.value)


def test_metadata_cannot_name_code_to_import(copy):
    features = (copy / "features.json").read_text()
    (copy / "features.json").write_text(features.replace("tensor_feature.Tensor", "text_feature.Text", 1))
    with pytest.raises(DataError, match="names '.*', a class that is not to be imported"):
        dataset.load(copy)
    for spelling in ('"python_class_name"', '"type"'):  # that TFDS reads as well
        (copy / "features.json").write_text(features.replace('"pythonClassName"', spelling).replace("Tensor", "Text"))
        with pytest.raises(DataError, match="names '.*', a class that is not to be imported"):
            dataset.load(copy)


def test_missing_directory_and_other_version(copy):
    with pytest.raises(DataError, match="bertjax prepare"):
        dataset.load(copy / "nothing")
    metadata = json.loads((copy / "bertjax.json").read_text())
    (copy / "bertjax.json").write_text(json.dumps(metadata | {"format_version": 1}))
    with pytest.raises(DataError, match="format_version = 1, this bertjax reads 3"):
        dataset.load(copy)


def test_another_data_set_has_another_digest(made, copy):
    digest = dataset.load(made).digest
    assert dataset.load(copy).digest == digest
    metadata = json.loads((copy / "bertjax.json").read_text())
    metadata["files"]["token_counts.npy"]["crc32"] += 1
    (copy / "bertjax.json").write_text(json.dumps(metadata))
    assert dataset.load(copy).digest != digest


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
