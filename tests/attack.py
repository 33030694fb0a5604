"""Attacks on a run: one damage, mistake or signal and one command after it, and what must never come of it.

A trial ends in one of `GOOD`; every other verdict is a fault. Who attacks keeps a `Tally`, which is printed at the end.
"""

import contextlib
import dataclasses
import io
import itertools
import os
import random
import re
import signal
import time
import traceback
import typing
from collections import Counter
from functools import partial
from pathlib import Path

from data.damage import DAMAGE, flip

from bertjax.cli import main as cli
from bertjax.config.limits import Limits, limits
from bertjax.config.schema import Config
from bertjax.errors import UserError

SLOWEST = 30
"""Seconds that a command may take in which something is wrong, on a machine that does nothing else."""
PATIENCE = 4
"""How many times that must pass until it is given up: tests share the machine, and what hangs, hangs for ever."""
CODES = {kind.exit_code for kind in (UserError, *UserError.__subclasses__())}
"""Exit codes that are documented, but those of success and of a run that was stopped."""
GOOD = ("refused", "harmless", "older step", "another value")
"""The last: a file of others that is as valid as it was and says something else."""
FAULTS = ("silent wrong", "traceback", "hang", "touched", "unclear")
HELD = re.compile(r"bertjax: |step \d+/\d+ |/\S+: |\d+ x cpu: |compiled in |first step: ")
"""How a line of standard error begins: an error, progress, what became of a file."""


class Hang(BaseException):
    """A command took too long."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, None with a traceback or a hang, and what it wrote."""

    code: int | None
    out: str
    err: str


def run(*arguments: str, slowest: float = SLOWEST) -> Ended:
    """A command in this process. It hangs if the processor works on it for so long, or if PATIENCE times that pass."""

    def give_up(*_):
        raise Hang(f"longer than {PATIENCE * slowest} s")

    out, err, code, began = io.StringIO(), io.StringIO(), None, time.process_time()
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * slowest)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    except (Exception, Hang, KeyboardInterrupt):
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.process_time() - began > slowest:
        err.write("attack.Hang: by its time of the processor")
    return Ended(code, out.getvalue(), err.getvalue())


def told(ended: Ended) -> str:
    """The fault of what a command says and of its exit code; "" if there is none."""
    lines = ended.err.splitlines()
    if "attack.Hang" in ended.err:
        return "hang"
    if ended.code is None or "Traceback (most recent" in ended.err or 'File "' in ended.err:
        return "traceback"
    if ended.code != 0 and (ended.code not in CODES or not any(line.startswith("bertjax: ") for line in lines)):
        return "unclear"
    return "" if all(HELD.match(line) for line in lines) else "unclear"


class Tally:
    """The verdicts of all trials, by kind of attack; a fault is kept with all that is needed to see it again."""

    def __init__(self) -> None:
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self.faults: list[str] = []

    def add(self, kind: str, name: str, verdict: str, ended: Ended | None = None) -> None:
        assert verdict in GOOD + FAULTS
        self.verdicts[kind, verdict] += 1
        if verdict in FAULTS:
            shown = f"{ended.code}\n{ended.out[-600:]}\n{ended.err[-2500:]}" if ended else ""
            self.faults.append(f"{kind}: {name}: {verdict} {shown}")

    def count(self, kind: str) -> int:
        return sum(count for (other, _), count in self.verdicts.items() if other == kind)

    def table(self) -> str:
        """A line for each kind of attack."""
        columns = ("trials", *GOOD, *FAULTS)
        kinds = list(dict.fromkeys(kind for kind, _ in self.verdicts))
        rows = [
            [kind, self.count(kind), *(self.verdicts[kind, verdict] for verdict in GOOD + FAULTS)] for kind in kinds
        ]
        widths = [max(map(len, kinds), default=0), *map(len, columns)]
        lines = [["kind of attack", *columns], *rows]
        return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in lines)


# What is others' -----------------------------------------------------------------------------------------------------


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every path below a directory, with its bytes if it is a file; but for locks, which name their last holder."""
    found = (path for path in sorted(directory.rglob("*")) if path.name != ".lock")
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in found}


OTHERS = ("notes.txt", "checkpoints/2024/my_notes.txt", "checkpoints/best/model.bin", "data/my_notes.txt")
"""Files of others in a work directory."""


def settle(directory: Path) -> dict[Path, bytes]:
    """Put files of others into a work directory and beside it: path -> content."""
    places = [directory / name for name in OTHERS] + [directory.parent / "beside" / "notes.txt"]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {path.name}")
    return {path: path.read_bytes() for path in places}


def untouched(others: dict[Path, bytes]) -> bool:
    """Whether they are all as they were."""
    return all(path.is_file() and path.read_bytes() == content for path, content in others.items())


# Damages -------------------------------------------------------------------------------------------------------------


def damages(file: Path, others: list[Path], seed: int):
    """What can happen to a file: name and a function that does it. `others` are files that may come in its place."""
    rng, content = random.Random(f"{seed} {file.name}"), file.read_bytes()
    for name, damage in DAMAGE.items():
        if content or name in ("longer", "gone", "a directory"):
            yield name, partial(damage, file)
    for _ in range(2 * bool(content)):
        place, bit = rng.random(), rng.randrange(8)
        yield f"bit {bit} at {place:.6f}", partial(flip, file, place, bit)
    yield "a pipe", lambda: (file.unlink(), os.mkfifo(file))
    unlike = [other for other in others if other.read_bytes() != content]
    if unlike:
        other = rng.choice(unlike)
        yield f"as {other.parent.name}/{other.name}", lambda: file.write_bytes(other.read_bytes())


def of_checkpoint(step: Path, before: Path, seed: int = 0):
    """Damages of each file of a step directory, which may become that of the step `before`."""
    for file in sorted(path for path in step.rglob("*") if path.is_file()):
        same = before / file.relative_to(step)
        others = [same] if same.is_file() else [p for p in same.parent.glob("*") if p.is_file()]
        for name, damage in damages(file, others, seed):
            yield f"{file.relative_to(step)}: {name}", damage


def of_data(directory: Path, seed: int = 0):
    """Damages of each file of a prepared data set, which may become another of them."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name not in OTHERS[-1])
    for file in files:
        others = [other for other in files if other != file and other.suffix == file.suffix]
        for name, damage in damages(file, others, seed):
            yield f"{file.name}: {name}", damage


# Mistakes ------------------------------------------------------------------------------------------------------------


def mistakes():
    """Wrong overrides, from the schema alone: the name that the message must have, and the argument."""
    known = {f"{s.name}.{f.name}" for s in dataclasses.fields(Config) for f in dataclasses.fields(s.type)}
    for section in dataclasses.fields(Config):
        kind: typing.Any = section.type
        allowed = limits(kind)
        for field in dataclasses.fields(kind):
            name = f"{section.name}.{field.name}"
            for text in _wrong_values(field.type, allowed[field.name]):
                yield name, f"--config.{name}={text}"
            for wrong in sorted({name[:-1], f"{name}_", name.replace(".", "_", 1)} - known):
                yield wrong, f"--config.{wrong}=1"
            yield name, f"--config.{name}"


def _wrong_values(kind: typing.Any, allowed: Limits):
    """Texts that no field of this type and these limits takes; of a tuple, its second value is the wrong one."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        fine = allowed.choices[0] if allowed.choices else {int: "8", float: "0.5", str: "a"}[element]
        yield from (f"{fine},{text}" for text in _wrong_values(element, allowed) if text)
        yield f"{fine},,{fine}"
        return
    if kind is bool:
        yield from ("", "1", "yes", "None")
    if kind in (int, float):
        yield from ("", "x", "1,2", "None", "True", "0x10", "1e", "--1", "()")
    if kind is int:
        yield from ("1.5", "1e3", "inf", "9" * 5000, *([str(2**31)] if allowed.below is None else ()))
    if allowed.path:
        yield from ("~nosuchuser/x", "a\0b")
    if kind is float:
        yield from ("nan", "inf", "-inf", "1e400")
    if allowed.least is not None:
        yield str(kind(allowed.least) - 1) if kind is int else repr(allowed.least - 1e-3)
        yield "-9999999999"
    if allowed.below is not None:
        yield from (str(kind(allowed.below)), str(kind(allowed.below) * 10 + 1))
    if allowed.choices:
        wrong = ("", allowed.choices[0] + "x", allowed.choices[-1].upper() + " ", "1")
        yield from (text for text in wrong if text not in allowed.choices)


# Signals -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a signal is sent: `delay` s after the start of the process, or after it has logged `step`."""

    number: signal.Signals
    step: int | None
    delay: float

    def __str__(self) -> str:
        return f"{self.number.name} {self.delay:.3f} s after " + (f"step {self.step}" if self.step else "the start")


def moments(rng: random.Random, steps: int, lasts: float):
    """Random ones without end, of a run of `steps` that lasts this many s: in all of it, and among its steps."""
    numbers = itertools.cycle((signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP))
    for place, number in enumerate(numbers):
        if place % 3 == 2:
            yield Moment(number, None, rng.uniform(0.0, lasts))
        else:
            yield Moment(number, rng.randrange(1, steps), rng.uniform(0.0, 0.05))


def send(process, moment: Moment, logged) -> int:
    """Send a signal at that moment, and wait; the exit code. `logged` says the last step that is logged, or 0."""
    deadline = time.monotonic() + 2 * PATIENCE * SLOWEST
    while moment.step and process.poll() is None and logged() < moment.step and time.monotonic() < deadline:
        time.sleep(0.005)
    with contextlib.suppress(Exception):
        process.wait(moment.delay)
    if process.poll() is None:
        process.send_signal(moment.number)
    return process.wait(2 * PATIENCE * SLOWEST)
