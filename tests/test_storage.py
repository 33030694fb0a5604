"""`bertjax.storage`: whole or not at all, and one at a time."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from bertjax import storage
from bertjax.errors import ConfigError, StorageError


def test_a_path_is_of_this_machine_or_of_a_bucket(tmp_path):
    assert storage.place(f"{tmp_path}/run") == tmp_path / "run" and storage.place("~/x") == Path.home() / "x"
    assert str(storage.place("gs://bkt/run/")) == "gs://bkt/run" and storage.in_bucket(storage.place("gs://bkt/run"))
    assert not storage.in_bucket(tmp_path) and not storage.in_bucket("./gs://bkt/run")


def test_in_a_bucket_files_are_whole_and_have_their_checksum(bucket):
    directory = storage.make(storage.place("gs://bkt/run"))
    storage.write(directory / "file", "text")
    storage.write(directory / "file", b"other")
    assert bucket.objects == {"run/file": b"other"}
    assert storage.read(directory / "file", 5) == b"other"
    with pytest.raises(OSError, match="more than 4 bytes"):
        storage.read(directory / "file", 4)
    assert storage.checksum(directory / "file") == {"size": 5, "crc32": zlib.crc32(b"other")}


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


def test_sealed_content_tells_whether_it_is_whole():
    """Any other digit, letter or key is noticed; another layout of the same content is none."""
    content = {"step": 12, "files": {"a": {"size": 7}}, "name": "\u00e9", "share": 0.1}
    text = storage.seal(content)
    assert storage.unseal(text) == (content, True)
    assert storage.unseal(json.dumps(json.loads(text))) == (content, True)
    for old, new in (("12", "13"), ("size", "sise"), ("0.1", "1.0"), ('"step": 12,', ""), ('"check"', '"chfck"')):
        assert old in text and not storage.unseal(text.replace(old, new))[1]
    assert storage.unseal("{}") == ({}, False)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": ' + "[" * 100_000])
def test_what_is_no_json_object_was_never_sealed(text):
    with pytest.raises(ValueError, match="."):
        storage.unseal(text)


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    storage.write(tmp_path / "file", "before")

    def fail(descriptor):
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        storage.write(tmp_path / "file", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "before"


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


def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    """The others would be waited for, or read, for ever."""
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert storage.read(path, 4) == b"1234"
    with pytest.raises(OSError, match="more than 3 bytes"):
        storage.read(path, 3)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(path)
    assert storage.read(tmp_path / "link", 4) == b"1234"
    for name, problem in (("pipe", "no regular file"), ("device", "no regular file"), (".", "directory"), ("no", "No")):
        with pytest.raises(OSError, match=problem):
            storage.read(tmp_path / name, 4)


def test_a_file_that_is_recorded_must_be_that_file(tmp_path):
    for name in ("a", "b c", "not recorded"):
        (tmp_path / name).write_text(name)
    storage.write_sums(tmp_path, ["b c", "a"])
    command = ["sha256sum", "--check", "--strict", storage.SUMS]
    if shutil.which(command[0]):
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).stdout == b"a: OK\nb c: OK\n"
    assert [storage.read(tmp_path / name, 99) for name in ("a", "b c")] == [b"a", b"b c"]
    for name in ("a", "b c"):
        (tmp_path / name).write_text(name.upper())
        with pytest.raises(OSError, match=f"not the file that {storage.SUMS}"):
            storage.read(tmp_path / name, 99)
    (tmp_path / "not recorded").write_text("x")
    assert storage.read(tmp_path / "not recorded", 99) == b"x"
    # As sha256sum writes it of binary files; what is no such line says nothing.
    (tmp_path / storage.SUMS).write_text(f"# mine\n{hashlib.sha256(b'A').hexdigest().upper()} *a\n00  a\n")
    assert storage.read(tmp_path / "a", 99) == b"A"
    (tmp_path / storage.SUMS).unlink()
    os.mkfifo(tmp_path / storage.SUMS)
    with pytest.raises(OSError, match=f"{storage.SUMS} beside it: it is no regular file"):
        storage.read(tmp_path / "a", 99)


def plant(place, victim, kind):
    """Something that is no file of its own, in a place where a file will be written."""
    if kind == "symlink":
        place.symlink_to(victim)
    elif kind == "dangling":
        place.symlink_to(victim.with_name("none"))
    elif kind == "hard link":
        place.hardlink_to(victim)
    else:
        os.mkfifo(place)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo"])
@pytest.mark.parametrize("name", ["file", ".file"])
def test_nothing_is_written_through_a_link(tmp_path, name, kind):
    victim, run = tmp_path / "victim", storage.make(tmp_path / "run")
    victim.write_text("mine")
    plant(run / name, victim, kind)
    storage.write(run / "file", "ours")
    assert victim.read_text() == "mine" and not (tmp_path / "none").exists()
    assert stat.S_ISREG((run / "file").lstat().st_mode) and (run / "file").read_text() == "ours"
    assert (run / "file").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "directory"])
def test_a_lock_that_is_no_file_of_its_own_is_refused(tmp_path, kind):
    victim, run = tmp_path / "victim", storage.make(tmp_path / "run")
    victim.write_text("mine")
    if kind == "directory":
        (run / ".lock").mkdir()
    else:
        plant(run / ".lock", victim, kind)
    with pytest.raises(StorageError, match=r"/run/\.lock: .*; remove it, or name another directory$"):
        storage.locked(run).__enter__()
    assert victim.read_text() == "mine" and not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["~nosuchuser/x", "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(text):
    with pytest.raises(ConfigError, match="nosuchuser|NUL"):
        storage.user_path(text)


def test_a_home_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert storage.user_path("~/x") == Path("/somewhere/x") and storage.user_path("x~/y") == Path("x~/y")
