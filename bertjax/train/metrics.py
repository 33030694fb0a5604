"""metrics.jsonl, one object a line, and TensorBoard if it is asked for."""

import json
import sys
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.bucket import copies
from bertjax.config.schema import RunConfig
from bertjax.console import say
from bertjax.errors import ConfigError

METRICS = "metrics.jsonl"
DAMAGED = "metrics.jsonl.damaged"
"""Where lines go that cannot be read, as they are."""

Line = dict[str, Any]
"""{"step": int, NAME: a finite number or None}."""


class Writer:
    """Appends metrics to WORKDIR/metrics.jsonl and, if `tensorboard`, to WORKDIR/tensorboard.

    Nothing can be appended to in a bucket: there it writes copies on this host, and `publish` replaces what is there.
    """

    def __init__(self, workdir: Path, *, start_step: int, tensorboard: bool) -> None:
        """Lines after `start_step` are from a run that was cut off, and will be written again: drop them.

        Those that cannot be read are set aside.
        """
        self._workdir = workdir
        path, aside = copies.file(workdir / METRICS), copies.file(workdir / DAMAGED)
        lines, damaged = _split(path)
        if damaged:  # first there, then no longer here
            before = aside.read_bytes() if aside.exists() else b""
            storage.write(aside, before + b"".join(line + b"\n" for line in damaged))
            say(f"{path}: set aside in {aside.name}: {_count(damaged)} that cannot be read")
        kept = [line for line in lines if line["step"] <= start_step]
        storage.write(path, "".join(_line(line) for line in kept))
        self._file = path.open("a", buffering=1)
        self._board = _tensorboard(copies.local(workdir), start_step) if tensorboard else None

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Record `values` at `step`; None stands for a value that this device cannot give."""
        self._file.write(_line({"step": step, **values}))
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)

    def publish(self) -> None:
        """Have what was written where others look for it: of a work directory in a bucket, there.

        Of TensorBoard's events, those that it has put in its file by then; all, once this is closed.
        """
        if self._board is not None:
            self._board.flush()
            copies.publish_files(self._workdir / "tensorboard")
        copies.publish_file(self._workdir / METRICS)
        copies.publish_file(self._workdir / DAMAGED)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()
            copies.publish_files(self._workdir / "tensorboard")


class Nowhere:
    """What a process writes its metrics to that is not the first of its run."""

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Nothing."""

    def publish(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read(path: Path) -> list[Line]:
    """The lines of a metrics file, without those that cannot be read, of which it is told.

    A last line that a crash cut short is left out. NaN, no JSON, is read as None.
    """
    lines, damaged = _split(path)
    if damaged:
        say(f"{path}: left out: {_count(damaged)} that cannot be read")
    return lines


def _split(path: Path) -> tuple[list[Line], list[bytes]]:
    """The lines of a metrics file that can be read, and the others."""
    if not path.is_file():
        return [], []
    *whole, rest = path.read_bytes().split(b"\n")
    lines = [(line, parsed(line)) for line in (*whole, rest) if line.strip()]
    good = [values for _, values in lines if values is not None]
    bad = [line for line, values in lines if values is None]
    if bad and bad[-1] is rest and b"}" not in rest:
        bad.pop()  # cut short by a crash
    return good, bad


def parsed(line: bytes) -> Line | None:
    """What a line of a metrics file says; None if it is none that `Writer` wrote."""
    try:
        values = json.loads(line.decode(), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or type(values.get("step")) is not int or values["step"] < 0:
        return None
    return values if all(value is None or _is_number(value) for value in values.values()) else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _count(lines: list[bytes]) -> str:
    return f"{len(lines)} line{'s' * (len(lines) > 1)}"


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"


def check_tensorboard(run: RunConfig) -> None:
    """Raise ConfigError if TensorBoard is asked for and not installed."""
    if run.tensorboard:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ConfigError("run.tensorboard = True: needs the extra, `pip install 'bertjax[tb]'`") from error


def _tensorboard(workdir: Path, start_step: int) -> Any:
    from tensorboardX import SummaryWriter  # optional: the [tb] extra

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)


def describe(step: int, total: int, values: dict[str, float | None]) -> str:
    """One line for a person: the step, losses, accuracies, rates."""
    shown = {k: v for k, v in values.items() if v is not None and k not in ("slots_per_second", "steps_per_second")}
    return f"step {step}/{total}  " + "  ".join(f"{name} {_short(value)}" for name, value in shown.items())


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
