"""Signals that ask a run to stop."""

import abc
import atexit
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn, Self, TypeVar

from bertjax.errors import PREEMPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

T = TypeVar("T")


class Stopped(Exception):
    """A wait was cut short, since the run is asked to stop."""


class _Heeding(abc.ABC):
    """While entered, SIGNALS call `_handle`. One that is ignored stays so, as a hangup under nohup."""

    def __enter__(self) -> Self:
        heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """From now on they do nothing."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    @abc.abstractmethod
    def _handle(self, number: int, frame: Any) -> None: ...


class ending(_Heeding):
    """While entered, SIGTERM, Ctrl-C and a terminal that is closed end the process at once, with PREEMPTED.

    For the time in which nothing has to be saved. What is half written then has another name, as after `kill -9`.
    """

    def _handle(self, number: int, frame: Any) -> NoReturn:
        name = signal.Signals(number).name
        # Not `say`, which it may have interrupted; and no exception, which one of the libraries might catch.
        with contextlib.suppress(OSError):
            os.write(2, f"bertjax: asked to stop ({name}): nothing had to be saved\n".encode())
        os._exit(PREEMPTED)


def end_at_once() -> None:
    """`ending` from here to the end of the process.

    In its last tenths of a second Python takes itself apart and calls no handler any more: they are ignored then, so
    that the process ends with the code that it has.
    """
    heeded = ending()
    heeded.__enter__()
    atexit.register(heeded.ignore)  # registered before those of libraries, so called after them


class noted(_Heeding):
    """While entered, they only note that the run should save and stop. A second Ctrl-C interrupts."""

    alone = True  # no other process has to stop at the same step

    def __init__(self) -> None:
        self.asked = ""  # the name of the signal, once there was one
        self._waits = False

    def wait(self, get: Callable[[], T]) -> T:
        """What `get()` gives. Raises Stopped in its place as soon as the run is asked to stop, or if it has been."""
        try:
            self._waits = True
            if self.asked:
                raise Stopped
            return get()
        finally:
            self._waits = False

    def stopping(self) -> bool:
        """Whether the run stops after this step."""
        return bool(self.asked)

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or signal.Signals(number).name
        if self._waits:
            self._waits = False  # once: what is done about it is not to be cut short
            raise Stopped
