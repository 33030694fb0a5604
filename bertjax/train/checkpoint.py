"""Checkpoints: state, identity, place in the data and config saved together by Orbax, and verified before their use.

    WORKDIR/checkpoints/STEP/   state, identity, place,   what Orbax writes, committed by a rename
                                manifest.json             size and CRC-32 of each of those files, written last

Orbax notices files that are cut or gone, but restores flipped bits as wrong values without a word, and lists steps that
cannot be restored. So a step exists here once its manifest does, and is used only if every byte agrees with it.
"""

import json
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bertjax import storage
from bertjax.config.recipe import to_dict
from bertjax.config.schema import Config
from bertjax.errors import CheckpointError, StorageError

FORMAT = 2
MANIFEST = "manifest.json"
TEMPORARY = ".orbax-checkpoint-tmp"
"""Suffix of a directory that Orbax has not committed."""
ORBAX_MARKS = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Files that Orbax writes or rewrites after the commit. Nothing is read from them here."""


Identity = dict[str, str]
"""Digests of what a run learns from ("data", "tokenizer", "teacher"): another run has others."""


_JSON = {name: ocp.args.JsonRestore() for name in ("identity", "place", "config")}


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint: `rows` of the data had been seen, `config` is the saved one."""

    step: int
    state: Any
    identity: Identity
    rows: int
    config: dict[str, Any]


class Checkpoints:
    """Writes the checkpoints of one run; only the newest `keep` stay."""

    def __init__(self, directory: Path, *, keep: int) -> None:
        self._directory = directory.absolute()
        self._keep = keep
        self._pending: Path | None = None
        self._saver = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.AsyncOptions(post_finalization_callback=self._finalise),
        )

    def save(self, step: int, state: Any, *, identity: Identity, rows: int, config: Config) -> None:
        """Copy the state off the devices, then write it in the background. An error of the last save is raised here."""
        self.wait()
        self._pending = self._directory / str(step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            identity=ocp.args.JsonSave(identity),
            place=ocp.args.JsonSave({"rows": rows}),
            config=ocp.args.JsonSave(to_dict(config)),
        )
        try:
            self._saver.save(self._pending, args=items)
        except OSError as error:
            raise self._unwritable(error) from error

    def wait(self) -> None:
        """Block until the last save is on disk."""
        try:
            self._saver.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore wrap the cause of a failed write in several types
            raise self._unwritable(error) from error
        for step in steps(self._directory)[: -self._keep]:
            shutil.rmtree(self._directory / str(step))

    def close(self) -> None:
        """Finish the last save and stop the background threads."""
        self.wait()
        self._saver.close()

    def _finalise(self) -> None:
        # Orbax calls this when all files are written, before the rename: manifest and checkpoint appear as one.
        assert self._pending is not None
        (temporary,) = self._directory.glob(f"{self._pending.name}{TEMPORARY}*")
        write_manifest(temporary)

    def _unwritable(self, error: Exception) -> StorageError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return StorageError(
            f"{self._pending}: the checkpoint could not be written ({reason}); free the disk or the permissions and"
            " start again: earlier checkpoints are intact"
        )


def steps(directory: Path) -> list[int]:
    """The steps that have been saved completely, oldest first."""
    return sorted(int(path.parent.name) for path in directory.glob(f"*/{MANIFEST}") if path.parent.name.isdigit())


def write_manifest(path: Path) -> None:
    """Record size and CRC-32 of every file below `path`."""
    files = {
        str(p.relative_to(path)): storage.checksum(p)
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name not in ORBAX_MARKS
    }
    storage.write(path / MANIFEST, json.dumps({"format": FORMAT, "check": _check(files), "files": files}, indent=1))


def verify(path: Path) -> None:
    """Raise CheckpointError naming the first file below `path` that is not what was saved."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        expected = manifest["files"]
        if manifest["check"] != _check(expected):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST}: missing or damaged, so the checkpoint cannot be verified") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path / MANIFEST}: format {manifest.get('format')}, this version reads {FORMAT}")
    for name, fingerprint in expected.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint")
        if storage.checksum(file) != fingerprint:
            raise CheckpointError(f"{file}: damaged, its bytes are not those that were saved")


def saved(directory: Path) -> Restored | None:
    """The newest checkpoint below `directory` without its state; None if there is none that can be read."""
    try:
        step = steps(directory)[-1]
        items = ocp.args.Composite(**_JSON)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(directory.absolute() / str(step), args=items)
        return Restored(step, None, found.identity, found.place["rows"], found.config)
    except (IndexError, ValueError, KeyError, TypeError, OSError):  # `clean` and `restore` say what is wrong with it
        return None


def clean(directory: Path) -> list[str]:
    """Make `directory` ready for a run to go on: drop unfinished saves, set damaged ones aside; a line for each.

    The newest intact step is then the last of `steps`. Raises CheckpointError, and sets nothing aside, if there are
    steps and none is intact: to begin again must be the user's decision.
    """
    lines = []
    for path in sorted(p for p in directory.glob("*") if p.is_dir()):
        unfinished = path.name.isdigit() and not (path / MANIFEST).exists()
        if unfinished or TEMPORARY in path.name:
            shutil.rmtree(path)
            lines.append(f"{path}: removed, its save was cut short")
    damaged: list[tuple[Path, str]] = []
    for step in reversed(steps(directory)):
        try:
            verify(directory / str(step))
            break
        except CheckpointError as error:
            damaged.append((directory / str(step), str(error)))
    else:
        if damaged:
            raise CheckpointError(f"{damaged[0][1]}; no other step is whole: restore it, or start in another --workdir")
    for path, reason in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        lines.append(f"{reason}; set aside as {aside.name}, going back to the step before")
    return lines


def restore(directory: Path, abstract_state: Any) -> Restored:
    """The newest checkpoint below `directory`, verified, onto the devices that `abstract_state` names.

    Raises CheckpointError if there is none, if it is damaged, or if its arrays are not those of `abstract_state`.
    """
    return _restore(directory, ocp.args.StandardRestore(abstract_state), lambda state: state)


def restore_params(directory: Path, abstract_params: Any) -> Restored:
    """As `restore`, of the parameters alone, which are then the `state`: the optimizer's part is never read.

    Leaves of `abstract_params` without a sharding come as NumPy arrays.
    """
    item = {"params": abstract_params}
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    state = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)

    def params(restored: Any) -> Any:
        # Orbax leaves what it does not find as it was asked for, and NumPy arrays in the shape that they have.
        def check(path: Any, wanted: Any, found: Any) -> None:
            if isinstance(found, jax.ShapeDtypeStruct) or found.shape != wanted.shape:
                raise ValueError(f"{jax.tree_util.keystr(path)} is not there with shape {list(wanted.shape)}")

        jax.tree_util.tree_map_with_path(check, abstract_params, restored["params"])
        return restored["params"]

    return _restore(directory, state, params)


def _restore(directory: Path, state: Any, select: Callable[[Any], Any]) -> Restored:
    found = steps(directory)
    if not found:
        raise CheckpointError(f"{directory}: holds no checkpoint; train with this --workdir first")
    path = directory.absolute() / str(found[-1])
    try:
        verify(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; training with this --workdir goes on from the checkpoint before it"
        ) from error
    items = ocp.args.Composite(state=state, **_JSON)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(path, args=items)
        return Restored(found[-1], select(restored.state), restored.identity, restored.place["rows"], restored.config)
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: does not fit this configuration ({reason}); use the config of WORKDIR/config.json"
        ) from error


def _check(files: dict[str, dict[str, int]]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())
