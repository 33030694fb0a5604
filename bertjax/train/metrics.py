"""metrics.jsonl, one object a line, and TensorBoard if it is asked for."""

import json
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.config.schema import RunConfig
from bertjax.errors import ConfigError

METRICS = "metrics.jsonl"


class Writer:
    """Appends metrics to WORKDIR/metrics.jsonl and, if `tensorboard`, to WORKDIR/tensorboard."""

    def __init__(self, workdir: Path, *, start_step: int, tensorboard: bool) -> None:
        """Lines after `start_step` are from a run that was cut off, and will be written again: drop them."""
        path = workdir / METRICS
        kept = [line for line in read(path) if line["step"] <= start_step]
        storage.write(path, "".join(_line(line) for line in kept))
        self._file = path.open("a", buffering=1)
        self._board = _tensorboard(workdir, start_step) if tensorboard else None

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Record `values` at `step`; None stands for a value that this device cannot give."""
        self._file.write(_line({"step": step, **values}))
        if self._board is not None:
            for name, value in values.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a line cut short by a crash is left out. NaN, no JSON, is read as None."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line, parse_constant=lambda _: None))
        except ValueError:
            break
    return lines


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
