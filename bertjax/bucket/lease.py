"""Who may write in a directory of a bucket: a lock that must be refreshed, since no kernel takes it back.

`.lock` tells the process that holds it. Its generation changes with every refresh, and it is written only over the
generation that was read, so that of two processes one gets it. Whether the holder is alive is seen by whether it
refreshes, on the clock of who asks: the clocks of different machines need not agree.

It cannot stop a process that was suspended for longer than it lasts and wakes up: until that looks, before its next
save, it writes what it had begun.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertjax.bucket import objects
from bertjax.console import say
from bertjax.errors import StorageError, printable

LASTS = 60.0
"""Seconds without a refresh after which another process may take it."""
REFRESHED = 10.0
"""Seconds between two refreshes."""
_RELEASED = 5.0
"""Seconds that its release may take."""


@contextlib.contextmanager
def held(directory: str) -> Iterator[Callable[[], None]]:
    """Hold a directory for this process; gives what raises StorageError once another has taken it.

    Raises StorageError if a process that is alive holds it, which is known after at most one of its refreshes; one that
    has died on this machine loses it at once, and one elsewhere after `LASTS`.
    """
    lease = _Lease(directory)
    lease.take()
    refreshing = threading.Thread(target=lease.refresh, name="lease", daemon=True)
    refreshing.start()
    try:
        yield lease.check
    finally:
        lease.release()


class _Lease:
    def __init__(self, directory: str) -> None:
        self._directory, self._url = directory, f"{directory}/.lock"
        self._me = {"process": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "id": uuid.uuid4().hex}
        self._me["started"] = _started(os.getpid())
        self._generation, self._number, self._refreshed = b"", 0, 0.0
        self._one = threading.Lock()  # writes at a time
        self._over = threading.Event()

    def take(self) -> None:
        seen, since = b"", time.monotonic()
        while True:
            content, generation = objects.versioned(self._url)
            expired = generation == seen and time.monotonic() - since > LASTS
            if content is None or expired or _has_died(_holder(content)):
                if self._written(over=generation):
                    return
                continue  # somebody was faster, and is looked at as any other
            if seen and generation != seen:
                raise StorageError(
                    f"{self._directory}: in use by {_shown(_holder(content))}; stop it, or name another directory"
                )
            if not seen:
                told = f"held by {_shown(_holder(content))}; unless that is alive, it is taken over in {LASTS:g} s"
                say(f"{self._directory}: {told}")
                seen = generation
            time.sleep(0.5)

    def refresh(self) -> None:
        while not self._over.wait(REFRESHED):
            with contextlib.suppress(StorageError):  # it has told that nothing answers; whoever saves will hear it
                self._written(over=self._generation)

    def check(self) -> None:
        late = time.monotonic() - self._refreshed > LASTS / 2
        if late and not self._written(over=self._generation):
            holder = _shown(_holder(objects.get(self._url) or b""))
            fix = "nothing was written since; start again when that has ended"
            raise StorageError(f"{self._directory}: was taken over by {holder}, while this process stood still; {fix}")

    def release(self) -> None:
        self._over.set()
        if self._one.acquire(timeout=_RELEASED):
            with contextlib.suppress(StorageError):
                objects.delete(self._url, over=self._generation, patience=_RELEASED)
            self._one.release()

    def _written(self, *, over: bytes) -> bool:
        """Write `.lock` over a generation; whether it is ours, also where the answer was lost."""
        with self._one:
            if self._over.is_set():
                return False
            self._number += 1
            content = json.dumps(self._me | {"number": self._number}, allow_nan=False).encode()
            generation = objects.put(self._url, content, over=over)
            if generation is None:
                found, last = objects.versioned(self._url)
                generation = last if _holder(found or b"").get("id") == self._me["id"] else None
            if generation is not None:
                self._generation, self._refreshed = generation, time.monotonic()
            return generation is not None


def _holder(content: bytes) -> dict[str, Any]:
    """Who holds it, by the content of `.lock`; {} if that says nothing."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shown(holder: dict[str, Any]) -> str:
    named = f"process {holder['process']} on {holder['host']}" if {"process", "host"} <= holder.keys() else "another"
    return printable(named[:200])


def _has_died(holder: dict[str, Any]) -> bool:
    """Whether it is known that the holder has ended: it was a process of this machine, and is not there any more."""
    here = bool(holder.get("machine")) and holder["machine"] == _machine()
    return here and holder.get("started") != _started(holder.get("process"))


def _machine() -> str:
    """Names a machine since its start, and the space of process ids there: a container has its own; "" if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(process: Any) -> str:
    """When a process began, as the kernel counts: another of the same number has another; "" if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
