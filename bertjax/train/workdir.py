"""The directory of one run: where its files are, and that one job at a time writes it.

config.json      the resolved config; data, never executed
tokenizer/       unless data.tokenizer names another
data/            the prepared data set, unless data.prepared names another
checkpoints/     STEP/ by Orbax
metrics.jsonl    one object a line
curves.png       drawn from it
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertjax.config.recipe import from_dict, to_dict, to_json
from bertjax.config.schema import Config, DataConfig
from bertjax.errors import ConfigError, StorageError

CONFIG = "config.json"

MAY_CHANGE = {
    "model": ("scan", "remat", "attention"),
    "data": (
        "source",
        "format",
        "text_field",
        "tokenizer",
        "prepared",
        "prepare_workers",
        "holdout",
        "loader_threads",
        "loader_workers",
    ),
    "mesh": ("data", "fsdp", "tensor"),
    "run": ("steps", "log_every", "eval_every", "eval_rows", "save_every", "keep", "tensorboard", "peak_tflops"),
}
"""Fields of a run that may differ when it goes on: they do not decide what is computed, or (tokenizer and data set) are
checked by their digests. `run.steps` moves the end of the learning-rate schedule, so it is said when it changes."""


def tokenizer_path(workdir: Path, data: DataConfig) -> Path:
    """The tokenizer file of this run."""
    return Path(data.tokenizer).expanduser() if data.tokenizer else workdir / "tokenizer" / "spiece.model"


def prepared_path(workdir: Path, data: DataConfig) -> Path:
    """The prepared data set of this run."""
    return Path(data.prepared).expanduser() if data.prepared else workdir / "data"


def make(workdir: Path) -> Path:
    """Create the directory and try to write in it. Raises StorageError where that fails."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"--workdir={workdir}: cannot be written ({error.strerror}); name another") from error
    return workdir


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the directory for this process. Raises StorageError naming the process that holds it already.

    The lock is the kernel's and goes with the process, however that ends; the file only tells who it was.
    """
    with (workdir / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StorageError(
                f"{workdir}: in use by {file.read().strip()}; stop it, or name another directory"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def load_config(workdir: Path) -> Config:
    """The config that a run in `workdir` was started with. Raises ConfigError if there is none."""
    try:
        values = json.loads((workdir / CONFIG).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{workdir / CONFIG}: not found; name a recipe with --config, or another --workdir") from None
    except ValueError as error:
        raise ConfigError(f"{workdir / CONFIG}: is not JSON ({error}); restore it, or name another --workdir") from None
    return from_dict(values)


def save_config(workdir: Path, config: Config) -> None:
    """Write the resolved config, whole or not at all."""
    temporary = workdir / f".{CONFIG}"
    temporary.write_text(to_json(config))
    temporary.replace(workdir / CONFIG)


def check_same_run(workdir: Path, saved: dict[str, Any], config: Config, *, sections: tuple[str, ...] = ()) -> None:
    """Raise ConfigError listing the fields, of these sections or of all, that a run cannot change half-way."""
    errors = []
    for section, fields in to_dict(config).items():
        if sections and section not in sections:
            continue
        for name, value in fields.items():
            before = saved.get(section, {}).get(name, value)
            if before != value and name not in MAY_CHANGE.get(section, ()):
                errors.append(
                    f"{section}.{name} = {value!r}: the run in {workdir} has {before!r}; restore it, or start anew in"
                    " another --workdir"
                )
    if errors:
        raise ConfigError("\n".join(errors))
