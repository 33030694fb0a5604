"""A run in its work directory: locked, resumed or begun, trained, drawn."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax import signals, steps, storage
from bertjax.config.schema import Config, RunConfig, SweepConfig, TaskConfig
from bertjax.console import say
from bertjax.errors import DataError, NumericError, WorkerError
from bertjax.model.cost import peak_tflops
from bertjax.parallel import distributed, sharding
from bertjax.parallel.watchdog import Watchdog
from bertjax.progress import Progress
from bertjax.train import checkpoint, curves, guard, loop, workdir
from bertjax.train.metrics import Nowhere, Writer
from bertjax.train.optim import make_optimizer
from bertjax.train.recorder import Rates, Recorder
from bertjax.train.schedule import point_of
from bertjax.train.state import Birth, TrainState
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

    def found() -> bool:
        before = checkpoint.saved(directory / "checkpoints")
        if before is None:
            return False
        if not before.identity.get("data set"):
            raise workdir.imported(directory)
        workdir.check_same_run(directory, before.config, config)
        return True

    return distributed.by_first(found)


class Engine:
    """What runs of one shape share, compiled once: the update, and the birth of the state that it takes. Their configs
    differ in nothing but a `Point`, and their tasks in batches and evaluations.
    """

    def __init__(self, config: Config, task: Task, mesh: Mesh) -> None:
        optimizer_at, select = partial(make_optimizer, config), config.task.select if task.selects else ""
        self._mesh, self._compiled = mesh, _compiled(config)
        self._birth = Birth(task.init, optimizer_at(), mesh, select=select)
        self.shapes = self._birth.shapes
        """Shapes and places of the state."""
        self.step = make_train_step(
            task.forward, task.terms, optimizer_at, mesh, point_of(config), accumulate=config.optim.accumulate
        )
        """The update at the point of `config`, which need not be on a device: to compile ahead, for any devices."""

    def step_of(self, config: Config, task: Task) -> JittedStep:
        """The update of such a run, to train with. Raises ValueError for one that is of another shape."""
        if _compiled(config) != self._compiled:
            raise ValueError("runs that share an engine differ in more than their points")
        everywhere = sharding.replicated(self._mesh)
        point = jax.tree.map(lambda x: sharding.put_whole(x, everywhere), point_of(config))  # once, not in every step
        return self.step.given(task.forward, point)

    def fresh(self, seed: int) -> TrainState:
        """The state that a run begins with."""
        return self._birth(seed)


def _compiled(config: Config) -> Config:
    """What of a config is in the programs of a run: without the numbers of its point, and what is left to its task."""
    optim = replace(config.optim, lr=0.0, warmup_steps=0, decay_steps=0)
    task = TaskConfig(select=config.task.select)
    return replace(config, optim=optim, run=RunConfig(), task=task, sweep=SweepConfig())


def train(
    config: Config,
    task: Task,
    directory: Path,
    mesh: Mesh,
    *,
    begin: Begin | None = None,
    ready: Ready | None = None,
    origin: workdir.Origin | None = None,
    engine: Engine | None = None,
) -> bool:
    """Train to `run.steps`, from the newest checkpoint in `directory` if there is one.

    Returns False if it was asked to stop (SIGTERM, SIGHUP, Ctrl-C) before the end: the state is then saved, and the
    same call goes on from it. `begin` None = a new run begins with fresh parameters. `ready` may raise to refuse the
    run, when nothing has been written yet. `origin` is saved with the config. `engine` None = one of its own; of runs
    that share one, the first compiles.

    After `run.skip_limit` skipped updates in a row the run goes back to its last good checkpoint, with other data.
    Raises NumericError if there is none, if it has gone back there before, or for an evaluation that is no number.
    """
    run, engine = config.run, engine or Engine(config, task, mesh)
    with _held(directory) as held:
        for line in distributed.by_first(lambda: steps.clean(directory / "checkpoints")):
            say(line)
        resumed = _resumed(config, task, directory, engine.shapes)  # the newest state that is whole
        if resumed and (told := _is_done(config, resumed.state)):
            say(f"{directory}: {told}")
            return True
        train_step = engine.step_of(config, task)
        if ready:
            distributed.agreed(partial(ready, train_step, resumed.state if resumed else engine.shapes))
        place = resumed or _Place(0, 0, guard.NOTHING, _begun(engine.fresh(run.seed), begin))
        distributed.by_first(lambda: workdir.save_config(directory, config, origin))
        stop = signals.noted()
        with stop, _telling_what_is_saved(directory, place.step, stop):  # also around the end of the last save
            done = _trained(config, task, directory, mesh, place, train_step, stop, held)
            while isinstance(done, guard.Diverged):
                place = _gone_back(config, directory, place, done, engine.shapes)
                done = _trained(config, task, directory, mesh, place, train_step, stop, held)
            stop.asked = stop.asked or ("" if done else "another process was")
        if distributed.first():
            curves.plot(directory, chosen="_".join(task.selects or ()))
        return done


@contextmanager
def _held(directory: Path) -> Iterator[Callable[[], None]]:
    """The directory, made if need be and locked, by the first process for all; gives what raises StorageError there
    once it is held no longer.
    """
    with ExitStack() as stack:
        checks: list[Callable[[], None]] = []

        def hold() -> None:
            checks.append(stack.enter_context(storage.locked(storage.make(directory))))

        distributed.by_first(hold)
        yield lambda: next(iter(checks))()


@dataclass(frozen=True)
class _Place:
    """Where a run is: its step, the row of the data that comes next, what it has skipped, and its state."""

    step: int
    row: int
    skipped: guard.Skipped
    state: TrainState

    def row_after(self, step: int, config: Config) -> int:
        """The row that comes next after a later step."""
        return self.row + (step - self.step) * config.data.batch_size


def _trained(
    config: Config,
    task: Task,
    directory: Path,
    mesh: Mesh,
    place: _Place,
    train_step: JittedStep,
    stop: signals.noted,
    held: Callable[[], None],
) -> bool | guard.Diverged:
    """What `loop.run` gives from there on, or that the run has diverged. The state is used up."""
    run = config.run
    with (
        Watchdog(run.step_timeout) as watchdog,
        closing(task.batches(place.row)) as batches,
        closing(_writer(directory, place.step, run)) as writer,
        closing(checkpoint.Checkpoints(directory / "checkpoints", keep=run.keep)) as saves,
        closing(Progress(run.steps, start=place.step, unit="step", label="train")) as progress,
    ):

        def begin_save() -> None:
            held()
            writer.publish()  # first: what a run goes on from has its metrics

        def save(step: int, state: TrainState) -> None:
            distributed.by_first(begin_save)
            rows, skipped = place.row_after(step, config), recorder.skipped
            saves.save(step, state, identity=task.identity, rows=rows, config=config, skipped=skipped)

        peak = peak_tflops(mesh.devices.flat[0].device_kind, run.peak_tflops) * mesh.size
        rates = Rates(flops=task.flops_per_token, peak=peak)
        recorder = Recorder(run, writer, progress, rates, place.skipped)
        put = partial(sharding.put_rows, mesh=mesh, rows=config.data.batch_size)
        heeded = distributed.Together(stop) if distributed.several() else stop
        try:
            return loop.run(config, task, place.state, train_step, batches, put, recorder, save, heeded, watchdog)
        except guard.Diverged as error:
            return error.with_traceback(None)  # whose frames hold a state


def _writer(directory: Path, start: int, run: RunConfig) -> Writer | Nowhere:
    if distributed.first():
        return Writer(directory, start_step=start, tensorboard=run.tensorboard)
    return Nowhere()


def _gone_back(config: Config, directory: Path, place: _Place, why: guard.Diverged, target: TrainState) -> _Place:
    """Where a run that went on from `place` and diverged goes on: at its last good checkpoint, with the rows that come
    next. Raises NumericError if there is none, or if it has gone back there before.

    By how many rows a run is ahead of its steps tells how often it has gone back: a checkpoint with fewer is of before.
    """
    if not config.run.skip_limit:
        raise NumericError(f"step {why.step}: {why.reason}; earlier checkpoints are intact: {guard.FIX}")
    checkpoints, row = directory / "checkpoints", place.row_after(why.step, config)
    happened = f"step {why.step}: {why.reason}; {why.skipped.in_a_row} updates in a row were skipped"
    for line in distributed.by_first(lambda: steps.clean(checkpoints)):
        say(line)
    good = checkpoint.last_good(checkpoints)
    if good is None:
        raise NumericError(f"{happened}, and there is no checkpoint to go back to: {guard.FIX}")
    if row != good.rows + (why.step - good.step) * config.data.batch_size:
        tried = f"also after going back to step {good.step} with other data"
        raise NumericError(f"{happened}, {tried}; earlier checkpoints are intact: {guard.FIX}")
    say(f"{directory}: {happened}: goes back to step {good.step}, and on with row {row:,} of the data")
    distributed.by_first(lambda: steps.drop_after(checkpoints, good.step))
    state = checkpoint.restore(checkpoints, target, step=good.step).state
    return _Place(good.step, row, guard.Skipped(0, why.skipped.in_all), state)


def _is_done(config: Config, state: TrainState) -> str:
    """That the run of this saved state has ended, for a person; "" if it goes on."""
    step, steps = int(state.step), config.run.steps
    early = loop.ended_early(config.task.patience, state) if step < steps else ""
    done = f"is done, at step {step} of {steps}"
    return f"{done}: {early}" if early else done if step >= steps else ""


@contextmanager
def _telling_what_is_saved(directory: Path, start: int, stop: signals.noted) -> Iterator[None]:
    """Around a run from `start`: where it ends before its time, that is told with the step that is on disk."""

    def saved() -> str:
        step = max(steps.numbers(directory / "checkpoints"), default=start)
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
    fresh = distributed.on_host(state.params)
    params = distributed.agreed(lambda: begin(fresh))
    return replace(state, params=distributed.on_devices(params, like=state.params))


def _resumed(config: Config, task: Task, directory: Path, target: TrainState) -> _Place | None:
    """Where the run in `directory` is; None if nothing is saved."""
    if not distributed.by_first(lambda: bool(steps.numbers(directory / "checkpoints"))):
        return None
    restored = checkpoint.restore(directory / "checkpoints", target)
    check_identity(directory, restored.identity, task.identity)
    workdir.check_same_run(directory, restored.config, config)  # `going_on` may have asked a step that is damaged
    say(f"{directory}: goes on from step {restored.step}")
    if told := _other_end(restored.config, config):
        say(told)
    return _Place(restored.step, restored.rows, restored.skipped, restored.state)


def check_identity(directory: Path, saved: checkpoint.Identity, identity: checkpoint.Identity) -> None:
    """Raise DataError if what the run in `directory` was trained with is not what it is given now."""
    if saved != identity:
        other = [name for name, digest in identity.items() if saved.get(name, "") != digest]
        raise DataError(
            f"{directory}: this is not the {' and the '.join(other)} that the run was trained with; restore it, or"
            " start in another --workdir"
        )


def _other_end(saved: dict[str, Any], config: Config) -> str:
    """What has changed of the end of the learning-rate schedule; "" if nothing."""
    ends = [("run", "steps"), ("optim", "decay_steps"), ("optim", "final_lr")]
    found = [f"{s}.{name} was {before}" for s, name, before, _ in workdir.changes(saved, config) if (s, name) in ends]
    steps, decay = config.run.steps, config.optim.decay_steps
    cooldown = f", and decays from step {steps - decay} on" if decay else ""
    return f"{', '.join(found)}: the schedule now ends at {steps}{cooldown}" if found else ""
