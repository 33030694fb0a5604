"""What a configuration costs, before it runs: from shapes alone at any size, and on this machine by compiling its step
and timing a few.
"""

import math
from typing import Any

import jax
import numpy as np

from bertjax.bench import memory, probe
from bertjax.config.phases import Phase, phases
from bertjax.config.schema import Config, ModelConfig
from bertjax.console import say
from bertjax.model.cost import PEAK_TFLOPS, flops_per_token, peak_tflops, predicted_share
from bertjax.model.heads import HEADS
from bertjax.model.network import abstract_params
from bertjax.parallel.memory import SHARE
from bertjax.train.optim import make_optimizer

MFU = 0.4
"""Share of a device's peak that a run elsewhere is taken to reach: what well-set runs of encoders of this size do."""
ELSEWHERE = ("NVIDIA A100", "NVIDIA H100", "NVIDIA B200", "TPU v5 lite", "TPU v5p", "TPU v6 lite")
"""Devices, of `PEAK_TFLOPS`, whose time is told."""


def info(config: Config) -> dict[str, Any]:
    """From shapes alone: `parameters` by part, `flops_per_token` (forward and backward), `memory_bytes` of what a run
    keeps, the whole `run` with rows taken to be full, and its `hours_elsewhere` on one device at `MFU` of its peak. Of
    several phases, each by its name, and `flops_per_token` of the first.

    Memory is of the whole state in float32: parameters, what the optimizer keeps (moments, the average of the weights),
    gradients, and the best weights where a run selects them; activations are not in it. Under mesh.fsdp each device
    holds its share, and of the optimizer's under mesh.shard_optimizer. A teacher is not counted.
    """
    params = abstract_params(config.model)
    # Those for pretraining also where there are none.
    parts = [part for part in ("encoder", *HEADS) if part in params or part in ModelConfig.heads]
    counts = {part: _count(params.get(part, {})) for part in parts}
    total = sum(counts.values())
    size = np.dtype(np.float32).itemsize
    optimizer = make_optimizer(config)
    kept = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, params)) if leaf.shape)
    found = [(phase, _phase(phase)) for phase in phases(config)]
    tokens, whole = (sum(values[name] for _, values in found) for name in ("tokens", "flops"))
    best = {"best": size * total} if config.task.kind and config.task.select == "best" else {}
    return {
        "parameters": counts | {"total": total},
        "flops_per_token": _flops(config),
        "memory_bytes": {"parameters": size * total, "optimizer": size * kept, "gradients": size * total} | best,
        "run": {"steps": config.run.steps, "tokens": tokens, "flops": whole},
        **{phase.name: values for phase, values in found if phase.name},
        "hours_elsewhere": {
            f"{kind}, {MFU:.0%} of {PEAK_TFLOPS[kind]:.0f} TFLOP/s": whole / (PEAK_TFLOPS[kind] * 1e12 * MFU) / 3600
            for kind in ELSEWHERE
        },
    }


def _phase(phase: Phase) -> dict[str, Any]:
    """A phase in numbers; its rate follows a schedule from one step to another."""
    d = phase.config.data
    tokens, flops = phase.stretch.steps * d.batch_size * d.seq_len, _flops(phase.config)["total"]
    return {
        "steps": phase.stretch.steps,
        "batch_size": d.batch_size,
        "seq_len": d.seq_len,
        "tokens": tokens,
        "flops": tokens * flops,
        "flops_per_token": flops,
        "schedule_from_step": phase.rate.begin + 1,
        "schedule_to_step": phase.rate.end,
    }


def _flops(config: Config) -> dict[str, float]:
    return flops_per_token(config.model, config.data.seq_len, predicted=predicted_share(config.data))


def here(config: Config) -> dict[str, Any]:
    """On this machine: `memory_here`, bytes of each device, and `time_here`; None where a number is not known. Of
    several phases, both of each.
    """
    found: dict[str, Any] = {}
    for phase in phases(config):
        with phase.naming():
            values = _here(phase.alone)
        found |= {f"{name}, {phase.name}" if phase.name else name: section for name, section in values.items()}
    return found


def _here(config: Config) -> dict[str, Any]:
    """Of a run that is one phase.

    Compiles the step for four or five sizes and times some steps, which takes a minute or two; says what it does.
    Raises ConfigError for a config that cannot train here, and OutOfMemory where not even the smallest batch fits.
    """
    plan = memory.plan(config)
    device, count = plan.mesh.devices.flat[0], plan.mesh.size
    say(f"{count} x {device.device_kind}: compiling ...")
    found = memory.measured(plan)
    say("looking for the largest batch that fits ...")
    known = found.training is not None and found.free is not None
    largest = memory.largest_batch(config, int(SHARE * found.free)) if known and found.free is not None else None
    within = found.free is None or found.training is None or found.training <= found.free
    rows = config.data.batch_size if within else largest or 0
    seconds, timed = probe.seconds_per_step(plan, rows)
    tokens = config.data.batch_size * config.data.seq_len / seconds
    peak = peak_tflops(device.device_kind, config.run.peak_tflops) * count * 1e12
    return {
        "memory_here": {
            "step": found.step,
            "training": found.training,
            "free": found.free,
            "largest_batch": largest,
        },
        "time_here": {
            "rows_timed": timed,
            "seconds_per_step": seconds,
            "tokens_per_second": tokens,
            "mfu": tokens * plan.task.flops_per_token / peak if peak else None,
            "hours": config.run.steps * seconds / 3600,
        },
    }


def table(values: dict[str, Any]) -> str:
    """The same for a person: one line a number."""
    width = max(22, *(len(name) for numbers in values.values() for name in numbers))
    lines = []
    for section, numbers in values.items():
        lines.append(section.replace("_", " "))
        lines += [f"  {name.replace('_', ' '):<{width}}{_shown(value):>22}" for name, value in numbers.items()]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.3g}"


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
