"""The learning curves of a run as a picture."""

import io
import math
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.train import metrics

CURVES = "curves.png"
KINDS = ("loss", "accuracy")
DEV = "dev_"
"""What the metrics of an evaluation on labels begin with: they are named by themselves, not by a term."""
ERRORS = ("loss", "mse")
"""Those of them that are better where they are less."""


def plot(workdir: Path, *, chosen: str = "") -> Path:
    """Draw the losses and accuracies of every term by step, training and held-out, into WORKDIR/curves.png.

    A held-out loss that is not trained on, such as that by word frequency alone, is a level to compare with: dashed.
    Where a phase begins, there is a line. Metrics whose names begin with "dev_" stand beside them; where the largest
    `chosen` is, the best step, is marked.
    """
    from matplotlib.figure import Figure  # here: it takes half a second to import

    lines = metrics.read(workdir / metrics.METRICS)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    dev = [name for name in dict.fromkeys(name for line in lines for name in line) if name.startswith(DEV)]
    for kind, axis in zip(KINDS, figure.subplots(1, 2), strict=True):
        for colour, term in enumerate(terms_of(lines)):
            training, held_out = (_points(lines, name) for name in (f"{term}_{kind}", f"eval_{term}_{kind}"))
            if training:
                axis.plot(*zip(*training, strict=True), f"C{colour}", alpha=0.4, linewidth=1, label=f"{term}, training")
            if held_out:
                form = f"C{colour}o-" if training else "k:"
                axis.plot(*zip(*held_out, strict=True), form, label=f"{term}, held-out")
        for step, number in _points(lines, "phase"):
            axis.axvline(step, color="0.5", linewidth=1, label=f"phase {number} begins")
        axis.set(xlabel="step", ylabel=kind, title=f"{kind} by step")
        axis.grid(alpha=0.3)
    errors, shares = figure.axes
    for axis, of_errors in ((errors, True), (shares, False)):
        names = [name for name in dev if (name.removeprefix(DEV) in ERRORS) == of_errors]
        for colour, name in enumerate(names):
            axis.plot(*zip(*_points(lines, name), strict=True), f"C{colour}o-", label=name.replace("_", " "))
        if axis.lines:
            _mark_best(axis, _points(lines, chosen), shown=chosen in names)
            axis.legend()
    least = min((value for name in dev for _, value in _points(lines, name)), default=0.0)
    shares.set_ylim(min(0.0, math.floor(10 * least) / 10), 1)
    if dev:
        shares.set(ylabel="metric", title="metrics by step")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    storage.write(workdir / CURVES, picture.getvalue())
    return workdir / CURVES


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[int, Any]]:
    """Steps and values."""
    return [(line["step"], line[name]) for line in lines if line.get(name) is not None]


def _mark_best(axis: Any, points: list[tuple[int, float]], *, shown: bool) -> None:
    if points:
        step, value = max(points, key=lambda point: (point[1], -point[0]))  # the first of those that are as good
        label = f"best: {value:.4g} at step {step:,}" if shown else None
        axis.axvline(step, color="k", linestyle=":", linewidth=1, label=label)


def terms_of(lines: list[dict[str, Any]]) -> list[str]:
    """The terms whose losses stand in lines of metrics, in the order in which they first do."""
    found = [name for line in lines for name in line if "_loss" in name and not name.startswith(DEV)]
    return list(dict.fromkeys(name.removeprefix("eval_").removesuffix("_loss") for name in found))
