"""A sweep: runs at several rates, lengths and seeds, one after another in one process; the best of them is the model.

WORKDIR/points/NAME/   the work directory of each run; result.json in it, written when the run is done
WORKDIR/checkpoints/   that of the best run
WORKDIR/sweep.json     all results, and what they say of each rate and length
WORKDIR/sweep.png      the same as a picture

The runs share all that is compiled. A sweep that is stopped or killed goes on with what is not done, in the middle of a
run where it was in one. Checkpoints of runs that cannot become the best are removed as soon as that is known.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from bertjax import steps, storage
from bertjax.config.recipe import override, to_dict
from bertjax.config.schema import Config, SweepConfig
from bertjax.console import say
from bertjax.errors import CheckpointError, ConfigError, DataError, NumericError, StorageError
from bertjax.finetuning import ranking
from bertjax.finetuning.ranking import Result, Results
from bertjax.progress import duration
from bertjax.tasks import fit
from bertjax.train import checkpoint, metrics, session, workdir
from bertjax.train.task import Task

POINTS = "points"
RESULT = "result.json"
FORMAT = 1
SUMMARY = "sweep.json"
PICTURE = "sweep.png"
_SIZE_LIMIT = 10_000_000  # bytes of a result


def points(config: Config, resolved: Callable[[Config], Config]) -> list[tuple[str, Config]]:
    """All combinations of `config.sweep`, the seeds outermost, as names and configs of runs. `resolved` sets what
    follows from `task.epochs`: steps, warm-up, evaluations.
    """
    s, o, t, r = config.sweep, config.optim, config.task, config.run
    found = {}
    for seed in s.seeds or (r.seed,):
        for epochs in s.epochs or (t.epochs,):
            for lr in s.lr or (o.lr,):
                one = override(config, optim={"lr": lr}, task={"epochs": epochs}, run={"seed": seed})
                one = dataclasses.replace(resolved(one), sweep=SweepConfig())
                found[f"lr{lr!r}_epochs{epochs!r}_seed{seed}"] = one
    return list(found.items())


def run(
    points: Sequence[tuple[str, Config]],
    task_of: Callable[[Config], Task],
    directory: Path,
    mesh: Mesh,
    *,
    begin: session.Begin | None = None,
    origin: workdir.Origin | None = None,
) -> Results | None:
    """Run all points that are not done, and make the model of the best that of `directory`.

    None if it was asked to stop before the end: what was reached is saved, and the same call goes on from it. Configs
    differ in optim.lr, in the numbers of run, and in what follows from them; the tasks of `task_of` share their forward
    function, terms, and what evaluates, so that nothing is compiled twice. A point that diverges is a result, and no
    error unless all do (NumericError). Raises ConfigError or DataError where what is done was another sweep, or of
    other data, and what `session.train` raises.
    """
    with storage.locked(storage.make(directory)):
        _check_place(directory)
        runs = _Runs(dict(points), task_of, directory, mesh, begin, origin)
        found: list[Result] = []
        for number, (name, _) in enumerate(points, 1):
            result = runs.done(name) or runs.train(name, f"run {number} of {len(points)}")
            if result is None:
                return None
            found.append(result)
            winners = [ranking.winner(one) for one in ranking.combined(found).values()]
            _drop_weights(directory, [one for one in found if one not in winners])
        results = ranking.judged(runs.metric, found)
        winner = results.winner
        if not _is_model(directory, runs.points[winner.name], winner):
            if not steps.numbers(_checkpoints(directory, winner)) and not runs.train(winner.name, "once more"):
                return None
            _make_model(directory, winner)
        _write_summary(directory, results)
        _drop_weights(directory, [one for one in found if one is not winner])
    return results


class _Runs:
    """The runs of a sweep: what is done, and what has to be trained."""

    def __init__(
        self,
        points: dict[str, Config],
        task_of: Callable[[Config], Task],
        directory: Path,
        mesh: Mesh,
        begin: session.Begin | None,
        origin: workdir.Origin | None,
    ) -> None:
        self.points, self.metric = points, ""
        self._task_of, self._directory, self._mesh = task_of, directory, mesh
        self._options: dict[str, Any] = {"begin": begin, "origin": origin}
        self._engine: session.Engine | None = None

    def done(self, name: str) -> Result | None:
        """The result of a run that is done, to `run.steps` as it is now; None if there is none."""
        config, place = self.points[name], self._directory / POINTS / name
        found = _read(place / RESULT)
        if found is None:
            return None
        task = self._task(config)
        session.check_identity(place, found["identity"], task.identity)
        workdir.check_same_run(place, found["config"], config)
        return Result(**found["result"]) if found["config"]["run"]["steps"] == config.run.steps else None

    def train(self, name: str, told: str) -> Result | None:
        """The result of a run, from its newest checkpoint on or from its beginning; None if it was asked to stop."""
        config, place = self.points[name], self._directory / POINTS / name
        say(f"{self._directory}: {told}, {name}")
        task = self._task(config)
        self._engine = self._engine or session.Engine(config, task, self._mesh)
        before, start = checkpoint.saved(place / "checkpoints"), time.monotonic()
        try:
            options = self._options | {"room": fit.Room(self._mesh), "engine": self._engine}
            if not session.train(config, task, place, self._mesh, **options):
                return None
            result = _result(name, config, task, place, self.metric)
        except NumericError as error:
            say(f"{self._directory}: {name} has diverged: {error}")
            result = _of(name, config, steps=config.run.steps, step=0, value=None, metrics={}, failed=str(error))
        result = dataclasses.replace(result, began=before.step if before else 0, seconds=time.monotonic() - start)
        content = {"format": FORMAT, "result": dataclasses.asdict(result), "identity": task.identity}
        storage.write(place / RESULT, storage.seal(content | {"config": to_dict(config)}))
        if result.value is not None:
            took, value = duration(result.seconds), ranking.shown(result.value)
            say(f"{self._directory}: {name} is done after {took}: {self.metric} {value}")
        return result

    def _task(self, config: Config) -> Task:
        task = self._task_of(config)
        assert task.selects is not None, "a sweep compares what its task selects by"
        self.metric = "_".join(task.selects)
        return task


def _check_place(directory: Path) -> None:
    if steps.numbers(directory / "checkpoints") and not (directory / POINTS).exists():
        raise ConfigError(f"--workdir={directory}: holds a run, not a sweep; name another --workdir for the sweep")


def _read(path: Path) -> dict[str, Any] | None:
    """What was written of a run; None if nothing was, or it is damaged: the run then says it once more."""
    try:
        content, whole = storage.unseal(storage.read(path, _SIZE_LIMIT).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        whole, content = False, {}
    whole = whole and content.get("format") == FORMAT
    if not whole:
        say(f"{path}: damaged, or of another version; made anew")
    return content if whole else None


def _of(name: str, config: Config, **values: Any) -> Result:
    lr, epochs, seed = config.optim.lr, config.task.epochs, config.run.seed
    return Result(name, lr=lr, epochs=epochs, seed=seed, began=0, seconds=0.0, **values)


def _result(name: str, config: Config, task: Task, place: Path, metric: str) -> Result:
    """Of a run that has ended: what its log says of the weights that are its model."""
    saved = checkpoint.saved(place / "checkpoints")
    if saved is None:
        raise CheckpointError(f"{place}: its checkpoints are damaged; remove it, and the run is made anew")
    step = saved.best[0] if saved.best and config.task.select == "best" else saved.step
    lines, names = metrics.read(place / metrics.METRICS), tuple(f"{one.name}_" for one in task.evaluations)
    measured = {
        key: value
        for at in (saved.step, step)  # what is measured only at the end, and then what is known of that step
        for line in lines
        for key, value in line.items()
        if line["step"] == at and key.startswith(names) and "_best_" not in key and value is not None
    }
    if metric not in measured:
        fix = "remove that directory, and the run is made anew"
        raise DataError(f"{place / metrics.METRICS}: has no {metric} of step {step}; {fix}")
    return _of(name, config, steps=saved.step, step=step, value=measured[metric], metrics=measured)


def _checkpoints(directory: Path, one: Result) -> Path:
    return directory / POINTS / one.name / "checkpoints"


def _is_model(directory: Path, config: Config, winner: Result) -> bool:
    """Whether the checkpoint in `directory` is that of the winner."""
    saved = checkpoint.saved(directory / "checkpoints")
    return saved is not None and saved.step == winner.steps and not workdir.changes(saved.config, config)


def _make_model(directory: Path, winner: Result) -> None:
    """Put the newest checkpoint of the winner in place of what `directory` has, whole or not at all."""
    source = _checkpoints(directory, winner)
    step = str(steps.numbers(source)[-1])
    new, target, old = (directory / name for name in (".checkpoints.new", "checkpoints", ".checkpoints.old"))
    for rest in (new, old):  # of a process that was killed
        shutil.rmtree(rest, ignore_errors=True)
    try:
        # Links, which take no room: files of a checkpoint are never written to again.
        shutil.copytree(source / step, new / step, copy_function=_link)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror}); check disk and permissions") from error
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without them
        shutil.copyfile(source, target)


def _drop_weights(directory: Path, found: Sequence[Result]) -> None:
    for one in found:
        steps.drop(_checkpoints(directory, one))


def _write_summary(directory: Path, results: Results) -> None:
    storage.write(directory / SUMMARY, json.dumps(dataclasses.asdict(results), indent=2, allow_nan=False) + "\n")
    storage.write(directory / PICTURE, ranking.picture(results))
