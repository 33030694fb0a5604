"""Processes that work for this one: they leave signals to it, and they end when it does, however that comes about."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Those that a terminal or a scheduler sends to all processes of a group; the parent decides what they mean."""


def begin(ignored: tuple[signal.Signals, ...]) -> None:
    """What a process started by `multiprocessing` calls first: it ignores these signals and ends with its parent.

    SIGTERM must not be among them where the parent stops its workers by it, as concurrent.futures does when one dies.
    """
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()  # a parent that was killed cannot stop its workers
    os._exit(1)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """A block in which processes are started: SIGNALS are blocked in them until they ignore them.

    A process takes seconds to import what it needs, and a signal to the group must not end it in that time.
    """
    resource_tracker.ensure_running()  # Python's own helper, which would unblock the signals as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
