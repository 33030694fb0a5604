"""A run in its work directory: locked, resumed or begun, trained phase by phase, drawn."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax import signals, steps, storage
from bertjax.config.phases import Phase, Stretch, phase_at, phases
from bertjax.config.schema import Config, PhasesConfig, RunConfig, SweepConfig, TaskConfig
from bertjax.console import say
from bertjax.errors import DataError, NumericError, OutOfMemory, WorkerError
from bertjax.model.cost import peak_tflops
from bertjax.parallel import distributed, sharding
from bertjax.parallel.watchdog import Watchdog
from bertjax.progress import Progress, duration
from bertjax.train import checkpoint, curves, guard, loop, workdir
from bertjax.train.metrics import Nowhere, Writer
from bertjax.train.optim import make_optimizer
from bertjax.train.recorder import Rates, Recorder
from bertjax.train.schedule import point_of
from bertjax.train.state import Birth, TrainState
from bertjax.train.step import Cut, JittedStep, make_train_step
from bertjax.train.task import Room, Stage, Task

Begin = Callable[[Any], Any]
"""Fresh parameters -> those that a new run begins with, as host arrays."""
NEAR = 1_000
"""Steps before the end of a phase, at which the data of the next one is opened."""


def going_on(config: Config, directory: Path) -> bool:
    """Whether a run would go on from a checkpoint there. Raises ConfigError if what is there is another run."""

    def found() -> bool:
        before = checkpoint.saved(directory / "checkpoints")
        if before is None:
            return False
        if not before.identity.get("data set"):
            raise workdir.imported(directory)
        workdir.check_same_run(directory, before.config, config, step=before.step)
        return True

    return distributed.by_first(found)


class Engine:
    """What runs of one shape share, compiled once: the update, and the birth of the state that it takes. Their configs
    differ in nothing but a `Point`, and their tasks in batches and evaluations.
    """

    def __init__(self, config: Config, task: Task, mesh: Mesh) -> None:
        optimizer_at, select = partial(make_optimizer, config), config.task.select if task.selects else ""
        self._mesh, self._compiled = mesh, _compiled(config)
        self._birth = Birth(task.init, optimizer_at(), mesh, select=select, shard_optimizer=config.mesh.shard_optimizer)
        self.shapes = self._birth.shapes
        """Shapes and places of the state."""
        cut = Cut(config.optim.accumulate, self._birth.updates, config.mesh.reduce_dtype)
        self.step = make_train_step(task.forward, task.terms, optimizer_at, mesh, point_of(config), cut)
        """The update at the point of `config`, which need not be on a device: to compile ahead, for any devices."""

    def step_of(self, config: Config, task: Task, rate: Stretch | None = None) -> JittedStep:
        """The update of such a run, to train with, whose schedule runs over the steps `rate` (None = all). Raises
        ValueError for one that is of another shape.
        """
        if _compiled(config) != self._compiled:
            raise ValueError("runs that share an engine differ in more than their points")
        put = partial(sharding.put_whole, place=sharding.replicated(self._mesh))  # once, not in every step
        return self.step.given(task.forward, jax.tree.map(put, point_of(config, rate)))

    def fresh(self, seed: int) -> TrainState:
        """The state that a run begins with."""
        return self._birth(seed)


def _compiled(config: Config) -> Config:
    """What of a config is in the programs of a run: without the numbers of its point, and what is left to its task."""
    optim = replace(config.optim, lr=0.0, warmup_steps=0, decay_steps=0)
    task = TaskConfig(select=config.task.select)
    return replace(config, optim=optim, run=RunConfig(), phases=PhasesConfig(), task=task, sweep=SweepConfig())


def train(
    config: Config,
    task: Task,
    directory: Path,
    mesh: Mesh,
    *,
    later: tuple[Task, ...] = (),
    begin: Begin | None = None,
    room: Room | None = None,
    origin: workdir.Origin | None = None,
    engine: Engine | None = None,
) -> bool:
    """Train to `run.steps`, from the newest checkpoint in `directory` if there is one.

    Returns False if it was asked to stop (SIGTERM, SIGHUP, Ctrl-C) before the end: the state is then saved, and the
    same call goes on from it. `later` are the tasks of the phases after the first. `begin` None = a new run begins with
    fresh parameters. `room` may refuse the run, when nothing has been written yet; None = steps compile as they come.
    `origin` is saved with the config. `engine` None = one of its own; of runs that share one, the first compiles.

    After `run.skip_limit` skipped updates in a row the run goes back to its last good checkpoint, with other data.
    Raises NumericError if there is none, if it has gone back there before, or for an evaluation that is no number.
    """
    engine = engine or Engine(config, task, mesh)
    stages = _stages(config, (task, *later), mesh, engine, room)
    with _held(directory) as held:
        for line in distributed.by_first(lambda: steps.clean(directory / "checkpoints")):
            say(line)
        resumed = _resumed(config, task, directory, engine.shapes)  # the newest state that is whole
        if resumed and (told := _is_done(config, resumed.state)):
            say(f"{directory}: {told}")
            return True
        first = _from(stages, resumed.step if resumed else 0)[0]
        distributed.agreed(lambda: first.compile(lambda get: get()))
        with first.told():
            place = resumed or _Place(0, 0, guard.NOTHING, _begun(engine.fresh(config.run.seed), begin))
        distributed.by_first(lambda: workdir.save_config(directory, config, origin))
        stop = signals.noted()
        with stop, _telling_what_is_saved(directory, place.step, stop):  # also around the end of the last save
            done = _trained(config, stages, directory, mesh, place, stop, held)
            while isinstance(done, guard.Diverged):
                place = _gone_back(config, directory, place, done, engine.shapes)
                done = _trained(config, stages, directory, mesh, place, stop, held)
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
    """Where a run is: its step, the batches by which it is ahead of its steps since it has gone back, what it has
    skipped, and its state.
    """

    step: int
    ahead: int
    skipped: guard.Skipped
    state: Any

    def row(self, phase: Phase, step: int) -> int:
        """The row of a phase that comes next after this step of it."""
        return (step - phase.stretch.begin + self.ahead) * phase.config.data.batch_size


def _stages(config: Config, tasks: tuple[Task, ...], mesh: Mesh, engine: Engine, room: Room | None) -> list[Stage]:
    """A stage for each phase; those that are compiled alike share an engine."""
    engines, found = {_compiled(config): engine}, []
    for phase, task in zip(phases(config), tasks, strict=True):
        alike = _compiled(phase.config)
        if alike not in engines:
            engines[alike] = Engine(phase.config, task, mesh)
        found.append(Stage(phase, task, engines[alike].step_of(phase.config, task, phase.rate), engine.shapes, room))
    return found


def _from(stages: list[Stage], step: int) -> list[Stage]:
    """Those that are left after a step."""
    return [stage for stage in stages if step < stage.phase.stretch.end]


def _trained(
    config: Config,
    stages: list[Stage],
    directory: Path,
    mesh: Mesh,
    place: _Place,
    stop: signals.noted,
    held: Callable[[], None],
) -> bool | guard.Diverged:
    """Whether the run came to its end from there on, or that it has diverged. The state is used up."""
    run, left = config.run, _from(stages, place.step)
    state, skipped = place.state, place.skipped
    peak = peak_tflops(mesh.devices.flat[0].device_kind, run.peak_tflops) * mesh.size
    heeded = distributed.Together(stop) if distributed.several() else stop
    with (
        Watchdog(run.step_timeout) as watchdog,
        closing(_writer(directory, place.step, run)) as writer,
        closing(
            checkpoint.Checkpoints(directory / "checkpoints", keep=run.keep, keep_best=bool(run.keep_best))
        ) as saves,
        closing(Progress(run.steps, start=place.step, unit="step", label="train")) as progress,
        ExitStack() as stack,
    ):
        for stage in left:
            stack.callback(stage.close)

        def begin_save() -> None:
            held()
            writer.publish()  # first: what a run goes on from has its metrics

        def save(stage: Stage, recorder: Recorder, step: int, state: TrainState) -> None:
            distributed.by_first(begin_save)
            rows, identity = place.row(stage.phase, step), stage.task.identity
            judged, skipped = stage.task.judged(run.keep_best, recorder.measured(step)), recorder.skipped
            saves.save(step, state, identity=identity, rows=rows, config=config, skipped=skipped, judged=judged)

        try:
            for number, stage in enumerate(left):
                end, rows = stage.phase.stretch.end, stage.phase.config.data.batch_size
                with stage.told(), closing(_entered(stage, place, progress, writer, heeded, watchdog)) as opened:
                    batches = _before(left[number + 1 :], stage, place, opened)
                    rates = Rates(flops=stage.task.flops_per_token, peak=peak)
                    progress.pace(end, sum(later.cost for later in left[number + 1 :]) / stage.step_cost)
                    recorder = Recorder(run, writer, progress, rates, skipped)
                    saving, put = partial(save, stage, recorder), partial(sharding.put_rows, mesh=mesh, rows=rows)
                    step = stage.step
                    trained = loop.run(
                        config, stage.task, state, step, batches, put, recorder, saving, heeded, watchdog, end=end
                    )
                if trained is None:
                    return False
                state, skipped = trained, recorder.skipped
            return True
        except guard.Diverged as error:
            return error.with_traceback(None)  # whose frames hold a state
        except signals.Stopped:  # between two phases
            return False


def _entered(
    stage: Stage, place: _Place, progress: Progress, writer: Writer | Nowhere, stop: loop.Stop, watchdog: Watchdog
) -> Any:
    """The batches of a stage in which the run is from here on; tells of a phase that begins."""
    start, phase = time.monotonic(), stage.phase
    begin, data = max(place.step, phase.stretch.begin), phase.config.data
    with watchdog.resting():
        distributed.agreed(lambda: stage.compile(stop.wait))
        batches = stage.batches(place.row(phase, begin), stop.wait)
    if phase.number > 1 and begin == phase.stretch.begin:
        writer.write(begin + 1, {"phase": phase.number, "batch_size": data.batch_size, "seq_len": data.seq_len})
        progress.say(
            f"step {begin + 1:,}: {phase.name}, {phase.stretch.steps:,} steps of {data.batch_size:,} rows of"
            f" {data.seq_len:,} tokens; ready after {duration(time.monotonic() - start)}"
        )
    return batches


def _before(later: list[Stage], stage: Stage, place: _Place, batches: Iterator[loop.Batch]) -> Iterator[loop.Batch]:
    """The batches of a stage. While they train, the next one is made ready: its step as soon as this one runs, and its
    data towards the end, since loader processes and what is planned take memory.
    """
    if not later:
        return batches
    following = later[0]
    row = place.row(following.phase, following.phase.stretch.begin)
    count = stage.phase.stretch.end - max(place.step, stage.phase.stretch.begin)

    def noting() -> Iterator[loop.Batch]:
        for done in range(count):
            if done == min(2, count - 1):  # the first step has told how long one takes
                following.compile_ahead()
            if done == max(0, count - NEAR):
                following.open_ahead(row)
            yield next(batches)

    return noting()


def _writer(directory: Path, start: int, run: RunConfig) -> Writer | Nowhere:
    if distributed.first():
        return Writer(directory, start_step=start, tensorboard=run.tensorboard)
    return Nowhere()


def _gone_back(config: Config, directory: Path, place: _Place, why: guard.Diverged, target: TrainState) -> _Place:
    """Where a run that went on from `place` and diverged goes on: at its last good checkpoint, with the rows that come
    next. Raises NumericError if there is none, or if it has gone back there before.

    By how many batches a run is ahead of its steps tells how often it has gone back: a checkpoint with fewer is of
    before. As the steps between are counted in batches, no row comes again in whatever phase.
    """
    if not config.run.skip_limit:
        raise NumericError(f"step {why.step}: {why.reason}; earlier checkpoints are intact: {guard.FIX}")
    checkpoints = directory / "checkpoints"
    happened = f"step {why.step}: {why.reason}; {why.skipped.in_a_row} updates in a row were skipped"
    for line in distributed.by_first(lambda: steps.clean(checkpoints)):
        say(line)
    good = checkpoint.last_good(checkpoints)
    if good is None:
        raise NumericError(f"{happened}, and there is no checkpoint to go back to: {guard.FIX}")
    if place.ahead != _ahead(config, good):
        tried = f"also after going back to step {good.step} with other data"
        raise NumericError(f"{happened}, {tried}; earlier checkpoints are intact: {guard.FIX}")
    back = _Place(good.step, place.ahead + why.step - good.step, guard.Skipped(0, why.skipped.in_all), None)
    row = back.row(phase_at(config, good.step + 1), good.step)
    say(f"{directory}: {happened}: goes back to step {good.step}, and on with row {row:,} of the data")
    distributed.by_first(lambda: steps.drop_after(checkpoints, good.step))
    return replace(back, state=checkpoint.restore(checkpoints, target, step=good.step).state)


def _ahead(config: Config, found: checkpoint.Restored) -> int:
    """The batches by which a run was ahead of its steps when it was saved."""
    phase = phase_at(config, found.step)
    return found.rows // phase.config.data.batch_size - (found.step - phase.stretch.begin)


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
    except (DataError, WorkerError, OutOfMemory) as error:
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
    # `going_on` may have asked a step that is damaged.
    workdir.check_same_run(directory, restored.config, config, step=restored.step)
    say(f"{directory}: goes on from step {restored.step}")
    if told := _other_end(restored.config, config):
        say(told)
    return _Place(restored.step, _ahead(config, restored), restored.skipped, restored.state)


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
    found = [
        f"{section}.{name} was {before}"
        for section, name, before, _ in workdir.changes(saved, config)
        if (section, name) in ends or section == "phases"
    ]
    if not found:
        return ""
    ends_now = []
    for phase in {phase.rate: phase for phase in phases(config)}.values():
        decay = phase.config.optim.decay_steps
        cooldown = f", and decays from step {phase.rate.end - decay} on" if decay else ""
        ends_now.append(f"the schedule now ends at {phase.rate.end}{cooldown}")
    return f"{', '.join(found)}: {'; '.join(ends_now)}"
