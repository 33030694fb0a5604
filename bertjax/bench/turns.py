"""Steps timed in turn: each side lives in a process of its own and only one works at a time, A B A B, so that a drift
of the machine's speed meets all. The figure to quote is the ratio of neighbouring windows.

Shape letters: B rows, L positions of a row.
"""

import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bertjax.errors import OutOfMemory, UserError

Rows = list[dict[str, np.ndarray]]
"""Batches (`bertjax.batch`) of the same shapes, taken one after the other and from the first again."""
SECONDS = 1.0
"""A window has as many steps as take so long, and one where that takes longer."""
WARM = 3
"""Steps before the first window: the first compiles, the last tells how many steps a window has."""


@dataclass(frozen=True)
class Count:
    """What a step does: tokens of examples, and slots of rows, padding included."""

    tokens: int
    slots: int

    @classmethod
    def of(cls, segments_BL: np.ndarray) -> "Count":
        """Of a batch, by its `segments` (`bertjax.batch`)."""
        return cls(int(np.count_nonzero(segments_BL)), segments_BL.size)


@dataclass(frozen=True)
class Work:
    """A side: its `step`, which is done when it returns; and what it tells of itself before the first window, when it
    is warm, and after the last.
    """

    step: Callable[[], Count]
    begun: Callable[[], dict[str, Any]] = dict
    ended: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Window:
    """A stretch of `steps` steps."""

    seconds: float
    steps: int
    tokens: int
    slots: int


@dataclass(frozen=True)
class Side:
    """The windows of a side, and what it told of itself."""

    windows: list[Window]
    facts: dict[str, Any]

    def median(self, value: Callable[[Window], float]) -> float:
        """The median of `value` over the windows."""
        return statistics.median(map(value, self.windows))


def in_turn(sides: dict[str, Callable[[], Work]], *, windows: int) -> dict[str, Side]:
    """Time `windows` windows of each side, whose function makes its work in the process that does it, and must be one
    that can be sent there. Raises the UserError that making it or warming up raised; OutOfMemory if it was killed.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        connections: dict[str, Connection] = {}
        facts: dict[str, dict[str, Any]] = {}
        timed: dict[str, list[Window]] = {name: [] for name in sides}
        for name, make in sides.items():
            connections[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a side that fails is seen, and not waited for
            stack.callback(process.terminate)
            try:
                ready = connections[name].recv()  # built and warm, before the other side starts
            except EOFError:
                process.join()
                if process.exitcode != -signal.SIGKILL:
                    raise
                fix = "most likely the machine has no memory left: free some, or lower data.batch_size"
                raise OutOfMemory(f"{name}: its process was killed; {fix}") from None
            if isinstance(ready, UserError):
                raise ready
            facts[name] = ready
        for _ in range(windows):
            for name, connection in connections.items():
                connection.send(True)
                timed[name].append(connection.recv())
        for name, connection in connections.items():
            connection.send(False)
            facts[name] |= connection.recv()
    return {name: Side(timed[name], facts[name]) for name in sides}


def ratio(ours: Side, theirs: Side) -> float:
    """The median of the real tokens a second of `ours` over those of `theirs`, window by window."""
    pairs = zip(ours.windows, theirs.windows, strict=True)
    return statistics.median((a.tokens / a.seconds) / (b.tokens / b.seconds) for a, b in pairs)


def _serve(make: Callable[[], Work], connection: Connection) -> None:
    try:
        work = make()
        for _ in range(WARM):
            start = time.perf_counter()
            work.step()
            took = time.perf_counter() - start
    except UserError as error:
        connection.send(error)
        return
    steps = max(1, round(SECONDS / took))
    connection.send(work.begun())
    while connection.recv():
        start = time.perf_counter()
        counts = [work.step() for _ in range(steps)]
        seconds = time.perf_counter() - start
        connection.send(Window(seconds, steps, sum(x.tokens for x in counts), sum(x.slots for x in counts)))
    connection.send(work.ended())
