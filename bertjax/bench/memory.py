"""What training takes of the memory of this machine, and the largest batch that fits, before there is any data: by
compiling the step, which makes nothing.
"""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.errors import ConfigError
from bertjax.finetuning import task as finetuning
from bertjax.model import attention
from bertjax.parallel import memory, sharding
from bertjax.tasks import fit
from bertjax.tasks.pretraining import pretraining
from bertjax.train.session import Engine
from bertjax.train.task import Task


@dataclass(frozen=True)
class Plan:
    """A run without its data: the devices, the task, the update and the state that it takes."""

    config: Config
    mesh: Mesh
    task: Task
    engine: Engine


@dataclass(frozen=True)
class Memory:
    """Bytes of one device; None where the device or the compiler does not tell."""

    step: int | None
    """The peak of a step: parameters, optimizer, gradients, activations, the batch."""
    training: int | None
    """The peak of a run: on CPU, the copy of the state that a save makes is in the same memory."""
    free: int | None


def plan(config: Config, devices: list[jax.Device] | None = None) -> Plan:
    """The run of a config on these devices, None = all. Without its data it has the labels that it names, or two.

    Raises ConfigError for a config that cannot train there, and what the loading of a teacher or of `run.init_from` of
    a task with labels raises.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check(config.model, config.data.batch_size // config.optim.accumulate, mesh)
    attention.check(config.model, config.compute, config.data.row_lengths, mesh.devices.flat[0].platform)
    if config.task.kind:
        config = finetuning.without_data(config)
    task = (finetuning.fine_tuning if config.task.kind else pretraining)(config, batches=lambda row: iter(()))
    if config.teacher.path:
        from bertjax.tasks import distill, teacher  # here: only a trained model has a tokenizer

        task = distill.distilled(task, config, teacher.load(config, None, mesh))
    return Plan(config, mesh, task, Engine(config, task, mesh))


def measured(plan: Plan) -> Memory:
    """What the plan takes, compiled, and what is free. The compiled step is kept for its calls."""
    state = plan.engine.shapes
    compiled = plan.engine.step.compile(state, fit.shapes(plan.config, plan.config.data.batch_size))
    step, training = memory.needed(compiled), fit.training_bytes(compiled, plan.task, state, plan.mesh)
    return Memory(step, training, memory.free(plan.mesh))


def largest_batch(config: Config, available: int | None = None) -> int:
    """The largest `data.batch_size` with which a run of `config` takes at most `available` bytes of each device; None =
    what is free now, less a margin. `optim.accumulate` is as in `config`, and the batch a multiple of it and of the
    devices.

    Compiles the step three or four times (seconds each on CPU, half a minute on a GPU) and makes nothing. 0 = not even
    the smallest batch fits. Raises ConfigError where `available` is None and the device does not tell what is free.
    """
    mesh = sharding.make_mesh(config.mesh)
    made = plan(override(config, data={"batch_size": sharding.row_ways(mesh) * config.optim.accumulate}))
    if available is None:
        free = memory.free(mesh)
        if free is None:
            kind = mesh.devices.flat[0].device_kind
            raise ConfigError(f"{kind}: does not tell what memory is free; give data.batch_size")
        available = int(memory.SHARE * free)
    return fit.most_rows(made.config, made.task, made.mesh, available)
