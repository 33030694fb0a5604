"""The saved steps of a run, on a disk or in a bucket: which there are, whether each is whole, and their removal.

    CHECKPOINTS/STEP/   what Orbax writes
                        manifest.json   the step, size and CRC-32 of each of those files; sealed, and written last

Orbax notices files that are cut or gone, but restores flipped bits as wrong values without a word, and lists steps that
cannot be restored. So a step is used, and what it says of itself believed, only if every byte agrees with its manifest,
and the step in that with the directory's name.

On a disk a step appears by a rename, with its manifest: one without a manifest was damaged later, and only what still
has its temporary name is known to be unfinished. A damaged step gets another name. A bucket has no rename: a step is
written in its place, and there once its manifest is, which is also the first thing to go when it is removed; unfinished
is what has neither a manifest nor Orbax's mark. A damaged step gets a file that says so.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bertjax import storage, workers
from bertjax.errors import CheckpointError, StorageError

FORMAT = 3
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 100_000_000
"""Bytes that it may have: a few hundred of each file."""
STEP = re.compile(r"0|[1-9][0-9]*")
"""Names of the directories that are steps."""
TEMPORARY = ".orbax-checkpoint-tmp"
"""What follows the step in the name of a directory that is not committed."""
COMMITTED = "commit_success.txt"
ORBAX_MARKS = ("_CHECKPOINT_METADATA", COMMITTED)
"""Files that Orbax writes or rewrites after the commit. Nothing is read from them here."""
OURS = (MANIFEST, *ORBAX_MARKS, "state/_METADATA")
"""Files that only a save writes: a directory with none of them is somebody else's."""
DAMAGED = "DAMAGED"
"""The file that marks a step in a bucket as one that is not to be used; it says why."""
_WRITTEN = re.compile(
    rf"{MANIFEST}|{DAMAGED}|(\w+/)?({'|'.join(ORBAX_MARKS)})|\w+/metadata"
    r"|state/(_METADATA|_sharding|array_metadatas/process_\d+)"
    r"|state/(ocdbt\.process_\d+\w*/)?(manifest\.ocdbt|d/[0-9a-f]{32})"
)
"""Names of what a save writes, for a step in a bucket without a manifest that could tell."""


def numbers(directory: Path) -> list[int]:
    """The steps that have been saved completely and have their manifest, oldest first."""
    if storage.in_bucket(directory):
        return [step for step, files in _below(directory).items() if MANIFEST in files and DAMAGED not in files]
    return [step for step in present(directory) if (directory / str(step) / MANIFEST).is_file()]


def write_manifest(path: Path, step: int) -> None:
    """Record that what is below `path` is of `step`, with size and CRC-32 of every file."""
    names = _files(path)
    checksums = workers.each(lambda name: storage.checksum(path / name), names)
    files = dict(zip(names, checksums, strict=True))
    storage.write(path / MANIFEST, storage.seal({"format": FORMAT, "step": step, "files": files}))


def verify(path: Path, *, items: Collection[str] = (), share: tuple[int, int] = (0, 1)) -> None:
    """Raise CheckpointError naming the first file below `path` that is not what was saved; of these items, or of all.

    And if `path` is not named as the step that was saved. `share` (i, n) reads every n-th file, from the i-th on.
    """
    which, count = share

    def check(entry: tuple[str, dict[str, int]]) -> None:
        file, fingerprint = path / entry[0], entry[1]
        if not file.is_file():
            raise CheckpointError(f"{file}: missing from the checkpoint")
        if storage.checksum(file) != fingerprint:
            raise CheckpointError(f"{file}: damaged, its bytes are not those that were saved")

    entries = list(_read_manifest(path).items())[which::count]
    workers.each(check, [entry for entry in entries if not items or Path(entry[0]).parts[0] in items])


def clean(directory: Path) -> list[str]:
    """Make `directory` ready for a run to go on: drop unfinished saves, set damaged ones aside; a line for each.

    The newest intact step is then the last of `numbers`. What no save wrote is left alone. Raises CheckpointError, and
    sets nothing aside, if there are steps and none is intact: to begin again must be the user's decision.
    """
    damaged: list[tuple[Path, str]] = []
    whole = None
    for path in (directory / str(step) for step in reversed(present(directory))):
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
    for path in _unfinished(directory):
        if storage.in_bucket(path):
            _empty(path)
        else:
            shutil.rmtree(path)
        lines.append(f"{path}: removed, its save was cut short")
    for path, reason in damaged:
        lines.append(f"{reason}; {_set_aside(path, reason)}, going on with step {whole.name if whole else ''}")
    return lines


def drop(directory: Path) -> None:
    """Delete the steps below `directory` and that itself, but for what no save wrote."""
    for step in numbers(directory):
        remove(directory / str(step))
    with contextlib.suppress(OSError):  # there is none, or something is in it
        directory.rmdir()


def drop_after(directory: Path, step: int) -> None:
    """Delete the checkpoints below `directory` of later steps than this, but for what no save wrote."""
    for later in numbers(directory):
        if later > step:
            remove(directory / str(later))


def remove(path: Path) -> None:
    """Delete a step to make room, unless it holds a file that no save wrote."""
    try:
        written = {*_read_manifest(path), MANIFEST}
    except CheckpointError:
        return
    if not written.issuperset(_files(path)):
        return
    if storage.in_bucket(path):
        _empty(path)
    else:
        # Renamed first: whoever is killed in between leaves an unfinished save, not a damaged step.
        shutil.rmtree(path.rename(uncommitted(path)))


def make_room(path: Path) -> None:
    """See that nothing is where a step is to be saved; in a bucket, remove one that was found damaged. Raises
    StorageError for anything else.
    """
    if storage.in_bucket(path):
        found = _names(path)
        if DAMAGED in found and all(map(_WRITTEN.fullmatch, found)):
            _empty(path)
            return
        taken = bool(found)
    else:
        taken = os.path.lexists(path)
    if taken:
        raise StorageError(f"{path}: is in the place of the checkpoint; move it away and start again")


def uncommitted(path: Path) -> Path:
    """Where a step is while it is written."""
    return path if storage.in_bucket(path) else path.with_name(f"{path.name}{TEMPORARY}")


def present(directory: Path) -> list[int]:
    """The steps of which there is anything, whole or damaged, oldest first."""
    if storage.in_bucket(directory):
        found = _below(directory).items()
        return [step for step, files in found if files & {MANIFEST, COMMITTED} and DAMAGED not in files]
    paths = (path for path in directory.glob("*") if STEP.fullmatch(path.name))
    return sorted(int(path.name) for path in paths if any((path / name).exists() for name in OURS))


def _unfinished(directory: Path) -> list[Path]:
    """What saves wrote that were cut short."""
    if storage.in_bucket(directory):
        steps = [step for step, files in _below(directory).items() if not files & {MANIFEST, COMMITTED, DAMAGED}]
        paths = [directory / str(step) for step in steps]
        return [path for path in paths if all(map(_WRITTEN.fullmatch, _names(path)))]
    named = (path for path in sorted(directory.glob(f"*{TEMPORARY}")) if path.is_dir())
    return [path for path in named if STEP.fullmatch(path.name.removesuffix(TEMPORARY))]


def _set_aside(path: Path, reason: str) -> str:
    """Keep a damaged step from use; what was done."""
    if storage.in_bucket(path):
        storage.write(path / DAMAGED, f"{reason}\n")
        return f"marked as {DAMAGED} until that step is saved again"
    aside = _aside(path)
    path.rename(aside)
    return f"set aside as {aside.name}"


def _aside(path: Path) -> Path:
    """A name that is free: what was set aside before stays."""
    names = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(2)))
    return next(aside for name in names if not os.path.lexists(aside := path.with_name(f"{path.name}{name}")))


def _names(path: Any) -> list[str]:
    """Every file below `path`, by its path from there; of a path in a bucket by a single question."""
    if storage.in_bucket(path):
        return path.files()
    return [str(p.relative_to(path)) for p in sorted(path.rglob("*")) if not p.is_dir()]


def _files(path: Path) -> list[str]:
    """Every file below `path` but Orbax's marks."""
    return [name for name in _names(path) if Path(name).name not in ORBAX_MARKS]


def _below(directory: Path) -> dict[int, set[str]]:
    """Of a directory in a bucket: step -> every file of it, oldest first."""
    found: dict[int, set[str]] = {}
    for step, _, file in (name.partition("/") for name in _names(directory)):
        if STEP.fullmatch(step) and file:
            found.setdefault(int(step), set()).add(file)
    return dict(sorted(found.items()))


def _empty(path: Path) -> None:
    """Remove every file of a step in a bucket, in an order in which it is never taken for a whole one, nor for one that
    was damaged rather than removed.
    """
    first, found = (MANIFEST, COMMITTED), _names(path)
    for name in (name for name in first if name in found):
        (path / name).unlink(missing_ok=True)
    workers.each(lambda name: (path / name).unlink(missing_ok=True), [n for n in found if n not in (*first, DAMAGED)])
    if DAMAGED in found:
        (path / DAMAGED).unlink(missing_ok=True)


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
