"""The table of the time of a training step by operation: of one that is run and traced here, or of one for a machine
that is not here, by estimate.
"""

import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from bertjax import batch, storage
from bertjax.ahead import compile as ahead
from bertjax.ahead import hlo
from bertjax.ahead.operations import Operation, Spent
from bertjax.bench.made import MadeStep
from bertjax.bench.memory import plan
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import OutOfMemory
from bertjax.profiling import trace

OPERATIONS = 25
"""Most operations of a report."""


def measured(config: Config, directory: Path, *, steps: int) -> dict[str, Any]:
    """Run the step of `config` on synthetic rows and trace `steps` of them into `directory`; returns

    device, devices, steps, by  what was run, how often, and who measured
    step_seconds                of the traced steps, each waited for
    untraced_seconds            of as many steps before them
    covered                     the share of `step_seconds` in which operations of the program were at work
    at_once                     how many of them on average, while any was
    kinds, parts                kind, or part of the model -> seconds, share (of `step_seconds`), times (executed), of a
                                step, the longest first; the shares of each add up to `covered`
    operations                  the longest by themselves: name, kind, part, place (in the model), seconds, share, times
    others                      seconds and share of those that are not listed, and how many (`count`) they are
    assumptions                 []

    Of several devices it is the mean. Raises ConfigError for a config that cannot train here, OutOfMemory for one that
    does not fit, StorageError where the directory cannot be written.
    """
    storage.make(directory)
    made = plan(config)
    step = MadeStep(made, [batch.synthetic(made.config)])
    step()  # the first touches its memory
    untraced = _seconds(step, steps)
    say(f"tracing steps of {untraced:.3g} s: {steps:,} ...")
    with trace.tracing(directory):
        traced = _seconds(step, steps)
    found = trace.read(ProfileData.from_file(str(trace.newest(directory))), _name(step.program))
    return {
        "device": made.mesh.devices.flat[0].device_kind,
        "devices": found.devices,
        "steps": steps,
        "by": "JAX's profiler",
        "step_seconds": traced,
        "untraced_seconds": untraced,
        "covered": found.covered / steps / traced,
        "at_once": found.busy / found.covered,
        **_table(_spent(step.program, found, steps), traced),
        "assumptions": [],
    }


def estimated(config: Config, machine: str) -> dict[str, Any]:
    """The same of a machine that is not here (`bertjax.parallel.topology`), where nothing is run: `steps` is 0,
    `untraced_seconds`, `covered` and `at_once` are None, and `assumptions` says what the estimate assumes.

    Raises ConfigError as `bertjax.ahead.compile.compiled` does, and OutOfMemory where the compiler refuses the program.
    """
    found = ahead.compiled(config, machine)
    if found.program is None:
        fix = "`bertjax compile --search` looks for what fits"
        raise OutOfMemory(f"--topology={machine}: the step does not fit ({found.refused}); {fix}")
    whole = found.timing.estimate()
    return {
        "device": machine,
        "devices": found.mesh.size,
        "steps": 0,
        "by": whole.by,
        "step_seconds": whole.seconds,
        "untraced_seconds": None,
        "covered": None,
        "at_once": None,
        **_table(list(found.timing.each()), whole.seconds),
        "assumptions": list(whole.assumptions),
    }


def _seconds(step: MadeStep, count: int) -> float:
    """Of one of so many steps."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def _name(program: jax.stages.Compiled) -> str:
    return (program.as_text() or "").partition(",")[0].removeprefix("HloModule ").strip()


def _spent(program: jax.stages.Compiled, found: trace.Traced, steps: int) -> list[Spent]:
    """What was traced, of one step, with what the program says of it."""
    parsed = hlo.parse(program.as_text() or "")
    named = {i.name: Operation(parsed, computation, i) for computation, i, _ in parsed.executed()}
    spent = []
    for name, times in found.times.items():
        each, seconds = times / steps, found.seconds.get(name, 0.0) / steps
        one = named.get(name)
        told = (one.kind, one.part, one.place) if one else ("other", "other", "other")
        spent.append(Spent(name, *told, times=each, seconds=seconds))
    return spent


def _table(spent: list[Spent], step_seconds: float) -> dict[str, Any]:
    """`kinds`, `parts`, `operations` and `others`."""
    order = sorted(spent, key=lambda one: -one.seconds)
    rest = [one.seconds for one in order[OPERATIONS:]]
    return {
        "kinds": _sums(spent, "kind", step_seconds),
        "parts": _sums(spent, "part", step_seconds),
        "operations": [asdict(one) | {"share": one.seconds / step_seconds} for one in order[:OPERATIONS]],
        "others": {"count": len(rest), "seconds": sum(rest), "share": sum(rest) / step_seconds},
    }


def _sums(spent: list[Spent], by: str, step_seconds: float) -> dict[str, dict[str, float]]:
    """Of the operations of one kind or part; the longest first."""
    seconds, times = defaultdict[str, float](float), defaultdict[str, float](float)
    for one in spent:
        seconds[getattr(one, by)] += one.seconds
        times[getattr(one, by)] += one.times
    return {
        name: {"seconds": value, "share": value / step_seconds, "times": times[name]}
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    }
