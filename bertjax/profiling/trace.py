"""What JAX's profiler saw of a program -> how long each operation was at work.

A trace (XPlane) has a line of events for each thread of a CPU, each stream of a GPU, the one core of a TPU. Within a
line events may lie in each other: an operation in the loop that it is in, or, on CPU, one that a thread took on while
it waited for its own. Lines run beside each other.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from bertjax.errors import DataError, StorageError, one_line

_OPERATIONS_OF_TPU = "XLA Ops"
"""The line of a TPU whose events are operations. Others group them, or show what goes on beside them."""


class Event(NamedTuple):
    """An operation at work, from `start` to `end` in nanoseconds."""

    start: float
    end: float
    name: str


@dataclass(frozen=True)
class Traced:
    """Of one device, the mean over all of them; everything that was traced, in seconds.

    A moment in which several operations were at work is divided evenly among them, so that the seconds of all add up to
    those in which any was. Of operations that lie in each other the inner one is at work.
    """

    devices: int
    seconds: dict[str, float]
    """By name of the operation."""
    times: dict[str, float]
    """How often each was executed."""
    covered: float
    """In which any operation was at work."""
    busy: float
    """The same, each as often as operations were."""


@contextmanager
def tracing(directory: Path) -> Iterator[None]:
    """A block whose operations are traced into a directory. Raises StorageError where that cannot be written."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the calls of Python would slow it down
    jax.profiler.start_trace(directory, profiler_options=options)
    try:
        yield
    finally:
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            fix = "free some room, or name another directory"
            raise StorageError(f"{directory}: the trace cannot be written ({one_line(error)}); {fix}") from error


def newest(directory: Path) -> Path:
    """The file of the last trace that was written there. Raises DataError if there is none."""
    files = sorted(directory.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        raise DataError(f"{directory}: JAX's profiler left no trace there (plugins/profile/*/*.xplane.pb); try again")
    return files[-1]


def read(data: Any, program: str) -> Traced:
    """What was traced of a program of this name. `data` is a `jax.profiler.ProfileData`.

    Raises DataError if nothing was.
    """
    planes = list(data.planes)
    found = _of_accelerators(planes, program) or _of_host(planes, program)
    if not found:
        raise DataError(f"the trace has no operation of {program}: JAX's profiler does not see them on this device")
    parts = [_divided(list(lines.values())) for lines in found.values()]
    count = len(parts)
    seconds, times = defaultdict[str, float](float), defaultdict[str, float](float)
    for part in parts:
        for name, value in part.seconds.items():
            seconds[name] += value / count
        for name, value in part.times.items():
            times[name] += value / count
    covered, busy = (sum(getattr(part, name) for part in parts) / count for name in ("covered", "busy"))
    return Traced(count, dict(seconds), dict(times), covered, busy)


Lines = dict[str, list[Event]]


def _of_accelerators(planes: Iterable[Any], program: str) -> dict[str, Lines]:
    """Device -> line -> its operations."""
    found: dict[str, Lines] = {}
    for plane in planes:
        if not re.fullmatch(r"/device:(GPU|TPU):\d+", plane.name):
            continue
        lines = list(plane.lines)
        operations = [line for line in lines if line.name == _OPERATIONS_OF_TPU]
        for line in operations or lines:
            events = [event for event, _ in _events(line, program, named=bool(operations))]
            if events:
                found.setdefault(plane.name, {})[line.name] = events
    return found


def _of_host(planes: Iterable[Any], program: str) -> dict[str, Lines]:
    """The same of a CPU, whose devices share their threads."""
    found: dict[str, Lines] = {}
    for line in (line for plane in planes if plane.name == "/host:CPU" for line in plane.lines):
        for event, stats in _events(line, program, named=False):
            lines = found.setdefault(str(stats["device_ordinal"]) if "device_ordinal" in stats else "", {})
            lines.setdefault(line.name, []).append(event)
    return found


def _events(line: Any, program: str, *, named: bool) -> Iterator[tuple[Event, dict[str, Any]]]:
    """The operations of a line, each with what else is told of it; `named`: every event is one, by its name."""
    for event in line.events:
        stats = dict(event.stats)
        if stats.get("hlo_module", program) != program or not ("hlo_op" in stats or named):
            continue
        name = str(stats.get("hlo_op", event.name)).partition(" = ")[0].lstrip("%")
        yield Event(event.start_ns, event.end_ns, name), stats


def _divided(lines: list[list[Event]]) -> Traced:
    """Of the lines of one device."""
    edges = []
    for number, line in enumerate(lines):
        # What ends comes before what begins at the same time, and what is outside before what is in it.
        edges += [(event.end, 0, 0.0, number, event) for event in line if event.end > event.start]
        edges += [(event.start, 1, -event.end, number, event) for event in line if event.end > event.start]
    seconds, before, covered, busy = defaultdict[str, float](float), 0.0, 0.0, 0.0
    open_: defaultdict[int, list[Event]] = defaultdict(list)
    for time, begins, _, number, event in sorted(edges, key=lambda edge: edge[:3]):
        at_work = [stack[-1].name for stack in open_.values() if stack]
        passed, before = (time - before) / 1e9, time
        for name in at_work:
            seconds[name] += passed / len(at_work)
        covered += passed * bool(at_work)
        busy += passed * len(at_work)
        if begins:
            open_[number].append(event)
        else:
            open_[number].remove(event)
    times = Counter(event.name for line in lines for event in line)
    return Traced(1, dict(seconds), {name: float(count) for name, count in times.items()}, covered, busy)
