"""Files and directories that appear whole or not at all, their checksums, and who may write where."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import stat
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bertjax.errors import StorageError


def checksum(path: Path) -> dict[str, int]:
    """{"size", "crc32"} of a file. Raises OSError if it cannot be read."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"size": size, "crc32": crc}


def write(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all, and on the disk when this returns. Raises OSError where that fails.

    Links are replaced, whether `path` is one or the name that the file has until then; nothing is written through them.
    """
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
    """Create a directory and try to write in it. Raises StorageError where that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror}); name another directory") from error
    return directory


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process. Raises StorageError naming the process that holds it already, and where
    `.lock` is a link or no plain file.

    The lock is the kernel's and goes with the process, however that ends; the file only tells who it was.
    """
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
        yield


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
