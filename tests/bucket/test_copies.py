"""`bertjax.bucket.copies`: a copy is what lies in the bucket, or an error that names the object."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from bertjax import storage
from bertjax.bucket import copies
from bertjax.data import dataset
from bertjax.errors import DataError

TOKENIZER = storage.place("gs://bkt/run/tokenizer/vocab.txt")
DATA = storage.place("gs://bkt/run/data")


@pytest.fixture
def files(bucket, tmp_path):
    """A data set of three files in the bucket, and no copy of it."""
    copy = copies.local(DATA)
    copy.mkdir(parents=True)
    contents = {
        "train.records.npy": b"index" * 100,
        "bertjax-train.array_record-00000-of-00001": b"x" * 5000,
        "empty": b"",
    }
    for name, content in contents.items():
        (copy / name).write_bytes(content)
    index = {"files": {name: storage.checksum(copy / name) for name in contents}, "summary": {}}
    (copy / copies.INDEX).write_text(storage.seal(index))
    copies.publish_data_set(DATA)
    shutil.rmtree(copy)
    bucket.asked.clear()
    return contents


def test_the_index_is_that_of_a_data_set():
    assert copies.INDEX == dataset.METADATA


def test_a_path_of_this_machine_is_its_own_copy(tmp_path, bucket):
    assert copies.local(tmp_path) == copies.file(tmp_path) == copies.data_set(tmp_path) == tmp_path
    copies.publish_file(tmp_path / "none")
    copies.publish_data_set(tmp_path / "none")
    assert copies.local(DATA) == tmp_path / "copies" / "gs" / "bkt" / "run" / "data"


def test_without_a_setting_copies_lie_at_home(monkeypatch):
    monkeypatch.delenv(copies.CACHE, raising=False)
    assert copies.local(DATA) == Path.home() / ".cache" / "bertjax" / "gs" / "bkt" / "run" / "data"


def test_a_file_follows_the_bucket(bucket):
    copy = copies.file(TOKENIZER)
    assert not copy.exists()
    for content in (b"a\nb\n", b"c\n"):
        bucket.put("run/tokenizer/vocab.txt", content)
        assert copies.file(TOKENIZER).read_bytes() == content
    bucket.delete("run/tokenizer/vocab.txt")
    assert not copies.file(TOKENIZER).exists()


def test_a_file_is_what_is_recorded_beside_it(bucket):
    content = b"a\nb\n"
    sums = f"{hashlib.sha256(content).hexdigest()}  vocab.txt\n{'0' * 64}  other.txt\n"
    bucket.put("run/tokenizer/vocab.txt", content)
    bucket.put("run/tokenizer/SHA256SUMS", sums.encode())
    copy = copies.file(TOKENIZER)
    with storage.opened(copy) as file:
        assert file.read() == content
    copy.write_bytes(b"changed here")
    assert copies.file(TOKENIZER).read_bytes() == content
    bucket.put("run/tokenizer/vocab.txt", b"a\nB\n")
    with pytest.raises(DataError, match="gs://bkt/run/tokenizer/vocab.txt: damaged, it is not what SHA256SUMS beside"):
        copies.file(TOKENIZER)
    assert copy.read_bytes() == content


def test_what_was_made_here_goes_to_the_bucket_with_its_checksum_last(bucket):
    copy = copies.local(TOKENIZER)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"a\n")
    storage.write_sums(copy.parent, ["vocab.txt"])
    copies.publish_file(TOKENIZER)
    assert list(bucket.objects) == ["run/tokenizer/vocab.txt", "run/tokenizer/SHA256SUMS"]
    (copy.parent / "board").mkdir()
    (copy.parent / "board" / "events").write_bytes(b"e")
    copies.publish_files(TOKENIZER.parent / "board")
    assert bucket.objects["run/tokenizer/board/events"] == b"e"


def test_a_data_set_is_fetched_once(files, bucket, capsys):
    assert list(bucket.objects)[-1] == "run/data/bertjax.json"  # until it is there, there is no data set
    copy = copies.data_set(DATA)
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.name in files} == files
    assert (copy / copies.INDEX).read_bytes() == bucket.objects["run/data/bertjax.json"]
    assert f"{DATA}: copies 3 of 3 files, 0.0 MB, to {copy}" in capsys.readouterr().err
    bucket.asked.clear()
    copies.data_set(DATA)
    copies.publish_data_set(DATA)
    assert sum(bucket.asked.values()) == 2 and capsys.readouterr().err == ""  # the index alone


def test_a_copy_that_is_damaged_is_fetched_again(files, bucket, capsys):
    copy = copies.data_set(DATA)
    (copy / "train.records.npy").write_bytes(b"Index" + files["train.records.npy"][5:])
    (copy / "empty").unlink()
    (copy / "mine.txt").write_text("mine")
    assert copies.data_set(DATA) == copy
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.name in files} == files
    assert (copy / "mine.txt").read_text() == "mine"
    assert "copies 2 of 3 files" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped"])
@pytest.mark.parametrize("name", ["train.records.npy", "bertjax-train.array_record-00000-of-00001"])
def test_an_object_that_is_damaged_is_named(files, bucket, damage, name):
    key = f"run/data/{name}"
    content = bucket.objects[key]
    if damage == "gone":
        bucket.delete(key)
    else:
        other = bucket.objects["run/data/bertjax.json"]
        bucket.put(key, {"flip": b"?" + content[1:], "cut": content[:-1], "swapped": other}[damage])
    with pytest.raises(DataError, match=f"gs://bkt/{key}: damaged or missing, it is not what bertjax.json"):
        copies.data_set(DATA)
    assert not (copies.local(DATA) / copies.INDEX).exists()
    bucket.put(key, content)
    assert (copies.data_set(DATA) / name).read_bytes() == content


def test_an_empty_object_that_is_gone_is_missed(files, bucket):
    bucket.delete("run/data/empty")
    with pytest.raises(DataError, match="gs://bkt/run/data/empty: damaged or missing"):
        copies.data_set(DATA)


def test_an_index_that_is_damaged_is_named_and_leads_nowhere_else(files, bucket, tmp_path):
    assert copies.data_set(storage.place("gs://bkt/run/other")) is None
    text = bucket.objects["run/data/bertjax.json"]
    for changed in (text.replace(b"5000", b"5001"), text[:-5], b"[]", b"\xff"):
        bucket.put("run/data/bertjax.json", changed)
        with pytest.raises(DataError, match=r"gs://bkt/run/data/bertjax.json: damaged"):
            copies.data_set(DATA)
    bucket.put("run/outside", b"x")
    outside = {"files": {"../outside": {"size": 1, "crc32": 0}}}
    bucket.put("run/data/bertjax.json", storage.seal(outside).encode())
    with pytest.raises(DataError, match=r"bertjax.json: damaged"):
        copies.data_set(DATA)
    assert not (copies.local(DATA).parent / "outside").exists() and json.loads(text)["files"]
