"""What works for this process: threads; and processes, which leave signals to it, and end when it does, however that
comes about.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Those that a terminal or a scheduler sends to all processes of a group; the parent decides what they mean."""

THREADS = 4
"""At once: a checksum takes one core and a gigabyte a second, an object of a bucket as much memory as it is large."""


def each(function: Callable[[T], S], items: Iterable[T]) -> list[S]:
    """`function` of each item, in threads, in their order. The error of the first that raises one is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


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
    """A block in which processes are started that never see SIGNALS: they inherit that these are blocked.

    A process takes seconds to import what it needs, and a signal to the group must not end it before it can ignore it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # Python's own helper, which inherits that they are blocked, and unblocks two of them as it starts.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_THREAD = "bertjax-worker"


def in_thread(function: Callable[[], Any]) -> Future[Any]:
    """What `function()` gives or raises, in a thread that is left alone where the process ends."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name=_THREAD, daemon=True).start()
    return future


def at_work() -> bool:
    """Whether a thread of `in_thread` is not done."""
    return any(thread.name == _THREAD for thread in threading.enumerate())
