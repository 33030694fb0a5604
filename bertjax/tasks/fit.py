"""Whether a run fits into memory: its step is compiled before anything is made, and what the compiler says is compared
with what is free.

On CPU a save is counted too: the copy that it makes of the state stays in the same memory while training goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax import batch
from bertjax.config.limits import limits
from bertjax.config.phases import Phase
from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import OutOfMemory, memory_ran_out, one_line
from bertjax.parallel import memory, sharding
from bertjax.progress import duration
from bertjax.train.session import Engine
from bertjax.train.step import JittedStep
from bertjax.train.task import Task


class Room:
    """The memory of a mesh as a run finds it, before it makes anything; and whether each of its phases fits into it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._free = mesh, memory.free(mesh)

    def ready(self, phase: Phase, task: Task, step: JittedStep, state: Any) -> None:
        """Say what the phase is, compile its step, and say what that takes; `state` is a train state or its shapes.

        Raises OutOfMemory if it takes more than is free.
        """
        mesh, config, free = self._mesh, phase.config, self._free
        data, parts = config.data, config.optim.accumulate
        parameters = sum(x.size for x in jax.tree.leaves(state.params))
        say(
            f"{phase.prefix}{mesh.size} x {mesh.devices.flat[0].device_kind}: {parameters:,} parameters; a step of"
            f" {data.batch_size:,} rows of {data.seq_len:,} tokens{f', in {parts} parts' if parts > 1 else ''};"
            " compiling ..."
        )
        start = time.monotonic()
        compiled = step.compile(state, shapes(config, data.batch_size))
        compiling = f"{phase.prefix}compiled in {duration(time.monotonic() - start)}"
        taken = training_bytes(compiled, task, state, mesh)
        if taken is None or free is None:
            say(compiling)
            return
        balance = f"training takes {gb(taken)} of memory, and {gb(free)} are free"
        if taken > free:
            raise OutOfMemory(f"{phase.prefix}{_work(config)}: {balance}{_fixes(config, task, mesh, free)}")
        say(f"{compiling}: {balance}")

    @contextmanager
    def told(self, phase: Phase, task: Task) -> Iterator[None]:
        """A block whose want of memory, whoever reports it, becomes OutOfMemory with what to change."""
        try:
            yield
        except Exception as error:
            if not memory_ran_out(error):
                raise
            problem = f"{phase.prefix}{_work(phase.config)}: memory ran out ({one_line(error)})"
            raise OutOfMemory(f"{problem}{_fixes(phase.config, task, self._mesh, self._free)}") from error


def shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Those of a batch of so many rows, of the greatest length."""
    return {name: jax.ShapeDtypeStruct(f.shape, f.dtype) for name, f in batch.fields(config, rows=rows).items()}


def training_bytes(compiled: Any, task: Task, state: Any, mesh: Mesh) -> int | None:
    """The most bytes of each device while a run trains by a compiled step, between its saves and during them, without
    what the task has there already (a teacher); None where the compiler does not tell.
    """
    step = memory.needed(compiled)
    copied = mesh.devices.flat[0].platform == "cpu"
    saving = copied * sum(memory.size(x) for x in jax.tree.leaves(state))
    return None if step is None else step + saving - memory.held(task.forward)


def most_rows(config: Config, task: Task, mesh: Mesh, available: int) -> int:
    """The largest `data.batch_size` with which training takes at most `available` bytes of each device, all else being
    as in `config`; 0 if there is none. Compiles three or four times, and makes nothing.
    """
    bytes_of = _bytes_by_rows(config, task, mesh)
    most = int(limits(config.data)["batch_size"].below or 0) - 1
    return memory.most_rows(bytes_of, available, unit=sharding.row_ways(mesh) * config.optim.accumulate, most=most)


def gb(count: float) -> str:
    """Bytes for a person, in GB."""
    return f"{count / 1e9:,.2f} GB"


def _bytes_by_rows(config: Config, task: Task, mesh: Mesh) -> Callable[[int], int]:
    """What training takes by `data.batch_size`, compiled; 0 where the compiler does not tell."""
    engine = Engine(config, task, mesh)

    def bytes_of(rows: int) -> int:
        compiled = engine.step.lower(engine.shapes, shapes(config, rows)).compile()
        return training_bytes(compiled, task, engine.shapes, mesh) or 0

    return bytes_of


def _work(config: Config) -> str:
    d, parts, remat = config.data, config.optim.accumulate, config.compute.remat
    rows = f"data.batch_size = {d.batch_size} rows of data.seq_len = {d.seq_len}"
    return f"{rows}, optim.accumulate = {parts}, compute.remat = {remat}"


def _fixes(config: Config, task: Task, mesh: Mesh, free: int | None) -> str:
    """What makes it fit: found by compiling, where that can be done."""
    fewer, split = "set data.batch_size lower, optim.accumulate higher", ""
    if free is not None:
        say("memory does not suffice; looking for what fits ...")
        available = int(memory.SHARE * free)
        try:
            rows = most_rows(config, task, mesh, available)
            split = _split(config, task, mesh, rows, available)
        except Exception as error:
            if not memory_ran_out(error):  # of the compiler itself
                raise
        else:
            least = sharding.row_ways(mesh) * config.optim.accumulate
            fewer = f"the largest batch that fits is data.batch_size = {rows}" if rows else f"not even {least} rows fit"
    remat = "" if config.compute.remat == "full" else ", or compute.remat = full"
    return f"; {fewer}{split}{remat}; else a smaller model or data.seq_len"


def _split(config: Config, task: Task, mesh: Mesh, rows: int, available: int) -> str:
    """The same batch in more parts, if so many rows at a time fit and the copy of the gradients that parts need."""
    whole, ways = config.data.batch_size, sharding.row_ways(mesh)
    each = rows // config.optim.accumulate
    counts = [n for n in range(2, whole // ways + 1) if whole % (n * ways) == 0 and whole // n <= each]
    for count in counts[:3]:
        parted = override(config, optim={"accumulate": count})
        if _bytes_by_rows(parted, task, mesh)(whole) <= available:
            return f", the same batch in parts takes optim.accumulate = {count}"
    return ""
