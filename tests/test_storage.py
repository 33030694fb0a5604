"""`bertjax.storage`: whole or not at all, and one at a time."""

import os
import zlib
from pathlib import Path

import pytest

from bertjax import storage
from bertjax.errors import ConfigError, StorageError


def test_one_job_at_a_time(tmp_path):
    with storage.locked(tmp_path), pytest.raises(StorageError, match=f"process {os.getpid()} on"):
        storage.locked(tmp_path).__enter__()
    with storage.locked(tmp_path):
        pass  # free again


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        storage.make(tmp_path / "file" / "run")
    assert list(storage.make(tmp_path / "run").iterdir()) == []
    mine = tmp_path / "run" / f".probe-{os.getpid()}"
    mine.write_text("mine")
    storage.make(tmp_path / "run")
    assert mine.read_text() == "mine"


def test_a_checksum_is_of_the_whole_file(tmp_path):
    content = os.urandom(3_000_000)  # more than is read at a time
    (tmp_path / "file").write_bytes(content)
    assert storage.checksum(tmp_path / "file") == {"size": 3_000_000, "crc32": zlib.crc32(content)}


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    storage.write(tmp_path / "file", "before")

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        storage.write(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_text() == "before"


def test_a_new_directory_appears_whole_or_not_at_all(tmp_path):
    filling = storage.new_directory(tmp_path / "a" / "new")
    (filling.__enter__() / "file").write_text("x")
    assert not filling.__exit__(ValueError, ValueError("stop"), None)
    assert list((tmp_path / "a").iterdir()) == []
    with storage.new_directory(tmp_path / "a" / "new") as partial:
        (partial / "file").write_text("x")
        assert not (tmp_path / "a" / "new").exists()
    assert (tmp_path / "a" / "new" / "file").read_text() == "x"
    with pytest.raises(StorageError, match="not an empty directory"), storage.new_directory(tmp_path / "a" / "new"):
        pass
    assert (tmp_path / "a" / "new" / "file").read_text() == "x"


def test_a_new_directory_takes_nobody_elses_place(tmp_path):
    """Not even of one that has the name of a process."""
    mine = tmp_path / f".new.partial-{os.getpid()}"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with storage.new_directory(tmp_path / "new") as partial:
        (partial / "file").write_text("x")
    assert (mine / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["~nosuchuser/x", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(text):
    with pytest.raises(ConfigError, match="nosuchuser|NUL"):
        storage.user_path(text)


def test_a_home_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert storage.user_path("~/x") == Path("/somewhere/x") and storage.user_path("x~/y") == Path("x~/y")
