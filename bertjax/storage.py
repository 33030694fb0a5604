"""Files and directories that appear whole or not at all, their checksums, and who may write where.

What somebody else may have made or changed is read by `opened` and `read`: nothing but regular files, since a pipe has
no end and a device no size, and only as SHA256SUMS beside it records them, where that is.

A path is one of pathlib, or one in a bucket (`bertjax.bucket`): `place` makes either, and `write`, `read`, `checksum`,
`make` and `locked` take either.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, TextIO, cast

from bertjax.errors import ConfigError, StorageError


def user_path(text: str | Path) -> Path:
    """The path that a user names, whose ~ is a home directory. Raises ConfigError for one that no file can have."""
    if "\0" in str(text):
        raise ConfigError(f"{text!r}: no path holds the character NUL; leave it out")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = str(text)[1:].partition("/")[0]
        fix = f"there is no user {user}" if user else "this user has no home directory"
        raise ConfigError(f"{text}: {fix}; name the directory without ~") from None


def place(text: str | Path) -> Path:
    """The path that a user names, of this machine or, as gs://BUCKET/PATH, in a bucket.

    The latter has the methods of Path that can be had of objects (`bertjax.bucket.path`), and is none of pathlib's.
    Raises ConfigError for one that there cannot be.
    """
    if not in_bucket(text):
        return user_path(text)
    if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+(/[^/\0\r\n#*?\[\]]+)+/?", str(text)) or "/../" in f"{text}/":
        raise ConfigError(f"{text!s:.200}: is no path in a bucket; name one as gs://BUCKET/PATH")
    from bertjax.bucket.path import BucketPath  # here: most runs have no bucket, and TensorStore takes half a second

    return cast(Path, BucketPath(str(text).rstrip("/")))


def in_bucket(path: Any) -> bool:
    """Whether a path, or its text, is in a bucket."""
    return str(path).startswith("gs://")


SUMS = "SHA256SUMS"
"""What `sha256sum` writes and `sha256sum -c` checks: the SHA-256 and the name of each file of a directory."""
_SUMS_LIMIT = 1_000_000  # bytes


def checksum(path: Path) -> dict[str, int]:
    """{"size", "crc32"} of a file. Raises OSError if it cannot be read."""
    if in_bucket(path):  # whole in memory: 400 MB of what Orbax writes there
        content = path.read_bytes()
        return {"size": len(content), "crc32": zlib.crc32(content)}
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"size": size, "crc32": crc}


def seal(content: dict[str, Any]) -> str:
    """JSON of `content` with a checksum of it as one more key, "check"."""
    return json.dumps(content | {"check": _check(content)}, indent=2, allow_nan=False) + "\n"


def unseal(text: str) -> tuple[dict[str, Any], bool]:
    """The content that `seal` was given, and whether it is that still. Raises ValueError for what is no JSON object."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
        check = content.pop("check", None)
        return content, check == _check(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _check(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def write(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all, and on the disk when this returns. Raises OSError where that fails.

    Links are replaced, whether `path` is one or the name that the file has until then; nothing is written through them.
    """
    if in_bucket(path):  # where an object always appears whole
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)  # of a run that was killed
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            temporary.unlink()
            error.filename = error.filename or str(path)  # which none of these calls knows
            raise
    temporary.replace(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file to read, if it is a regular one and what SHA256SUMS beside it records, where that names it.

    Raises OSError whose `strerror` says what is wrong. A recorded file is read once for its SHA-256 alone: 1 s a GB.
    """
    with _regular(path) as file:
        known = _recorded(path)
        if known and hashlib.file_digest(file, "sha256").hexdigest() != known:
            fix = "where the change is meant, take its line out of there"
            raise OSError(errno.EBADMSG, f"it is not the file that {SUMS} beside it records; {fix}", str(path))
        file.seek(0)
        yield file


def read(path: Path, limit: int) -> bytes:
    """The content of a file that may have at most `limit` bytes. Raises OSError as `opened` does."""
    with path.open("rb") if in_bucket(path) else opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return content


def write_sums(directory: Path, names: Iterable[str]) -> None:
    """Record the SHA-256 of these files of a directory, whole or not at all. Raises OSError where that fails."""
    lines = []
    for name in sorted(names):
        with (directory / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    write(directory / SUMS, "".join(lines))


def _recorded(path: Path) -> str | None:
    """The SHA-256 that SHA256SUMS beside a file has for it, in hex; None if it has none, or is not there."""
    try:
        with _regular(path.with_name(SUMS)) as file:
            return recorded(file.read(_SUMS_LIMIT), path.name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(error.errno, f"{SUMS} beside it: {error.strerror}", str(path)) from None


def recorded(sums: bytes, name: str) -> str | None:
    """The SHA-256 that the content of a SHA256SUMS has for a file, in hex; None if it has none."""
    found = (re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line) for line in sums.decode("utf-8", "replace").splitlines())
    return next((match[1].lower() for match in found if match and match[2] == name), None)


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BufferedReader]:
    # Without O_NONBLOCK, the opening of a pipe waits for somebody to write into it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `directory` when the block ends and is gone if it raises.

    Raises StorageError if `directory` exists and is not an empty directory, or where it cannot be written.
    """
    directory = directory.absolute()
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise StorageError(f"{directory}: exists and is not an empty directory; name another, or move it away")
    partial = directory.with_name(f".{directory.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(directory)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror}); check disk and permissions") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make(directory: Path) -> Path:
    """Create a directory and try to write in it. Raises StorageError where that fails.

    In a bucket there is nothing to create; whether it can be written shows when it is locked.
    """
    if in_bucket(directory):
        return directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror}); name another directory") from error
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[Callable[[], None]]:
    """Hold a directory for this process; gives what raises StorageError once it is held no longer. Raises StorageError
    naming the process that holds it already, and where `.lock` is a link or no plain file.

    The lock is the kernel's and goes with the process, however that ends; the file only tells who it was. In a bucket
    it is a lease (`bertjax.bucket.lease`), which can be lost.
    """
    if in_bucket(directory):
        from bertjax.bucket import lease  # as in `place`

        with lease.held(str(directory)) as check:
            yield check
        return
    with _own(directory / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            raise StorageError(f"{directory}: in use by {holder}; stop it, or name another directory") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield lambda: None


def _own(path: Path) -> TextIO:
    """A plain file of this name and no other, made if need be, to read and write. Raises StorageError if it is not."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        problem = "is a link" if error.errno == errno.ELOOP else f"cannot be opened ({error.strerror})"
        raise StorageError(f"{path}: {problem}; remove it, or name another directory") from error
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(file)
        raise StorageError(f"{path}: is not a file of its own; remove it, or name another directory")
    return os.fdopen(file, "r+")
