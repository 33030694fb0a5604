"""The directory of one run, on a disk or in a bucket: where its files are, its config, and what of that may change.

config.json      the resolved config, and under "origin" where its values are from; data, never executed
tokenizer/       unless data.tokenizer names another
data/            the prepared data set, unless data.prepared names another
checkpoints/     STEP/ by Orbax
metrics.jsonl    one object a line
curves.png       drawn from it
"""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.bucket import copies
from bertjax.config import made
from bertjax.config.limits import limits
from bertjax.config.phases import changed
from bertjax.config.recipe import from_dict, to_dict
from bertjax.config.schema import Config, DataConfig
from bertjax.errors import ConfigError, DataError

CONFIG = "config.json"
ORIGIN = "origin"
_SIZE_LIMIT = 10_000_000  # bytes


@dataclass(frozen=True)
class Origin:
    """Where the values of a config are from: from a recipe, but for fields (SECTION.FIELD) with others."""

    recipe: str = ""  # as --config named it; "" = the defaults
    given: tuple[str, ...] = ()  # by command lines
    fitted: tuple[str, ...] = ()  # by the recipe, to the corpus of this run


def tokenizer_path(workdir: Path, data: DataConfig) -> Path:
    """The tokenizer file of this run, to read: of one in a bucket, its copy on this host. Raises DataError where there
    is none in the bucket, or it is damaged.
    """
    place = tokenizer_place(workdir, data)
    path = copies.file(place)
    if storage.in_bucket(place) and not path.exists():
        raise DataError(f"{place}: no tokenizer; train one with `bertjax tokenizer`")
    return path


def prepared_path(workdir: Path, data: DataConfig) -> Path:
    """The prepared data set of this run, to read: of one in a bucket, its copy on this host. Raises DataError where
    there is none in the bucket, or it is damaged.
    """
    place = prepared_place(workdir, data)
    found = copies.data_set(place)
    if found is None:
        raise DataError(f"{place}: no prepared data set; run `bertjax prepare`")
    return found


def tokenizer_place(workdir: Path, data: DataConfig) -> Path:
    """Where the tokenizer file of this run lies."""
    trained = {"sentencepiece": "spiece.model", "wordpiece": "vocab.txt"}[data.tokenizer_kind]
    own = workdir / "tokenizer" / ("tokenizer.json" if data.by_rule else trained)
    return storage.place(data.tokenizer) if data.tokenizer else own


def prepared_place(workdir: Path, data: DataConfig) -> Path:
    """Where the prepared data set of this run lies."""
    return storage.place(data.prepared) if data.prepared else workdir / "data"


def load_config(workdir: Path) -> Config:
    """The config of the run in `workdir`. Raises ConfigError if there is none, or it is damaged."""
    found = remembered(workdir)
    if found is None:
        raise ConfigError(f"{workdir / CONFIG}: not found; name a recipe with --config, or another --workdir")
    return found[0]


def remembered(workdir: Path) -> tuple[Config, Origin] | None:
    """The config of the run in `workdir`, and where it is from; None without one. Raises ConfigError if damaged."""
    path = workdir / CONFIG
    try:
        values = json.loads(storage.read(path, _SIZE_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        fix = "restore it, or name another --workdir"
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except (ValueError, RecursionError) as error:
        fix = "restore it, or remove it and name the recipe once more"
        raise ConfigError(f"{path}: is not JSON ({error}); {fix}") from None
    try:
        origin = _origin(values.pop(ORIGIN)) if isinstance(values, dict) and ORIGIN in values else Origin()
        return from_dict(values), origin
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def _origin(values: Any) -> Origin:
    """Raises ConfigError for what `save_config` does not write."""
    names = {f"{section}.{name}" for section, fields in to_dict(Config()).items() for name in fields}
    match values:
        case {"recipe": str(recipe), "given": list(given), "fitted": list(fitted)} if len(values) == 3:
            if all(isinstance(name, str) and name in names for name in given + fitted):
                return Origin(recipe, tuple(given), tuple(fitted))
    raise ConfigError(f"{ORIGIN} = {values!r:.60}: must be a recipe, and fields given and fitted; remove it")


def save_config(workdir: Path, config: Config, origin: Origin | None = None) -> None:
    """Write the resolved config, whole or not at all; `origin` None = nothing is known of it."""
    values: dict[str, Any] = to_dict(config)
    if origin is not None:
        values[ORIGIN] = dataclasses.asdict(origin)
    storage.write(workdir / CONFIG, json.dumps(values, indent=2, allow_nan=False) + "\n")


def remember(workdir: Path, config: Config, origin: Origin) -> None:
    """Write the config of a run for the commands that follow. One that has begun writes it itself, after its checks.

    Raises ConfigError, and writes nothing, for a field with another value than something in `workdir` was made with;
    StorageError where it cannot write, or another process is at work.
    """
    if remembered(workdir) == (config, origin):
        return
    begun = _begun(workdir)
    with contextlib.nullcontext() if begun else storage.locked(storage.make(workdir)):
        before = remembered(workdir)
        if before:
            _check_made(workdir, before[0], config, begun=begun)
        if not begun:
            save_config(workdir, config, origin)


def _begun(workdir: Path) -> bool:
    """Whether there is a checkpoint of a run, whole or not."""
    return any(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))


def _check_made(workdir: Path, before: Config, config: Config, *, begun: bool) -> None:
    if begun:
        if (workdir / "checkpoints" / "0").exists():
            raise imported(workdir)
        check_same_run(workdir, to_dict(before), config)
    things = list(_made(workdir, before.data, config.data))
    errors = []
    for section, name, was, now in changes(to_dict(before), config):
        stale = [(field, path) for field, path, made_of in things if f"{section}.{name}" in made_of]
        if stale:
            paths = " and ".join(str(path) for _, path in stale)
            flags = " ".join(f"--config.{field}={path}" for field, path in stale)
            was_it = "was" if len(stale) == 1 else "were"
            errors.append(
                f"{section}.{name} = {now!r}: {paths} {was_it} made with {was!r}; keep that, or remove {paths} to"
                f" make anew, or use what is there with {flags}"
            )
    if errors:
        raise ConfigError("\n".join(errors))


def _made(workdir: Path, before: DataConfig, now: DataConfig) -> Iterator[tuple[str, Path, Collection[str]]]:
    """What is there of the run's own and stays in use: the field that could name it, its path, and what it is made of.

    What a field names is not the run's own: it was made of whatever it was.
    """
    tokenizer, data = tokenizer_place(workdir, before), prepared_place(workdir, before)
    if not before.tokenizer and not now.tokenizer and tokenizer.exists():
        yield "data.tokenizer", tokenizer, made.TOKENIZER
    if not before.prepared and not now.prepared and data.is_dir() and any(data.iterdir()):
        other = _are_different(tokenizer, tokenizer_place(workdir, now))
        yield "data.prepared", data, (*made.DATA_SET, "data.tokenizer") if other else made.DATA_SET


def _are_different(path: Path, other: Path) -> bool:
    return path.is_file() and other.is_file() and path.read_bytes() != other.read_bytes()


def imported(workdir: Path) -> ConfigError:
    """That what is in `workdir` cannot go on."""
    fix = f"name a new --workdir, and --config.run.init_from={workdir}"
    return ConfigError(f"--workdir={workdir}: holds an imported model, not a run; {fix}")


def check_same_run(
    workdir: Path, saved: dict[str, Any], config: Config, *, sections: Collection[str] = (), step: int = 0
) -> None:
    """Raise ConfigError listing the fields, of these sections or of all, that a run cannot change half-way.

    `saved` is a config as JSON has it. What a field may do is said where it is (`bertjax.config.schema`). What phases
    may do depends on the step at which the run is: with 0, they are not looked at.
    """
    errors = []
    for section, name, before, now in changes(saved, config):
        if (section in sections or not sections) and not limits(getattr(config, section))[name].may_change:
            errors.append(
                f"{section}.{name} = {now!r}: the run in {workdir} has {before!r}; restore it, or start anew in"
                " another --workdir"
            )
    if step and not errors:
        errors = [
            f"{problem}, or start anew in another --workdir" for problem in changed(from_dict(saved), config, step)
        ]
    if errors:
        raise ConfigError("\n".join(errors))


def changes(saved: dict[str, Any], config: Config) -> list[tuple[str, str, Any, Any]]:
    """Section, name, value in `saved` and value in `config` of each field that differs; what is not saved does not."""
    return [
        (section, name, saved[section][name], now)
        for section, fields in to_dict(config).items()
        for name, now in fields.items()
        if section in saved and name in saved[section] and saved[section][name] != now
    ]
