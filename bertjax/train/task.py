"""What a run is for, as a value: the engine in this room trains whatever it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bertjax.train.checkpoint import Identity
from bertjax.train.objective import Terms
from bertjax.train.state import Init
from bertjax.train.step import Forward


@dataclass(frozen=True)
class Evaluation:
    """A function of the parameters that gives numbers, and how often: every so many steps (0 = never but at the end,
    where what was not measured at the last step is measured of the model that the run leaves).

    Its numbers stand in metrics.jsonl as NAME_KEY.
    """

    name: str
    every: int
    function: Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """Pretraining, distillation and fine-tuning are values of this."""

    init: Init
    forward: Forward
    terms: Terms
    batches: Callable[[int], Any]  # from this row of the run on: an endless iterator of host batches, to be closed
    evaluations: tuple[Evaluation, ...]
    identity: Identity
    flops_per_token: float  # of a step, for MFU
    selects: tuple[str, str] | None = None
    """Name of an evaluation, and a key of what it gives: by the largest value of it the weights of a run are selected
    (`task.select`), and without a larger one a run ends before its time (`task.patience`).
    """
