"""The training step of a config compiled for a machine that is not here, and the report on its program."""

import re
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax.ahead import hlo
from bertjax.ahead.roofline import Timing
from bertjax.ahead.traffic import Collective
from bertjax.config.schema import Config
from bertjax.errors import ConfigError, memory_ran_out, one_line
from bertjax.model import attention
from bertjax.model.cost import flops_per_token, peak_tflops, predicted_share
from bertjax.parallel import memory, sharding, topology
from bertjax.tasks import fit
from bertjax.tasks.pretraining import pretraining
from bertjax.train.session import Engine

_OPERATIONS = 20
"""Most operations of a report."""


@dataclass(frozen=True)
class Compiled:
    """The training step of a config for a machine that is not here."""

    config: Config
    topology: topology.Topology
    mesh: Mesh
    shapes: Any
    """Of the state."""
    program: jax.stages.Compiled | None
    """None = the compiler refused it for its memory."""
    refused: str
    """Why; "" = it did not."""
    seconds: float

    @property
    def tokens(self) -> int:
        """Of a step, rows taken to be full."""
        return self.config.data.batch_size * self.config.data.seq_len

    @cached_property
    def flops(self) -> dict[str, float]:
        """Of a token, by part and in total, as `flops_per_token` counts them."""
        data = self.config.data
        return flops_per_token(self.config.model, data.seq_len, predicted=predicted_share(data))

    @cached_property
    def timing(self) -> Timing:
        """How long its program takes, by estimate; there must be one."""
        assert self.program is not None
        return Timing(
            program=hlo.parse(self.program.as_text() or ""),
            topology=self.topology,
            devices=list(self.mesh.devices.flat),
            peak=1e12 * peak_tflops(self.topology.chip.kind, self.config.run.peak_tflops),
            kernel_flops=self.flops["attention"] * self.tokens / self.mesh.size,
        )


def compiled(config: Config, machine: str) -> Compiled:
    """Compile the step of `config` for the machine of this name (`bertjax.parallel.topology`).

    Raises ConfigError for a config that cannot train there or a machine that is not known.
    """
    if config.teacher.path or config.task.kind:
        what = f"teacher.path = {config.teacher.path}" if config.teacher.path else f"task.kind = {config.task.kind}"
        raise ConfigError(f"{what}: what is compiled for other machines is pretraining alone; leave it out")
    jax.config.update("jax_platforms", "cpu")  # the device of this machine, if there is one, is left alone
    found = topology.find(machine)
    mesh = sharding.make_mesh(config.mesh, list(found.devices), found.slice_of)
    sharding.check(config.model, config.data.batch_size // config.optim.accumulate, mesh)
    attention.check(config.model, config.compute, config.data.row_lengths, found.chip.platform)
    engine = Engine(config, pretraining(config, batches=lambda row: iter(())), mesh)
    start = time.monotonic()
    program, refused = _compiled(engine, config)
    return Compiled(config, found, mesh, engine.shapes, program, refused, time.monotonic() - start)


def report(config: Config, machine: str) -> dict[str, Any]:
    """Compile the step of `config` for the machine of this name; returns

    topology, chips, mesh, rows_per_chip (of a microbatch), accumulate, remat, tokens_per_step (rows taken to be full)
    fits            whether `bytes_per_chip`'s total is within its capacity
    bytes_per_chip  arguments (of these, parameters, optimizer), temporaries, code, total, capacity; None where the
                    compiler refused the program before it knew
    collectives     kind -> count and bytes of a step, of one chip, and of the count how many are split, that is, may go
                    on while the chip computes
    compile_seconds
    flops_per_step  of the model, forward and backward, on all chips; recomputation is not counted
    estimated       step_seconds, mfu, by, assumptions, operations (name -> seconds), exchange_seconds and
                    exposed_seconds of it; None where it does not fit

    Raises ConfigError as `compiled` does.
    """
    found = compiled(config, machine)
    mesh, memory_there = found.mesh, found.topology.chip.memory
    values: dict[str, Any] = {
        "topology": machine,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "rows_per_chip": config.data.batch_size // config.optim.accumulate // sharding.row_ways(mesh),
        "accumulate": config.optim.accumulate,
        "remat": config.compute.remat,
        "tokens_per_step": found.tokens,
        "compile_seconds": found.seconds,
        "flops_per_step": found.flops["total"] * found.tokens,
        "bytes_per_chip": _bytes(found.program, found.refused, found.shapes, memory_there),
    }
    total = values["bytes_per_chip"]["total"]
    values["fits"] = total is not None and total <= memory_there
    if found.program is None:
        return values | {"collectives": {}, "estimated": None, "refused": found.refused}
    timing = found.timing
    return values | {"collectives": by_kind(timing.collectives), "estimated": _estimated(timing, values)}


def by_kind(collectives: list[Collective]) -> dict[str, dict[str, float]]:
    """Kind -> `count`, `bytes` and `split` of a run of the program."""
    found: dict[str, dict[str, float]] = {}
    for one in collectives:
        sums = found.setdefault(one.kind, {"count": 0, "bytes": 0, "split": 0})
        sums["count"] += round(one.times)
        sums["bytes"] += round(one.times * one.bytes)
        sums["split"] += round(one.times) * one.split
    return found


def _compiled(engine: Engine, config: Config) -> tuple[Any, str]:
    """The program, or None and why the compiler for the machine refuses it for its memory."""
    lowered = engine.step.lower(engine.shapes, fit.shapes(config, config.data.batch_size))
    try:
        return lowered.compile(), ""
    except Exception as error:
        if not memory_ran_out(error):
            raise
        return None, one_line(error)


def _bytes(compiled: Any, refused: str, shapes: Any, capacity: int) -> dict[str, int | None]:
    """Of one chip, by what they are for. A donated result lies where its argument was, and counts once."""
    sizes = {name: sum(memory.size(x) for x in jax.tree.leaves(part)) for name, part in _state(shapes).items()}
    if compiled is None:
        used = re.search(r"Used ([\d.]+)([KMG]) of", refused)
        total = int(float(used[1]) * 1024 ** (1 + "KMG".index(used[2]))) if used else None
        return {"arguments": sum(sizes.values()), **sizes, "temporaries": None, "code": None, "total": total,
                "capacity": capacity}  # fmt: skip
    found = compiled.memory_analysis()
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes
    arguments, temporaries = found.argument_size_in_bytes, found.temp_size_in_bytes + fresh
    code = found.generated_code_size_in_bytes
    return {"arguments": arguments, **sizes, "temporaries": temporaries, "code": code,
            "total": arguments + temporaries + code, "capacity": capacity}  # fmt: skip


def _state(shapes: Any) -> dict[str, Any]:
    return {"parameters": shapes.params, "optimizer": shapes.opt_state}


def _estimated(timing: Timing, values: dict[str, Any]) -> dict[str, Any]:
    found = asdict(timing.estimate())
    seconds = found.pop("seconds")
    return {
        "step_seconds": seconds,
        "mfu": values["flops_per_step"] / (seconds * timing.peak * values["chips"]),
        "by": found["by"],
        "assumptions": list(found["assumptions"]),
        "exchange_seconds": found["exchanged"],
        "exposed_seconds": found["exposed"],
        "operations": _longest(found["operations"]),
    }


def _longest(operations: dict[str, float]) -> dict[str, float]:
    """The longest by themselves, and the others together."""
    order = sorted(operations, key=lambda name: -operations[name])
    shown = {name: operations[name] for name in order[:_OPERATIONS]}
    rest = order[_OPERATIONS:]
    return shown | ({f"{len(rest)} others": sum(operations[name] for name in rest)} if rest else {})
