"""Checkpoints: state, identity, place in the data and config saved together by Orbax, and verified before their use.

    WORKDIR/checkpoints/STEP/   state, identity, place,   what Orbax writes, committed by a rename
                                manifest.json             the step, size and CRC-32 of each of those files; written last

Orbax notices files that are cut or gone, but restores flipped bits as wrong values without a word, and lists steps that
cannot be restored. So a step is used, and what it says of itself believed, only if every byte agrees with its manifest,
and the step in that with the directory's name and the state's. The two appear by one rename: a step without a manifest
was damaged later, and only what still has its temporary name is known to be unfinished.
"""

import contextlib
import functools
import itertools
import json
import operator
import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax import storage
from bertjax.config.recipe import to_dict
from bertjax.config.schema import Config
from bertjax.errors import CheckpointError, StorageError
from bertjax.parallel import distributed
from bertjax.train import guard
from bertjax.train.state import TrainState

FORMAT = 3
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 100_000_000
"""Bytes that it may have: a few hundred of each file."""
STEP = re.compile(r"0|[1-9][0-9]*")
"""Names of the directories that are steps."""
TEMPORARY = ".orbax-checkpoint-tmp"
"""What follows the step in the name of a directory that is not committed."""
ORBAX_MARKS = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Files that Orbax writes or rewrites after the commit. Nothing is read from them here."""
OURS = (MANIFEST, *ORBAX_MARKS, "state/_METADATA")
"""Files that only a save writes: a directory with none of them is somebody else's."""

Identity = dict[str, str]
"""Digests of what a run learns from ("data", "tokenizer", "teacher"): another run has others."""


_JSON = ("identity", "place", "config")
"""Items of JSON."""
_CONTENT, _CONTENT_LIMIT = "metadata", 10_000_000  # the file of each, and its most bytes


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint: `rows` is the row of the data that is next, `config` the saved one, `model` where in the
    state the model is. `best` has the step and the value of the best evaluation, if there was one by which the run
    selects; `skipped` is of the run until then.
    """

    step: int
    state: Any
    identity: Identity
    rows: int
    config: dict[str, Any]
    model: tuple[str, ...] = ("params",)
    best: tuple[int, float] | None = None
    skipped: guard.Skipped = guard.NOTHING


class Checkpoints:
    """Writes the checkpoints of one run; only the newest `keep` stay."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        """Raises StorageError if `directory` cannot be made."""
        self._keep = keep
        self._directory = self._pending = directory.absolute()
        distributed.by_first(self._make)
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
    ) -> None:
        """Copy the state off the devices, then write it in the background. An error of the last save is raised here.

        Raises NumericError, and saves nothing, if the state is not finite.
        """
        self.wait()
        self._pending = self._directory / str(step)
        distributed.by_first(self._check_free)
        guard.check_state(step, state)
        best = None if state.best is None or not state.best.step else [int(state.best.step), state.best.number]
        place = {"rows": rows, "model": list(state.place_of_model), "best": best, "skipped": list(astuple(skipped))}
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
            for step in steps(self._directory)[: -self._keep]:
                _remove(self._directory / str(step))

    def close(self) -> None:
        """Finish the last save and stop the background threads."""
        try:
            self.wait()
        finally:
            self._saver.close()

    def _make(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _check_free(self) -> None:
        if os.path.lexists(self._pending):
            raise StorageError(f"{self._pending}: is in the place of the checkpoint; move it away and start again")

    def _finalise(self) -> None:
        # Orbax calls this in the first process, when all have written and before the rename: both appear as one.
        write_manifest(_uncommitted(self._pending), int(self._pending.name))

    def _unwritable(self, error: Exception) -> StorageError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return StorageError(
            f"{self._pending}: the checkpoint could not be written ({reason}); free the disk or the permissions and"
            " start again: earlier checkpoints are intact"
        )


def steps(directory: Path) -> list[int]:
    """The steps that have been saved completely and have their manifest, oldest first."""
    return [step for step in _present(directory) if (directory / str(step) / MANIFEST).is_file()]


def drop(directory: Path) -> None:
    """Delete the steps below `directory` and that itself, but for what no save wrote."""
    for step in steps(directory):
        _remove(directory / str(step))
    with contextlib.suppress(OSError):  # there is none, or something is in it
        directory.rmdir()


def write_manifest(path: Path, step: int) -> None:
    """Record that what is below `path` is of `step`, with size and CRC-32 of every file."""
    files = {name: storage.checksum(path / name) for name in _files(path)}
    storage.write(path / MANIFEST, storage.seal({"format": FORMAT, "step": step, "files": files}))


def verify(path: Path, *, items: Collection[str] = (), share: tuple[int, int] = (0, 1)) -> None:
    """Raise CheckpointError naming the first file below `path` that is not what was saved; of these items, or of all.

    And if `path` is not named as the step that was saved. `share` (i, n) reads every n-th file, from the i-th on.
    """
    which, count = share
    for name, fingerprint in list(_read_manifest(path).items())[which::count]:
        file = path / name
        if items and Path(name).parts[0] not in items:
            continue
        if not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint")
        if storage.checksum(file) != fingerprint:
            raise CheckpointError(f"{file}: damaged, its bytes are not those that were saved")


def saved(directory: Path) -> Restored | None:
    """The newest checkpoint below `directory` without its state, which is not verified; None if there is none."""
    for path in (directory / str(step) for step in reversed(steps(directory))):
        try:
            verify(path, items=_JSON)
            return _described(path)
        except CheckpointError:  # `clean` and `restore` say what is wrong with it
            continue
    return None


def last_good(directory: Path) -> Restored | None:
    """The newest whole checkpoint below `directory` to which a run may go back, without its state; None if none is.

    Its update was made, and it was due (`run.save_every`): so where a run was stopped changes nothing.
    """
    for path in (directory / str(step) for step in reversed(steps(directory))):
        try:
            verify(path)
            found = _described(path)
        except CheckpointError:  # as above
            continue
        every = found.config["run"]["save_every"]
        if every and found.step % every == 0 and not found.skipped.in_a_row:
            return found
    return None


def drop_after(directory: Path, step: int) -> None:
    """Delete the checkpoints below `directory` of later steps than this, but for what no save wrote."""
    for later in steps(directory):
        if later > step:
            _remove(directory / str(later))


def clean(directory: Path) -> list[str]:
    """Make `directory` ready for a run to go on: drop unfinished saves, set damaged ones aside; a line for each.

    The newest intact step is then the last of `steps`. What no save wrote is left alone. Raises CheckpointError, and
    sets nothing aside, if there are steps and none is intact: to begin again must be the user's decision.
    """
    damaged: list[tuple[Path, str]] = []
    whole = None
    for path in (directory / str(step) for step in reversed(_present(directory))):
        if whole and (path / MANIFEST).exists():
            continue  # reading all of an older one can wait until it is needed
        try:
            verify(path)
            whole = path
        except CheckpointError as error:
            damaged.append((path, str(error)))
    if damaged and not whole:
        raise CheckpointError(f"{damaged[0][1]}; no other step is whole: restore it, or start in another --workdir")
    lines = []
    for path in sorted(directory.glob(f"*{TEMPORARY}")):
        if path.is_dir() and STEP.fullmatch(path.name.removesuffix(TEMPORARY)):
            shutil.rmtree(path)
            lines.append(f"{path}: removed, its save was cut short")
    for path, reason in damaged:
        aside = _aside(path)
        path.rename(aside)
        lines.append(f"{reason}; set aside as {aside.name}, going on with step {whole.name if whole else ''}")
    return lines


def restore(directory: Path, abstract_state: TrainState, *, step: int | None = None) -> Restored:
    """The newest checkpoint below `directory`, or that of `step`, verified, onto the devices of `abstract_state`.

    Raises CheckpointError if there is none, if it is damaged or of another step, or if its arrays are not those of
    `abstract_state`; NumericError if they are not finite.
    """
    path, found = _newest(directory, step)
    with _fitting(path):
        parts = _read(path, state=ocp.args.StandardRestore(_parts(abstract_state))).state
    return _checked(path, found, parts["step"], TrainState(**parts))


def restore_params(directory: Path, abstract_params: Any) -> Restored:
    """As `restore`, of the model alone, whose parameters are then the `state`: those of the best evaluation, if the run
    selects by one, or their average (`optim.ema`), or just the last. Nothing else of the state is read.

    Leaves of `abstract_params` without a sharding come as NumPy arrays.
    """
    path, found = _newest(directory)
    item = {"step": jax.ShapeDtypeStruct((), np.int32)} | _nested(found.model, abstract_params)
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    with _fitting(path):
        # Orbax leaves what it does not find as it was asked for, and NumPy arrays in the shape that they have.
        wanted = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)
        state = _read(path, state=wanted).state
        jax.tree_util.tree_map_with_path(_check_array, item, state)
    return _checked(path, found, state["step"], functools.reduce(operator.getitem, found.model, state))


def _newest(directory: Path, step: int | None = None) -> tuple[Path, Restored]:
    """The path of the newest checkpoint below `directory` (that the first process sees), or of that step, verified by
    all processes together, and what it says of itself.
    """
    found = distributed.by_first(lambda: _present(directory)) if step is None else [step]
    if not found:
        raise CheckpointError(f"{directory}: holds no checkpoint; train with this --workdir first")
    path = directory / str(found[-1])
    try:
        distributed.agreed(lambda: verify(path, share=(jax.process_index(), jax.process_count())))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; training with this --workdir goes on from the checkpoint before it") from error
    return path, _described(path)


def _described(path: Path) -> Restored:
    """What a checkpoint says of itself, which must have been verified."""
    with _fitting(path):
        identity, place, config = (json.loads(storage.read(path / name / _CONTENT, _CONTENT_LIMIT)) for name in _JSON)
        best = place.get("best")
        # A checkpoint may be older than these.
        averaged = config["optim"].get("ema", 0.0) > 0.0
        model = place.get("model", ["opt_state", "average"] if averaged else ["params"])
        described = Restored(int(path.name), None, identity, place["rows"], config)
        skipped = guard.Skipped(*place.get("skipped", ()))
        return replace(described, model=tuple(model), best=(best[0], best[1]) if best else None, skipped=skipped)


def _parts(state: TrainState) -> dict[str, Any]:
    """The state as it is saved: what a run does not have is not there."""
    return {name: part for name, part in vars(state).items() if part is not None}


def _nested(names: tuple[str, ...], value: Any) -> Any:
    return {names[0]: _nested(names[1:], value)} if names else value


def _read(path: Path, **items: Any) -> Any:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        return reader.restore(path.absolute(), args=ocp.args.Composite(**items))


@contextlib.contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: does not fit this configuration ({reason}); use the config of WORKDIR/config.json"
        ) from error


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


def _present(directory: Path) -> list[int]:
    """The steps of which there is anything, whole or damaged, oldest first."""
    found = (path for path in directory.glob("*") if STEP.fullmatch(path.name))
    return sorted(int(path.name) for path in found if any((path / name).exists() for name in OURS))


def _uncommitted(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}")


def _aside(path: Path) -> Path:
    """A name that is free: what was set aside before stays."""
    names = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(2)))
    return next(aside for name in names if not os.path.lexists(aside := path.with_name(f"{path.name}{name}")))


def _remove(path: Path) -> None:
    """Delete a step to make room, unless it holds a file that no save wrote."""
    try:
        written = {*_read_manifest(path), MANIFEST}
    except CheckpointError:
        return
    if written.issuperset(_files(path)):
        # Renamed first: whoever is killed in between leaves an unfinished save, not a damaged step.
        shutil.rmtree(path.rename(_uncommitted(path)))


def _files(path: Path) -> list[str]:
    """Every file below `path` but Orbax's marks, by its path from there."""
    return [str(p.relative_to(path)) for p in sorted(path.rglob("*")) if not (p.is_dir() or p.name in ORBAX_MARKS)]


def _read_manifest(path: Path) -> dict[str, dict[str, int]]:
    """Size and CRC-32 of each file that was saved below `path`. Raises CheckpointError if they cannot be had."""
    file = path / MANIFEST
    try:
        manifest, whole = storage.unseal(storage.read(file, MANIFEST_LIMIT).decode())
        if not whole and manifest.get("format") == FORMAT:
            raise ValueError
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: missing or damaged, so the checkpoint cannot be verified") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{file}: format {manifest.get('format')!r:.20}, this version reads {FORMAT}")
    if manifest["step"] != int(path.name):
        raise CheckpointError(f"{file}: is of step {manifest['step']}, so this is a copy of another step")
    return manifest["files"]
