"""The training loop, on one page."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from bertjax.config.schema import Config
from bertjax.parallel.watchdog import Watchdog
from bertjax.signals import Stopped
from bertjax.train.recorder import Recorder
from bertjax.train.state import TrainState
from bertjax.train.task import Task

Batch = dict[str, np.ndarray]
T = TypeVar("T")


class Stop(Protocol):
    """Whether the run is asked to stop: `signals.noted`, or of several processes `distributed.Together`."""

    alone: bool

    def stopping(self) -> bool:
        """Whether the run stops after this step. Called once in each."""

    def wait(self, get: Callable[[], T]) -> T:
        """What `get()` gives. Raises Stopped in its place if the run is asked to stop."""


def run(
    config: Config,
    task: Task,
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    batches: Iterator[Batch],
    put: Callable[[Batch], Any],
    recorder: Recorder,
    save: Callable[[int, TrainState], None],
    stop: Stop,
    watchdog: Watchdog,
    *,
    end: int,
) -> TrainState | None:
    """Train from `state` to step `end`, of the run or of a phase of it, or until patience ends. Returns the state then,
    or None if it was asked to stop before the end of the run. Either way it is saved; but a step whose update was
    skipped only where the run ends or stops, since it would push out what there is to go back to.

    `batches` are the rows of this process; `put` takes a host batch to the devices. Raises NumericError where an
    evaluation is no longer a number, Diverged after `run.skip_limit` skipped updates in a row; and whatever `batches`
    raises, when the state of the step before is saved, unless other processes are in the run.
    """
    run = config.run
    saved = int(state.step)
    for step in range(saved + 1, end + 1):
        watchdog.alive(f"step {step}")
        try:
            batch, waited = _timed(batches, stop)
        except Exception as error:
            # What was learnt until here is not lost with a batch that does not come; but for others, which have it.
            if saved < step - 1 and stop.alone:
                recorder.flush()
                save(step - 1, state)
            if isinstance(error, Stopped):
                return None
            raise
        state, values = train_step(state, put(batch))
        recorder.add(step, values, batch, waited)
        stopping = stop.stopping()
        # Evaluated before the save of the same step: what is saved has all its metrics on disk.
        with watchdog.resting():
            state, last = _evaluated(config, task, step, state, recorder)
        if last or stopping or step == end or _due(step, run.save_every):
            recorder.flush()
            if last or stopping or not recorder.skipped.in_a_row:
                watchdog.alive(f"the save of step {step}")
                save(step, state)
                saved = step
        if stopping and not last:
            return None
        if last:
            break
    return state


def ended_early(patience: int, state: TrainState) -> str:
    """Why a run with this `task.patience` ends before its last step, for a person; "" if it does not."""
    if not patience or state.best is None or int(state.best.since) < patience:
        return ""
    best = f"{state.best.number:.4g} of step {int(state.best.step)}"
    return f"no better evaluation than {best} in {int(state.best.since)} (task.patience = {patience})"


def _evaluated(config: Config, task: Task, step: int, state: TrainState, recorder: Recorder) -> tuple[TrainState, bool]:
    """The state after the evaluations of this step, and whether it is the last."""
    name, key = task.selects or ("", "")
    last, reason, measured = step == config.run.steps, "", []
    for evaluation in task.evaluations:
        if _due(step, evaluation.every) or (last and evaluation.name == name):
            recorder.flush()
            values = evaluation.function(state.trained)
            if evaluation.name == name:
                state, best = state.evaluated(values[key])
                values = values | {f"best_{key}": best.number, "best_step": int(best.step)}
                reason = "" if last else ended_early(config.task.patience, state)
            recorder.evaluated(step, evaluation.name, values)
            measured.append(evaluation)
    if reason:
        recorder.tell(f"step {step}: {reason}; the run ends")
    last = last or bool(reason)
    for evaluation in task.evaluations if last else ():
        if evaluation not in measured:
            recorder.flush()
            recorder.evaluated(step, evaluation.name, evaluation.function(state.model))
    return state, last


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _timed(batches: Iterator[Batch], stop: Stop) -> tuple[Batch, float]:
    start = time.monotonic()
    batch = stop.wait(lambda: next(batches))
    return batch, time.monotonic() - start
