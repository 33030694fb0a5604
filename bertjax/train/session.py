"""A run in its work directory: locked, resumed or begun, trained, drawn."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax import storage
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import DataError, WorkerError
from bertjax.model.cost import peak_tflops
from bertjax.parallel import sharding
from bertjax.progress import Progress
from bertjax.train import checkpoint, curves, loop, signals, workdir
from bertjax.train.metrics import Writer
from bertjax.train.optim import make_optimizer
from bertjax.train.recorder import Rates, Recorder
from bertjax.train.state import TrainState, abstract_state, init_state
from bertjax.train.step import JittedStep, make_train_step
from bertjax.train.task import Task

Begin = Callable[[Any], Any]
"""Fresh parameters -> those that a new run begins with, as host arrays."""
Ready = Callable[[JittedStep, TrainState], object]
"""Called with the step of a run and the state that it will take: a restored one, or the shapes of a fresh one, which is
made after that.
"""


def going_on(config: Config, directory: Path) -> bool:
    """Whether a run would go on from a checkpoint there. Raises ConfigError if what is there is another run."""
    before = checkpoint.saved(directory / "checkpoints")
    if before is None:
        return False
    if not before.identity.get("data set"):
        raise workdir.imported(directory)
    workdir.check_same_run(directory, before.config, config)
    return True


def step_of(config: Config, task: Task, mesh: Mesh) -> JittedStep:
    """The update of a run."""
    optimizer = make_optimizer(config.optim, steps=config.run.steps)
    seed, accumulate = config.run.seed, config.optim.accumulate
    return make_train_step(task.forward, task.terms, optimizer, mesh, seed=seed, accumulate=accumulate)


def train(
    config: Config,
    task: Task,
    directory: Path,
    mesh: Mesh,
    *,
    begin: Begin | None = None,
    ready: Ready | None = None,
    origin: workdir.Origin | None = None,
) -> bool:
    """Train to `run.steps`, from the newest checkpoint in `directory` if there is one.

    Returns False if it was asked to stop (SIGTERM, SIGHUP, Ctrl-C) before the end: the state is then saved, and the
    same call goes on from it. `begin` None = a new run begins with fresh parameters. `ready` may raise to refuse the
    run, when nothing has been written yet. `origin` is saved with the config.
    """
    run, optimizer = config.run, make_optimizer(config.optim, steps=config.run.steps)
    with storage.locked(storage.make(directory)):
        for line in checkpoint.clean(directory / "checkpoints"):
            say(line)
        target = abstract_state(task.init, optimizer, mesh)
        resumed = _resumed(config, task, directory, target)  # the newest state that is whole
        start, stop = int(resumed[0].step) if resumed else 0, signals.noted()
        if start >= run.steps:
            say(f"{directory}: is done, at step {start} of {run.steps}")
            return True
        train_step = step_of(config, task, mesh)
        if ready:
            ready(train_step, resumed[0] if resumed else target)
        state, row = resumed or (_begun(init_state(task.init, optimizer, mesh, seed=run.seed), begin), 0)
        workdir.save_config(directory, config, origin)
        with (
            stop,  # first, so that it also covers the end of the last save
            _telling_what_is_saved(directory, start, stop),
            closing(task.batches(row)) as batches,
            closing(Writer(directory, start_step=start, tensorboard=run.tensorboard)) as writer,
            closing(checkpoint.Checkpoints(directory / "checkpoints", keep=run.keep)) as saves,
            closing(Progress(run.steps, start=start, unit="step", label="train")) as progress,
        ):

            def save(step: int, state: TrainState) -> None:
                rows = row + (step - start) * config.data.batch_size
                saves.save(step, state, identity=task.identity, rows=rows, config=config)

            peak = peak_tflops(mesh.devices.flat[0].device_kind, run.peak_tflops) * mesh.size
            recorder = Recorder(run, writer, progress, Rates(flops=task.flops_per_token, peak=peak))
            put = partial(sharding.put_batch, mesh=mesh)
            done = loop.run(run, state, train_step, batches, put, task.evaluations, recorder, save, stop)
        curves.plot(directory)
        return done


@contextmanager
def _telling_what_is_saved(directory: Path, start: int, stop: signals.noted) -> Iterator[None]:
    """Around a run from `start`: where it ends before its time, that is told with the step that is on disk."""

    def saved() -> str:
        step = max(checkpoint.steps(directory / "checkpoints"), default=start)
        return f"step {step} is saved" if step > start else "nothing had to be saved"

    try:
        yield
    except (DataError, WorkerError) as error:
        raise type(error)(f"{error}; {saved()}") from error
    if stop.asked:
        say(f"{directory}: asked to stop ({stop.asked}): {saved()}")


def _begun(state: TrainState, begin: Begin | None) -> TrainState:
    if begin is None:
        return state
    params = begin(jax.device_get(state.params))
    return replace(state, params=jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), params, state.params))


def _resumed(config: Config, task: Task, directory: Path, target: TrainState) -> tuple[TrainState, int] | None:
    """The saved state and the number of rows it has seen; None if nothing is saved."""
    if not checkpoint.steps(directory / "checkpoints"):
        return None
    restored = checkpoint.restore(directory / "checkpoints", target)
    if restored.identity != task.identity:
        other = [name for name, digest in task.identity.items() if restored.identity.get(name, "") != digest]
        raise DataError(
            f"{directory}: this is not the {' and the '.join(other)} that the run was trained with; restore it, or"
            " start in another --workdir"
        )
    workdir.check_same_run(directory, restored.config, config)  # `going_on` may have asked a step that is damaged
    say(f"{directory}: goes on from step {restored.step}")
    if told := _other_end(restored.config, config):
        say(told)
    return restored.state, restored.rows


def _other_end(saved: dict[str, Any], config: Config) -> str:
    """What has changed of the end of the learning-rate schedule; "" if nothing."""
    ends = [("run", "steps"), ("optim", "decay_steps"), ("optim", "final_lr")]
    found = [f"{s}.{name} was {before}" for s, name, before, _ in workdir.changes(saved, config) if (s, name) in ends]
    steps, decay = config.run.steps, config.optim.decay_steps
    cooldown = f", and decays from step {steps - decay} on" if decay else ""
    return f"{', '.join(found)}: the schedule now ends at {steps}{cooldown}" if found else ""
