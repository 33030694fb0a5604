"""Copies of a data set and a tokenizer in a bucket, on the disk of this host: they are read as files, and often.

    $BERTJAX_CACHE/gs/BUCKET/PATH    the copy of gs://BUCKET/PATH; BERTJAX_CACHE is ~/.cache/bertjax unless it is set

What a copy must be, its index in the bucket says: SHA256SUMS beside a tokenizer, bertjax.json of a data set. Files that
are that already are not fetched again. Made is here, and goes to the bucket when it is whole, its index last: what has
no index in the bucket is not there.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertjax import storage, workers
from bertjax.bucket import objects
from bertjax.console import say
from bertjax.errors import DataError

CACHE = "BERTJAX_CACHE"
INDEX = "bertjax.json"
"""The index of a data set (`bertjax.data.dataset.METADATA`): sealed, with size and CRC-32 of every file in "files"."""
_NAME = re.compile(r"\w[\w.-]*")  # of a file in the directory itself, and nowhere else
_PART = 64 << 20
"""Bytes that are fetched at once of a file."""


def local(path: Any) -> Path:
    """Where the copy of a path in a bucket lies on this host, whether or not it is there; another path is its own."""
    if not storage.in_bucket(path):
        return path
    root = storage.user_path(os.environ.get(CACHE) or "~/.cache/bertjax").absolute()
    return root / "gs" / str(path).removeprefix("gs://")


def file(path: Any) -> Path:
    """The copy of a file, with the line about it of SHA256SUMS beside it, as it is in the bucket: gone if that is."""
    copy = local(path)
    if storage.in_bucket(path):
        with _alone(copy):
            content, sums = objects.get(str(path)), objects.get(f"{path.parent}/{storage.SUMS}") or b""
            recorded = storage.recorded(sums, path.name)
            if content is not None and recorded and hashlib.sha256(content).hexdigest() != recorded:
                raise DataError(f"{path}: damaged, it is not what {storage.SUMS} beside it records; restore it")
            _write(copy, content)
            _write(copy.with_name(storage.SUMS), f"{recorded}  {path.name}\n".encode() if recorded else None)
    return copy


def publish_file(path: Any) -> None:
    """Write a file whose copy was made here to the bucket, and then its SHA256SUMS. A path in none stays as it is."""
    if storage.in_bucket(path):
        for copy in (local(path), local(path).with_name(storage.SUMS)):
            if copy.exists():
                objects.put(f"{path.parent}/{copy.name}", copy.read_bytes())


def publish_files(path: Any) -> None:
    """Write every file of a directory whose copy was made here to the bucket."""
    if storage.in_bucket(path):
        for copy in sorted(local(path).iterdir()):
            objects.put(f"{path}/{copy.name}", copy.read_bytes())


def data_set(path: Any) -> Path | None:
    """The copy of a data set, whole; None if there is no such data set in the bucket. Raises DataError where one of
    its objects is damaged.
    """
    if not storage.in_bucket(path):
        return path
    index = objects.get(f"{path}/{INDEX}")
    if index is None:
        return None
    files, copy = _files_of(f"{path}/{INDEX}", index), local(path)
    with _alone(copy):
        copy.mkdir(exist_ok=True)
        whole = workers.each(lambda name: _is_whole(copy / name, files[name]), files)
        missing = [name for name, there in zip(files, whole, strict=True) if not there]
        if missing:
            size = sum(files[name]["size"] for name in missing)
            say(f"{path}: copies {len(missing)} of {len(files)} files, {size / 1e6:,.1f} MB, to {copy}")
            (copy / INDEX).unlink(missing_ok=True)  # until it is whole
            workers.each(lambda name: _fetch(f"{path}/{name}", copy / name, files[name]), missing)
        _write(copy / INDEX, index)
    return copy


def publish_data_set(path: Any) -> None:
    """Write a data set whose copy was made here to the bucket, unless it is there. A path in none stays as it is."""
    if storage.in_bucket(path):
        copy = local(path)
        index = (copy / INDEX).read_bytes()
        if objects.get(f"{path}/{INDEX}") == index:
            return
        files = _files_of(str(copy / INDEX), index)
        say(f"{path}: writes {len(files)} files, {sum(file['size'] for file in files.values()) / 1e6:,.1f} MB")
        workers.each(lambda name: objects.put(f"{path}/{name}", (copy / name).read_bytes()), files)
        objects.put(f"{path}/{INDEX}", index)


def _files_of(place: str, index: bytes) -> dict[str, dict[str, int]]:
    """Size and CRC-32 of each file that an index names. Raises DataError if it is damaged."""
    try:
        content, whole = storage.unseal(index.decode())
        files = content["files"]
        right = whole and all(_NAME.fullmatch(name) and set(files[name]) == {"size", "crc32"} for name in files)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: damaged ({error}); restore it, or prepare the data set again") from None
    if not right:
        raise DataError(f"{place}: damaged, its checksum is that of another text; restore it, or prepare it again")
    return files


def _is_whole(path: Path, written: dict[str, int]) -> bool:
    return path.is_file() and path.stat().st_size == written["size"] and storage.checksum(path) == written


def _fetch(url: str, path: Path, written: dict[str, int]) -> None:
    """Write the file of an object, whole or not at all. Raises DataError for one that is not what was written."""
    partial, crc = path.with_name(f".{path.name}"), 0
    with partial.open("wb") as to:
        for start in range(0, written["size"], _PART):
            content = objects.part(url, start, min(start + _PART, written["size"]))
            crc = zlib.crc32(content, crc)
            to.write(content)
        size = to.tell()
    if (size, crc) != (written["size"], written["crc32"]) or not objects.exists(url):
        partial.unlink()
        fix = "restore it, or prepare the data set again"
        raise DataError(f"{url}: damaged or missing, it is not what {INDEX} beside it records; {fix}")
    partial.replace(path)


def _write(path: Path, content: bytes | None) -> None:
    """Make a file what it should be: None = not there."""
    if content is None:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != content:
        storage.write(path, content)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of the processes of this host, one at a time makes this copy; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.copied").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
