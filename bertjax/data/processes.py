"""Batches from processes, each of which makes its share of them.

They come through pipes. Shared memory has files in /dev/shm, which stay where a run is killed; a pipe has none, and it
ends with the process that writes to it, so that one that has died is noticed at once.
"""

import itertools
import multiprocessing
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from bertjax import workers
from bertjax.errors import WorkerError

Part = Callable[[int, int], Iterator[Any]]
"""(k, n) -> elements k, k + n, k + 2n, ... of a sequence without an end. It is sent to the processes."""

_DIED = object()
_ENDING_S = 5.0  # a process that reads from a disk that is gone cannot even be killed


class Processes:
    """The elements of a sequence in order, made in `count` processes."""

    def __init__(self, part: Part, *, count: int, patience: int) -> None:
        """Starts the processes. `patience` is the time in seconds that one of them may take for an element."""
        self._patience, self._number, self._processes = patience, 0, []
        context, pipes = multiprocessing.get_context("spawn"), []
        # One element waits here, one in each pipe, and more in the processes.
        self._made: queue.Queue[Any] = queue.Queue(maxsize=1)
        with workers.shielded():
            for k in range(count):
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(part, k, count, there), daemon=True)
                process.start()
                there.close()  # the other end is now the process's alone
                pipes.append(here)
                self._processes.append(process)
        thread = threading.Thread(target=_receive, args=(pipes, self._made), name="loader-processes", daemon=True)
        thread.start()
        # Also where this is dropped, and at the end of the program: before multiprocessing waits for its processes.
        self._end = util.Finalize(self, _end, args=(self._processes, pipes, thread, self._made), exitpriority=1)

    def __iter__(self) -> "Processes":
        return self

    def __next__(self) -> Any:
        """Raises WorkerError if the process whose turn it is has died, or gives nothing in time; and what it raised."""
        k = self._number % len(self._processes)
        made = self._wait(k)
        if made is _DIED:
            raise WorkerError(f"{self._name(k)} {_fate(self._processes[k])}")
        if isinstance(made, Exception):
            raise made
        self._number += 1
        return made

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._end()

    def _wait(self, k: int) -> Any:
        for _ in range(self._patience):  # by the second: while all of us are suspended, no time is lost
            try:
                return self._made.get(timeout=1.0)
            except queue.Empty:
                continue
        fix = "see what holds it up (a disk?), or raise data.loader_timeout"
        raise WorkerError(f"{self._name(k)} gave no batch in data.loader_timeout = {self._patience} s; {fix}")

    def _name(self, k: int) -> str:
        return f"data.loader_workers = {len(self._processes)}: process {self._processes[k].pid}"


def _fate(process: SpawnProcess) -> str:
    process.join(_ENDING_S)
    code = process.exitcode or 0
    if code >= 0:
        return f"ended with exit code {code}"
    cause = ", as happens when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{cause}"


def _work(part: Part, k: int, count: int, pipe: Connection) -> None:
    """The life of a process: its share of the elements, until the parent ends it, or the first error."""
    workers.begin(workers.SIGNALS)
    try:
        for element in part(k, count):
            pipe.send(element)
    except Exception as error:
        error.add_note(f"In a loader process:\n{traceback.format_exc()}")
        pipe.send(error)


def _receive(pipes: list[Connection], made: queue.Queue[Any]) -> None:
    """The elements in turn, until one of the processes ends: a thread's, since it may block within an element."""
    for pipe in itertools.cycle(pipes):
        try:
            element = pipe.recv()
        except (EOFError, OSError):
            element = _DIED
        except Exception as error:  # what cannot be put together again here
            element = error
        made.put(element)
        if element is _DIED or isinstance(element, Exception):
            return


def _end(
    processes: list[SpawnProcess], pipes: list[Connection], thread: threading.Thread, made: queue.Queue[Any]
) -> None:
    for process in processes:
        process.kill()  # they hold nothing that has to be finished
    deadline = time.monotonic() + _ENDING_S
    while thread.is_alive() and time.monotonic() < deadline:
        try:
            made.get(timeout=0.01)  # it may be waiting to hand one over
        except queue.Empty:
            continue
    for process, pipe in zip(processes, pipes, strict=True):
        process.join(max(deadline - time.monotonic(), 0.0))
        if not thread.is_alive():
            pipe.close()
