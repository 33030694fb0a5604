"""The learning curves of a run as a picture."""

import io
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.train import metrics

CURVES = "curves.png"
KINDS = ("loss", "accuracy")


def plot(workdir: Path) -> Path:
    """Draw the losses and accuracies of every term by step, training and held-out, into WORKDIR/curves.png.

    A held-out loss that is not trained on, such as that by word frequency alone, is a level to compare with: dashed.
    """
    from matplotlib.figure import Figure  # here: it takes half a second to import

    lines = metrics.read(workdir / metrics.METRICS)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for kind, axis in zip(KINDS, figure.subplots(1, 2), strict=True):
        for colour, term in enumerate(terms_of(lines)):
            training, held_out = (
                [(line["step"], line[name]) for line in lines if name in line]
                for name in (f"{term}_{kind}", f"eval_{term}_{kind}")
            )
            if training:
                axis.plot(*zip(*training, strict=True), f"C{colour}", alpha=0.4, linewidth=1, label=f"{term}, training")
            if held_out:
                form = f"C{colour}o-" if training else "k:"
                axis.plot(*zip(*held_out, strict=True), form, label=f"{term}, held-out")
        axis.set(xlabel="step", ylabel=kind, title=f"{kind} by step")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    axis.set_ylim(0, 1)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png")
    storage.write(workdir / CURVES, picture.getvalue())
    return workdir / CURVES


def terms_of(lines: list[dict[str, Any]]) -> list[str]:
    """The terms whose losses stand in lines of metrics, in the order in which they first do."""
    names = [name.removeprefix("eval_").removesuffix("_loss") for line in lines for name in line if "_loss" in name]
    return list(dict.fromkeys(names))
