"""A run that hangs ends: JAX notices a process that has died, but not one that waits for ever, nor a device, a disk or
a collective that never answers.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bertjax.console import say_last
from bertjax.errors import PeerError
from bertjax.progress import duration


class Watchdog:
    """Ends the process with the exit code of PeerError if the next sign of life takes too long, and shows where each of
    its threads is. Entered, it watches; its thread costs nothing in between.
    """

    def __init__(self, limit: float) -> None:
        """`limit` in seconds, 0 = for ever: what is normal between two signs of life."""
        self._limit, self._what = limit, ""
        self._until = float("inf")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._limit:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._limit:
            self._thread.join()

    def alive(self, what: str) -> None:
        """A sign of life: from here on it is `what` that must not take longer than the limit."""
        self._what, self._until = what, time.monotonic() + self._limit

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A block that may take as long as it needs: it compiles, or evaluates."""
        what, self._until = self._what, float("inf")
        yield
        self.alive(what)

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._limit / 4)):
            if time.monotonic() > self._until:
                self._end()

    def _end(self) -> None:
        say_last(f"bertjax: {self._what} takes more than {duration(self._limit)}; where each thread is:")
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        fix = "start again: it goes on from the newest checkpoint; raise run.step_timeout if it is only slow"
        say_last(f"bertjax: {self._what} takes more than run.step_timeout = {self._limit:g} s; {fix}")
        os._exit(PeerError.exit_code)
