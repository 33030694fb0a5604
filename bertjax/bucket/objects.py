"""Objects of a bucket, read and written whole: with patience, and a line for what cannot be.

TensorStore speaks to Google Cloud Storage, as it does for Orbax: it finds Application Default Credentials, tries again
what failed for a while, and writes on condition that an object is of some generation. An object is named by its URL.
"""

import functools
import os
from typing import Any

from bertjax.console import say
from bertjax.errors import ConfigError, StorageError, one_line

WAIT = "BERTJAX_BUCKET_WAIT"
"""Seconds for which a bucket that does not answer is waited for, from the environment."""
_DEFAULT_WAIT = 120.0
_TOLD = 5.0
"""Seconds without an answer after which that is told."""
_SLOWEST = 1e6
"""Bytes a second that a transfer may take beside."""

_REASONS = {
    "PERMISSION_DENIED": "may not be read or written; give the account of this machine roles/storage.objectUser",
    "UNAUTHENTICATED": "no credentials are known; `gcloud auth application-default login` makes some",
    "NOT_FOUND": "there is no such bucket; make it, or name another",
}
"""How TensorStore's errors begin, and what that means."""


class _TooShort(Exception):
    """An object that ends before the bytes that are asked for."""


def wait() -> float:
    """Seconds for which a bucket is waited for. Raises ConfigError for an environment that says none."""
    text = os.environ.get(WAIT) or str(_DEFAULT_WAIT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds < float("inf"):
        raise ConfigError(f"{WAIT} = {text}: must be a number of seconds, 1 or more")
    return seconds


def retries() -> dict[str, Any]:
    """A context of TensorStore that tries again what fails, for as long as `wait` says."""
    number, delay, waited = 0, 0.5, 0.0
    while waited < wait():
        number, waited, delay = number + 1, waited + delay, min(2 * delay, 8.0)
    return {"gcs_request_retries": {"max_retries": number, "initial_delay": "500ms", "max_delay": "8s"}}


def get(url: str) -> bytes | None:
    """The content of an object; None if there is none. Raises StorageError as all functions here."""
    return versioned(url)[0]


def versioned(url: str) -> tuple[bytes | None, bytes]:
    """The content of an object, or None, and the generation of that."""
    found = _read(url)
    return (found.value if found.state == "value" else None), found.stamp.generation


def part(url: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of an object; b"" if it is not there, or has not as many."""
    store, name = _store_of(url)
    try:
        return _answer(store.read(name, byte_range=slice(start, end)), url, size=end - start).value
    except _TooShort:
        return b""


def exists(url: str) -> bool:
    """Whether there is an object of this name."""
    return _read(url, byte_range=slice(0, 0)).state == "value"


def put(url: str, content: bytes, *, over: bytes | None = None) -> bytes | None:
    """Write an object, whole or not at all; its generation. With `over`, only over that generation, which may be the
    one of an object that is not there; None if it is another by now.
    """
    store, name = _store_of(url)
    return _answer(store.write(name, content, if_equal=over), url, size=len(content)).generation or None


def delete(url: str, *, over: bytes | None = None, patience: float | None = None) -> None:
    """Remove an object if it is there; with `over`, of that generation."""
    store, name = _store_of(url)
    _answer(store.write(name, None, if_equal=over), url, patience=patience)


def below(url: str) -> list[str]:
    """What follows `url/` in the names of the objects that begin so, sorted."""
    store, name = _store_of(url)
    start = f"{name}/" if name else ""
    span = store.KeyRange(start, f"{name}0") if name else None  # "0" comes after "/"
    found = (key.decode() for key in _answer(store.list(span), url))
    return sorted(key.removeprefix(start) for key in found if key.startswith(start))


def _read(url: str, **asked: Any) -> Any:
    store, name = _store_of(url)
    return _answer(store.read(name, **asked), url)


def _store_of(url: str) -> tuple[Any, str]:
    bucket, _, name = url.removeprefix("gs://").partition("/")
    return _store(bucket), name


@functools.lru_cache
def _store(bucket: str) -> Any:
    import tensorstore as ts  # here, since it takes half a second, and most runs have no bucket

    # More often than until the limit, which is a deadline here; Orbax has no other than the number.
    context = ts.Context({"gcs_request_retries": {"max_retries": 1000, "initial_delay": "500ms", "max_delay": "8s"}})
    try:
        return ts.KvStore.open({"driver": "gcs", "bucket": bucket, "path": ""}, context=context).result()
    except ValueError as error:
        raise ConfigError(f"gs://{bucket}: {_shortened(error)}; name a bucket, gs://BUCKET/PATH") from None


def _answer(future: Any, url: str, *, size: int = 0, patience: float | None = None) -> Any:
    """What comes of a request that moves so many bytes. Raises StorageError if nothing comes in time, or a refusal."""
    limit = patience or wait()
    more, told = size / _SLOWEST, min(_TOLD, limit)
    try:
        try:
            return future.result(timeout=told + more)
        except TimeoutError:
            if told < limit:
                say(f"{url}: no answer for {told:g} s; waits on, {limit:g} s at most ({WAIT})")
            return future.result(timeout=max(limit - told, 0.001))
    except TimeoutError:
        fix = "see whether the bucket can be reached, and start again: what is saved there is intact"
        raise StorageError(f"{url}: no answer for {limit:g} s ({WAIT}); {fix}") from None
    except ValueError as error:  # of which kind any status of TensorStore is
        if str(error).startswith("OUT_OF_RANGE"):
            raise _TooShort from None
        reason = _REASONS.get(str(error).partition(":")[0], _shortened(error))
        raise StorageError(f"{url}: {reason}") from None


def _shortened(error: Exception) -> str:
    """The text of an error of TensorStore without what it appends for its developers."""
    return one_line(str(error).partition(" [")[0])
