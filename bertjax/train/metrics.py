"""What a run shows: metrics.jsonl (always), TensorBoard (if asked), progress, throughput, FLOPs and MFU, curves.png."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from bertjax.config.schema import Config, DataConfig, ModelConfig
from bertjax.errors import ConfigError

METRICS = "metrics.jsonl"
CURVES = "curves.png"

PEAK_TFLOPS: dict[str, float] = {
    "TPU v3": 123.0 / 2,  # JAX shows each of the two cores of a chip as a device
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA B200": 2250.0,
}
"""Dense bf16 TFLOP/s by the beginning of JAX's device kind, as the vendors state them; the first that fits counts."""


def peak_tflops(device_kind: str, configured: float) -> float:
    """Peak of one device: `configured` if above 0, else by its kind; 0.0 if unknown (no MFU is then reported)."""
    known = [peak for kind, peak in PEAK_TFLOPS.items() if device_kind.startswith(kind)]
    return configured or (known[0] if known else 0.0)


def flops_per_token(model: ModelConfig, data: DataConfig, *, predicted: float | None = None) -> dict[str, float]:
    """Model FLOPs of forward and backward for one real token of a full row, by part and in total.

    Three times the forward pass, two FLOPs a multiply-add, matrix products only: encoder, attention scores and values
    over the row (no causal halving), and the MLM head at the predicted slots, or at the share `predicted` of the
    tokens. Recomputation, padding, look-ups and the pooler (one per row) are not counted. Sharing saves parameters, not
    FLOPs.
    """
    H, F, L, V, E = model.hidden_size, model.ffn_size, model.num_layers, model.vocab_size, model.embedding_size
    if predicted is None:
        rate = data.mask_count * data.packing / data.seq_len if data.mask_count else data.mask_rate
        predicted = min(rate, data.max_predictions / data.seq_len)
    parts = {
        "encoder": 6.0 * L * (4 * H * H + 2 * H * F),
        "attention": 12.0 * L * H * data.seq_len,
        "mlm_head": 6.0 * predicted * (H * E + E * V),
        "embedding_projection": 6.0 * E * H if E != H else 0.0,
    }
    return parts | {"total": sum(parts.values())}


def step_flops_per_token(config: Config, teacher: ModelConfig | None) -> float:
    """Of a training step for one real token: `flops_per_token`, and the forward pass of a teacher if there is one."""
    own = flops_per_token(config.model, config.data)["total"]
    if teacher is None:
        return own
    words = config.objective.soft > 0.0 or config.objective.logit_mse > 0.0
    if not words or config.teacher.tokens == "masked":
        return own + flops_per_token(teacher, config.data, predicted=None if words else 0.0)["total"] / 3.0
    # The student's logits of all tokens come beside those of the predicted slots.
    again = flops_per_token(config.model, config.data, predicted=1.0)["mlm_head"]
    return own + again + flops_per_token(teacher, config.data, predicted=1.0)["total"] / 3.0


class Writer:
    """Appends metrics to WORKDIR/metrics.jsonl, one object a line, and to TensorBoard if `run.tensorboard` is set."""

    def __init__(self, workdir: Path, config: Config, *, start_step: int) -> None:
        """Lines after `start_step` are from a run that was cut off, and will be written again: drop them."""
        path = workdir / METRICS
        kept = [line for line in read(path) if line["step"] <= start_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)
        self._file = path.open("a", buffering=1)
        self._board = _tensorboard(workdir, start_step) if config.run.tensorboard else None

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Record `values` at `step`; None stands for a value that this device cannot give."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
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
    """The complete lines of a metrics file; a line cut short by a crash is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def check_tensorboard(config: Config) -> None:
    """Raise ConfigError if TensorBoard is asked for and not installed."""
    if config.run.tensorboard:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ConfigError("run.tensorboard = True: needs the extra, `pip install 'bertjax[tb]'`") from error


def _tensorboard(workdir: Path, start_step: int) -> Any:
    from tensorboardX import SummaryWriter  # optional: the [tb] extra

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)


class Throughput:
    """Real tokens, slots and waiting time between two log lines, by a clock that never goes back."""

    def __init__(self, *, flops: float, peak: float, devices: int) -> None:
        self._flops, self._peak = flops, peak * devices * 1e12
        self.restart()

    def restart(self) -> None:
        """Forget what was counted; time runs from here."""
        self._start, self._tokens, self._slots, self._wait, self._steps = time.monotonic(), 0, 0, 0.0, 0

    def add(self, *, tokens: int, slots: int, wait: float) -> None:
        """Count one step: real tokens, slots of its rows, and seconds that the loop waited for its batch."""
        self._tokens += tokens
        self._slots += slots
        self._wait += wait
        self._steps += 1

    def take(self) -> dict[str, float | None]:
        """Rates since the last call. MFU counts real tokens; None where the peak of the device is not known.

        All are None if no step has been counted, as when the only one was that which compiled.
        """
        seconds = max(time.monotonic() - self._start, 1e-9) if self._steps else math.nan
        rate = self._tokens / seconds
        values: dict[str, float | None] = {
            "tokens_per_second": rate,
            "slots_per_second": self._slots / seconds,
            "steps_per_second": self._steps / seconds,
            "mfu": rate * self._flops / self._peak if self._peak else math.nan,
            "data_wait": self._wait / seconds,
        }
        values = {name: None if value is None or math.isnan(value) else value for name, value in values.items()}
        self.restart()
        return values


class Progress:
    """A bar on a terminal, plain lines elsewhere; both on standard error, which leaves standard output to results."""

    def __init__(self, total: int, *, start: int = 0, unit: str, label: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total or None, initial=start, unit=unit, desc=label, disable=not sys.stderr.isatty())

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        self._bar.update(count)

    def reach(self, count: int) -> None:
        """Move the bar to `count`."""
        self._bar.update(count - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._bar.clear()
        print(text, file=sys.stderr, flush=True)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def describe(step: int, total: int, values: dict[str, float | None]) -> str:
    """One line for a person: the step, losses, accuracies, rates."""
    shown = {k: v for k, v in values.items() if v is not None and k not in ("slots_per_second", "steps_per_second")}
    return f"step {step}/{total}  " + "  ".join(f"{name} {_short(value)}" for name, value in shown.items())


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def plot(workdir: Path, *, unigram_loss: float) -> Path:
    """Draw loss and accuracy over the steps, training and held-out, into WORKDIR/curves.png."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    lines = read(workdir / METRICS)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axis, kind in ((loss, "loss"), (accuracy, "accuracy")):
        for colour, term in (("tab:blue", "mlm"), ("tab:orange", "pair")):
            name = f"{term}_{kind}"
            train = [(x["step"], x[name]) for x in lines if name in x]
            held_out = [(x["step"], x[f"eval_{name}"]) for x in lines if f"eval_{name}" in x]
            if train:
                axis.plot(*zip(*train, strict=True), color=colour, alpha=0.4, linewidth=1, label=f"{term}, training")
            if held_out:
                axis.plot(*zip(*held_out, strict=True), color=colour, marker="o", label=f"{term}, held-out")
        axis.set(xlabel="step", ylabel=kind, title=f"{kind} by step")
        axis.grid(alpha=0.3)
    loss.axhline(unigram_loss, color="grey", linestyle="--", linewidth=1, label="mlm by word frequency alone")
    loss.legend()
    accuracy.set_ylim(0, 1)
    accuracy.legend()
    temporary = workdir / f".{CURVES}"
    figure.savefig(temporary, dpi=110, format="png")
    return temporary.replace(workdir / CURVES)
