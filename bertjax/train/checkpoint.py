"""Checkpoints: state, identity, place in the data and config saved together by Orbax, and verified before their use.

    WORKDIR/checkpoints/STEP/   state, identity, place, config: as Orbax writes them, each process its part
                                and what `bertjax.steps` needs to tell whether all of it is there

The step of the state must be that of the directory, and its numbers finite. In a bucket Orbax writes directly, as on a
disk that all processes share: it has no copy elsewhere.
"""

import contextlib
import functools
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax import steps, storage
from bertjax.config.recipe import to_dict
from bertjax.config.schema import Config
from bertjax.errors import CheckpointError, StorageError, one_line
from bertjax.parallel import distributed
from bertjax.train import guard
from bertjax.train.state import TrainState

Identity = dict[str, str]
"""Digests of what a run learns from ("data", "tokenizer", "teacher"): another run has others."""

Wanted = int | Literal["newest", "best"]
"""Which checkpoint is meant: a step, or the best that `run.keep_best` keeps."""

_JSON = ("identity", "place", "config")
"""Items of JSON."""
_CONTENT, _CONTENT_LIMIT = "metadata", 10_000_000  # the file of each, and its most bytes


@dataclass(frozen=True)
class Judged:
    """The number of an evaluation at the step of a checkpoint: its name in metrics.jsonl, its value, and on what it was
    measured, as numbers of something else are not compared with it.
    """

    by: str
    value: float
    on: str


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint: `rows` is the row of the data that is next, `config` the saved one, `model` where in the
    state the model is. `best` has the step and the value of the best evaluation, if there was one by which the run
    selects; `skipped` is of the run until then. `judged` is what the evaluation of `run.keep_best` gave at this step.
    """

    step: int
    state: Any
    identity: Identity
    rows: int
    config: dict[str, Any]
    model: tuple[str, ...] = ("params",)
    best: tuple[int, float] | None = None
    skipped: guard.Skipped = guard.NOTHING
    judged: Judged | None = None

    @property
    def due(self) -> bool:
        """Whether its update was made and it was due (`run.save_every`): so where a run was stopped changes nothing."""
        every = self.config["run"]["save_every"]
        return every > 0 and self.step % every == 0 and not self.skipped.in_a_row


class Checkpoints:
    """Writes the checkpoints of one run; only the newest `keep` stay, and the best one if `keep_best`."""

    def __init__(self, directory: Path, *, keep: int, keep_best: bool = False) -> None:
        """Raises StorageError if `directory` cannot be made."""
        self._keep, self._keep_best = keep, keep_best
        self._directory = self._pending = directory.absolute()
        distributed.by_first(self._make)
        _be_patient(directory)
        # Directories are made at once: of a background thread that cannot make one, others wait forever.
        options = ocp.AsyncOptions(post_finalization_callback=self._finalise, create_directories_asynchronously=False)
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(async_options=options))
        self._saver = ocp.AsyncCheckpointer(handler, async_options=options)

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        identity: Identity,
        rows: int,
        config: Config,
        skipped: guard.Skipped = guard.NOTHING,
        judged: Judged | None = None,
    ) -> None:
        """Copy the state off the devices, then write it in the background. An error of the last save is raised here.

        Raises NumericError, and saves nothing, if the state is not finite.
        """
        self.wait()
        self._pending = self._directory / str(step)
        distributed.by_first(functools.partial(steps.make_room, self._pending))
        guard.check_state(step, state)
        selected = None if state.best is None or not state.best.step else [int(state.best.step), state.best.number]
        place = {"rows": rows, "model": list(state.place_of_model), "best": selected, "skipped": list(astuple(skipped))}
        place["judged"] = list(astuple(judged)) if judged else None
        told = {"identity": identity, "place": place, "config": to_dict(config)}
        items = {name: ocp.args.JsonSave(value) for name, value in told.items()}
        try:
            self._saver.save(
                self._pending, args=ocp.args.Composite(state=ocp.args.StandardSave(_parts(state)), **items)
            )
        except Exception as error:  # as below
            raise self._unwritable(error) from error

    def wait(self) -> None:
        """Block until the last save is on disk."""
        try:
            self._saver.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore wrap the cause of a failed write in several types
            raise self._unwritable(error) from error
        if distributed.first():
            self._make_room()

    def close(self) -> None:
        """Finish the last save and stop the background threads."""
        try:
            self.wait()
        finally:
            self._saver.close()

    def _make_room(self) -> None:
        found = steps.numbers(self._directory)
        old = found[: -self._keep]
        stays = _best_or_unknown(self._directory, found) if old and self._keep_best else set()
        for step in old:
            if step not in stays:
                steps.remove(self._directory / str(step))

    def _make(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _finalise(self) -> None:
        # Orbax calls this in the first process, when all have written and before the rename: both appear as one.
        steps.write_manifest(steps.uncommitted(self._pending), int(self._pending.name))

    def _unwritable(self, error: Exception) -> StorageError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "free the disk or the permissions and start again"
        if storage.in_bucket(self._pending):
            reason = one_line(reason.partition(" [")[0])  # where TensorStore begins to speak to its developers
            fix = "see whether the bucket can be reached and written, and start again"
        return StorageError(
            f"{self._pending}: the checkpoint could not be written ({reason}); {fix}: earlier checkpoints are intact"
        )


def saved(directory: Path) -> Restored | None:
    """The newest checkpoint below `directory` without its state, which is not verified; None if there is none."""
    for path in (directory / str(step) for step in reversed(steps.numbers(directory))):
        try:
            steps.verify(path, items=_JSON)
            return _described(path)
        except CheckpointError:  # `clean` and `restore` say what is wrong with it
            continue
    return None


def last_good(directory: Path) -> Restored | None:
    """The newest whole checkpoint below `directory` to which a run may go back, without its state; None if none is."""
    for path in (directory / str(step) for step in reversed(steps.numbers(directory))):
        try:
            steps.verify(path)
            found = _described(path)
        except CheckpointError:  # as above
            continue
        if found.due:
            return found
    return None


def best_step(found: Mapping[int, Judged]) -> int | None:
    """The step with the least loss, or with the largest of any other number; of equal ones the first. None without any.

    What was judged otherwise than the newest, by another name or on something else, is passed over.
    """
    if not found:
        return None
    newest = found[max(found)]
    alike = {step: one.value for step, one in found.items() if (one.by, one.on) == (newest.by, newest.on)}
    sign = 1.0 if newest.by.endswith("loss") else -1.0
    return min(alike, key=lambda step: (sign * alike[step], step))


def chosen(directory: Path, step: Wanted = "newest") -> int:
    """The step below `directory` that is meant. Raises CheckpointError, naming those that are there, if it is not."""
    found = steps.present(directory)
    if not found:
        raise CheckpointError(f"{directory}: holds no checkpoint; train with this --workdir first")
    fix = f"name one of those that are there, --step={'|'.join(str(one) for one in found)}"
    if step == "best":
        return _best(directory, found, fix)
    if step != "newest" and step not in found:
        raise CheckpointError(f"{directory / str(step)}: there is no such step; {fix}")
    return found[-1] if step == "newest" else step


def restore(directory: Path, abstract_state: TrainState, *, step: Wanted = "newest") -> Restored:
    """A checkpoint below `directory`, verified, onto the devices of `abstract_state`.

    Raises CheckpointError if there is none, if it is damaged or of another step, or if its arrays are not those of
    `abstract_state`; NumericError if they are not finite.
    """
    path, found = _verified(directory, step)
    with _fitting(path):
        parts = _read(path, state=ocp.args.StandardRestore(_parts(abstract_state))).state
    return _checked(path, found, parts["step"], TrainState(**parts))


def restore_params(directory: Path, abstract_params: Any, *, step: Wanted = "newest") -> Restored:
    """As `restore`, of the model alone, whose parameters are then the `state`: those of the best evaluation, if the run
    selects by one, or their average (`optim.ema`), or just the last. Nothing else of the state is read.

    Leaves of `abstract_params` without a sharding come as NumPy arrays.
    """
    path, found = _verified(directory, step)
    item = {"step": jax.ShapeDtypeStruct((), np.int32)} | _nested(found.model, abstract_params)
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    with _fitting(path):
        # Orbax leaves what it does not find as it was asked for, and NumPy arrays in the shape that they have.
        wanted = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)
        state = _read(path, state=wanted).state
        jax.tree_util.tree_map_with_path(_check_array, item, state)
    return _checked(path, found, state["step"], functools.reduce(operator.getitem, found.model, state))


def _verified(directory: Path, step: Wanted) -> tuple[Path, Restored]:
    """The path of the checkpoint below `directory` that is meant (as the first process sees it), verified by all
    processes together, and what it says of itself.
    """
    path = directory / str(distributed.by_first(lambda: chosen(directory, step)))
    try:
        distributed.agreed(lambda: steps.verify(path, share=(jax.process_index(), jax.process_count())))
    except CheckpointError as error:
        newest = "training with this --workdir goes on from the checkpoint before it"
        raise CheckpointError(f"{error}; {newest if step == 'newest' else 'name another --step'}") from error
    return path, _described(path)


def _judged(directory: Path, found: Iterable[int]) -> Iterator[tuple[int, Judged | CheckpointError]]:
    """How each of these steps was judged, or what keeps that from being known. One that would not be there if the run
    had not been stopped is left out.
    """
    for path in (directory / str(step) for step in found):
        try:
            steps.verify(path, items=_JSON)
            one = _described(path)
        except CheckpointError as error:
            yield int(path.name), error
            continue
        if one.judged and (one.due or one.step == one.config["run"]["steps"]):
            yield one.step, one.judged


def _best_or_unknown(directory: Path, found: Iterable[int]) -> set[int]:
    """The best of these steps, and those of which it cannot be known whether they are better."""
    judged = dict(_judged(directory, found))
    known = {step: one for step, one in judged.items() if isinstance(one, Judged)}
    return {step for step in judged if step not in known or step == best_step(known)}


def _best(directory: Path, found: list[int], fix: str) -> int:
    """Raises CheckpointError if there is none, or if what one says of itself is damaged: it may be the best."""
    newest = saved(directory)
    if newest and not newest.config["run"].get("keep_best"):
        raise CheckpointError(f"{directory}: no best is kept, as run.keep_best = ''; {fix}")
    judged: dict[int, Judged] = {}
    for number, one in _judged(directory, found):
        if isinstance(one, CheckpointError):
            raise CheckpointError(f"{one}; without it the best is not known: {fix}") from one
        judged[number] = one
    if (step := best_step(judged)) is None:
        raise CheckpointError(f"{directory}: none was evaluated, so none is the best; {fix}")
    return step


def _described(path: Path) -> Restored:
    """What a checkpoint says of itself, which must have been verified."""
    with _fitting(path):
        identity, place, config = (json.loads(storage.read(path / name / _CONTENT, _CONTENT_LIMIT)) for name in _JSON)
        # A checkpoint may be older than these.
        selected, judged = place.get("best"), place.get("judged")
        averaged = config["optim"].get("ema", 0.0) > 0.0
        model = place.get("model", ["opt_state", "average"] if averaged else ["params"])
        described = Restored(int(path.name), None, identity, place["rows"], config)
        skipped = guard.Skipped(*place.get("skipped", ()))
        return replace(
            described,
            model=tuple(model),
            best=(selected[0], selected[1]) if selected else None,
            skipped=skipped,
            judged=Judged(*judged) if judged else None,
        )


def _parts(state: TrainState) -> dict[str, Any]:
    """The state as it is saved: what a run does not have is not there."""
    return {name: part for name, part in vars(state).items() if part is not None}


def _nested(names: tuple[str, ...], value: Any) -> Any:
    return {names[0]: _nested(names[1:], value)} if names else value


def _be_patient(path: Path) -> None:
    """Of a bucket: let Orbax wait for one that does not answer as long as all else does, not for a quarter of an hour.

    It has no argument for that. This is the context that it gives TensorStore.
    """
    if storage.in_bucket(path):
        from orbax.checkpoint._src.serialization import tensorstore_utils

        from bertjax.bucket import objects

        tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT.update(objects.retries())


def _read(path: Path, **items: Any) -> Any:
    _be_patient(path)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(path.absolute(), args=ocp.args.Composite(**items))


@contextlib.contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        if "retry attempts failed" in reason:  # of TensorStore: a bucket that does not answer
            fix = "see whether the bucket can be reached, and start again"
            raise StorageError(f"{path}: cannot be read ({one_line(reason.partition(' [')[0])}); {fix}") from error
        reason = reason.partition(". ")[0]  # where Orbax begins to speak to its developers
        fix = "use the config of WORKDIR/config.json; of an older bertjax: export with that, then run.init_from"
        raise CheckpointError(f"{path}: does not fit this configuration ({reason}); {fix}") from error


def _check_array(path: Any, wanted: Any, found: Any) -> None:
    if isinstance(found, jax.ShapeDtypeStruct) or found.shape != wanted.shape:
        raise ValueError(f"{jax.tree_util.keystr(path)} is not there with shape {list(wanted.shape)}")


def _checked(path: Path, found: Restored, step: Any, state: Any) -> Restored:
    """`found` with its state, which is that of `step` and must be that of the directory, and finite."""
    if int(step) != found.step:
        fix = "move it away, and training goes on from the step before it"
        raise CheckpointError(f"{path}: holds the state of step {int(step)}; {fix}")
    guard.check_restored(path, state)
    return replace(found, state=state)
