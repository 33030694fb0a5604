"""The training loop, on one page."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from bertjax.config.schema import RunConfig
from bertjax.train.recorder import Recorder
from bertjax.train.signals import Stopped
from bertjax.train.state import TrainState
from bertjax.train.task import Evaluation

Batch = dict[str, np.ndarray]
T = TypeVar("T")


class Stop(Protocol):
    """Whether the run is asked to stop; see `signals.noted`."""

    asked: str

    def wait(self, get: Callable[[], T]) -> T:
        """What `get()` gives. Raises Stopped in its place if the run is asked to stop."""


def run(
    run: RunConfig,
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    batches: Iterator[Batch],
    put: Callable[[Batch], Any],
    evaluations: tuple[Evaluation, ...],
    recorder: Recorder,
    save: Callable[[int, TrainState], None],
    stop: Stop,
) -> bool:
    """Train from `state` to `run.steps`; False if it was asked to stop before the end. Either way the state is saved.

    `put` takes a host batch to the devices. Raises NumericError where a loss or an evaluation is no longer a number;
    and whatever `batches` raises, when the state of the step before is saved.
    """
    saved = int(state.step)
    for step in range(saved + 1, run.steps + 1):
        try:
            batch, waited = _timed(batches, stop)
        except Exception as error:
            # What was learnt until here is not lost with a batch that does not come.
            if saved < step - 1:
                recorder.flush()
                save(step - 1, state)
            if isinstance(error, Stopped):
                return False
            raise
        state, values = train_step(state, put(batch))
        recorder.add(step, values, batch, waited)
        last, stopping = step == run.steps, bool(stop.asked)
        # Evaluated before the save of the same step: what is saved has all its metrics on disk.
        for evaluation in evaluations:
            if last or _due(step, evaluation.every):
                recorder.flush()
                recorder.evaluated(step, evaluation.name, evaluation.function(state.trained))
        if last or stopping or _due(step, run.save_every):
            recorder.flush()
            save(step, state)
            saved = step
        if stopping and not last:
            return False
    return True


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _timed(batches: Iterator[Batch], stop: Stop) -> tuple[Batch, float]:
    start = time.monotonic()
    batch = stop.wait(lambda: next(batches))
    return batch, time.monotonic() - start
