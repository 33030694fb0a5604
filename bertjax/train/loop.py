"""The training loop, on one page."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bertjax.config.schema import RunConfig
from bertjax.train.recorder import Recorder
from bertjax.train.state import TrainState
from bertjax.train.task import Evaluation

Batch = dict[str, np.ndarray]


def run(
    run: RunConfig,
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    batches: Iterator[Batch],
    put: Callable[[Batch], Any],
    evaluations: tuple[Evaluation, ...],
    recorder: Recorder,
    save: Callable[[int, TrainState], None],
    stop_asked: Callable[[], bool],
) -> bool:
    """Train from `state` to `run.steps`; False if it was asked to stop before the end. Either way the state is saved.

    `put` takes a host batch to the devices. Raises NumericError where a loss or an evaluation is no longer a number.
    """
    for step in range(int(state.step) + 1, run.steps + 1):
        batch, waited = _timed(batches)
        state, values = train_step(state, put(batch))
        recorder.add(step, values, batch, waited)
        last, stop = step == run.steps, stop_asked()
        # Evaluated before the save of the same step: what is saved has all its metrics on disk.
        for evaluation in evaluations:
            if last or _due(step, evaluation.every):
                recorder.flush()
                recorder.evaluated(step, evaluation.name, evaluation.function(state.trained))
        if last or stop or _due(step, run.save_every):
            recorder.flush()
            save(step, state)
        if stop and not last:
            return False
    return True


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _timed(batches: Iterator[Batch]) -> tuple[Batch, float]:
    start = time.monotonic()
    batch = next(batches)
    return batch, time.monotonic() - start
