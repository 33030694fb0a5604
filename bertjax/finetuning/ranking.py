"""What the runs of a sweep say together: which rate and length is best, as numbers, a table and a picture."""

import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bertjax.errors import NumericError


@dataclass(frozen=True)
class Result:
    """What came of a run: the weights of step `step` of its `steps` have this value of the metric, and these metrics of
    every evaluation. It took `seconds` from step `began` on.
    """

    name: str
    lr: float
    epochs: float
    seed: int
    steps: int
    step: int
    value: float | None  # None = it diverged, for the reason `failed`
    metrics: dict[str, float]
    began: int
    seconds: float
    failed: str = ""


@dataclass(frozen=True)
class Combination:
    """What the runs of one rate and length say together. Of those that diverged, nothing is known but how many."""

    lr: float
    epochs: float
    runs: int
    diverged: int
    median: float | None  # None = half of them or more diverged
    least: float | None
    most: float | None
    spread: float | None  # standard deviation; None of fewer than two


@dataclass(frozen=True)
class Results:
    """Of a sweep by this metric, as metrics.jsonl names it; larger is better."""

    metric: str
    points: tuple[Result, ...]
    combinations: tuple[Combination, ...]
    best: Combination
    winner: Result  # of the best combination, the best; its weights are the model

    def table(self) -> str:
        """A line for each combination, for a person; the best has a star."""
        lines = [f"{self.metric}\n  {'lr':>8} {'epochs':>7} {'median':>8} {'least':>8} {'most':>8} {'std':>8}  runs"]
        for one in self.combinations:
            numbers = " ".join(f"{shown(x):>8}" for x in (one.median, one.least, one.most, one.spread))
            lost = f", {one.diverged} diverged" if one.diverged else ""
            star = "*" if one is self.best else " "
            lines.append(f"{star} {one.lr:>8.3g} {one.epochs:>7g} {numbers}  {one.runs}{lost}")
        best = self.winner
        lines.append(f"the model is {best.name}, step {best.step} of {best.steps}: {self.metric} {shown(best.value)}")
        return "\n".join(lines)


def combined(found: Sequence[Result]) -> dict[tuple[float, float], list[Result]]:
    """The runs of each rate and length, in the order in which they come."""
    together: dict[tuple[float, float], list[Result]] = {}
    for one in found:
        together.setdefault((one.lr, one.epochs), []).append(one)
    return together


def winner(runs: Sequence[Result]) -> Result:
    """The best of them, the first of equal ones."""
    return max(runs, key=lambda one: -math.inf if one.value is None else one.value)


def judged(metric: str, found: Sequence[Result]) -> Results:
    """The best combination is that with the best median. Raises NumericError if all runs have diverged."""
    if all(one.value is None for one in found):
        raise NumericError(f"every run of the sweep has diverged, the first one thus: {found[0].failed}")
    together = combined(found)
    combinations = tuple(_combination(*key, runs) for key, runs in together.items())
    best = max(combinations, key=lambda one: tuple(-math.inf if x is None else x for x in (one.median, one.most)))
    return Results(metric, tuple(found), combinations, best, winner(together[best.lr, best.epochs]))


def _combination(lr: float, epochs: float, runs: Sequence[Result]) -> Combination:
    values = [one.value for one in runs if one.value is not None]
    lost = len(runs) - len(values)
    median = statistics.median([*values, *[-math.inf] * lost])
    return Combination(
        lr,
        epochs,
        runs=len(runs),
        diverged=lost,
        median=median if math.isfinite(median) else None,
        least=min(values, default=None),
        most=max(values, default=None),
        spread=statistics.stdev(values) if len(values) > 1 else None,
    )


def picture(results: Results) -> bytes:
    """The metric by rate: a dot for each run, a line through the medians of each length."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for colour, epochs in enumerate(dict.fromkeys(one.epochs for one in results.combinations)):
        runs = [one for one in results.points if one.epochs == epochs]
        together = sorted((one for one in results.combinations if one.epochs == epochs), key=lambda one: one.lr)
        axis.plot([one.lr for one in runs], [_or_gap(one.value) for one in runs], f"C{colour}o", alpha=0.5)
        medians = [_or_gap(one.median) for one in together]
        axis.plot([one.lr for one in together], medians, f"C{colour}_-", label=f"{epochs:g} epochs, median")
    if len({one.lr for one in results.combinations}) > 1 and all(one.lr > 0.0 for one in results.combinations):
        axis.set_xscale("log")
    axis.set(xlabel="optim.lr", ylabel=results.metric, title=f"{results.metric} by rate, a dot for each seed")
    axis.grid(alpha=0.3)
    axis.legend()
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    return content.getvalue()


def _or_gap(value: float | None) -> float:
    return math.nan if value is None else value


def shown(value: float | None) -> str:
    """A value of the metric for a person."""
    return "-" if value is None else f"{value:.4f}"
