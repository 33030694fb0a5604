"""Files and directories that appear whole or not at all, their checksums, and who may write where."""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

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


def checksum(path: Path) -> dict[str, int]:
    """{"size", "crc32"} of a file. Raises OSError if it cannot be read."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return {"size": size, "crc32": crc}


def write(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all, and on the disk when this returns. Raises OSError where that fails."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
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
    """Hold a directory for this process. Raises StorageError naming the process that holds it already.

    The lock is the kernel's and goes with the process, however that ends; the file only tells who it was.
    """
    with (directory / ".lock").open("a+") as file:
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
