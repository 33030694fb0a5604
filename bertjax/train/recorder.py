"""Metrics of a run on their way from the device to the log, read one step late, so that the device never waits; and how
fast the run is between two lines of the log.
"""

import math
import time
from typing import Any

import jax
import numpy as np

from bertjax.config.schema import RunConfig
from bertjax.parallel import distributed
from bertjax.progress import Progress, duration
from bertjax.train import guard
from bertjax.train.metrics import Nowhere, Writer, describe

Batch = dict[str, np.ndarray]


class Recorder:
    """Takes the values of each step, and settles them when the next one has been dispatched."""

    def __init__(
        self, run: RunConfig, writer: Writer | Nowhere, progress: Progress, rates: "Rates", skipped: guard.Skipped
    ) -> None:
        """`skipped` is what a run that goes on had skipped before."""
        self._run, self._writer, self._progress, self._rates = run, writer, progress, rates
        self.skipped = skipped
        """Updates that were skipped, of the steps that are settled."""
        self._pending: tuple[int, Any] | None = None
        self._measured: tuple[int, dict[str, float]] = (0, {})
        self._settled = 0
        self._begun = time.monotonic()

    def add(self, step: int, values: Any, batch: Batch, waited: float) -> None:
        """Take the values of `step`, still being computed, and settle those of the step before."""
        self.flush()
        tokens = int(np.count_nonzero(batch["segments"]))
        self._rates.add(tokens=tokens, slots=batch["segments"].size, wait=waited)
        self._pending = (step, values)

    def flush(self) -> None:
        """Settle the pending step: count an update that was skipped, write a line if one is due.

        Raises Diverged after `run.skip_limit` skipped in a row; NumericError where a number of an update that was made
        is none.
        """
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        values: dict[str, float | None] = {**flat(jax.device_get(pending))}
        self.skipped = self.skipped.after(bool(values.pop("skipped")))
        if self.skipped.in_a_row:
            values = self._skipping(step, values)
        guard.check_values(f"step {step}", values)
        self._progress.advance()
        self._settled += 1
        if self._settled == 1:
            self._tell_first(step)
            self._rates.restart()  # the first step compiled
        if step % self._run.log_every == 0 or step == self._run.steps:
            count = {"skipped": self.skipped.in_all} if self.skipped.in_all else {}
            self._write(step, {**values, **count, **self._rates.take()})

    def evaluated(self, step: int, name: str, values: dict[str, float]) -> None:
        """Record what an evaluation gave; the time that it took is left out of the rates."""
        named = {f"{name}_{key}": value for key, value in values.items()}
        self._measured = (step, self.measured(step) | named)
        self._write(step, {**named})
        self._rates.restart()

    def measured(self, step: int) -> dict[str, float]:
        """All that evaluations gave at this step, by the names of metrics.jsonl; of the newest that had any."""
        return self._measured[1] if self._measured[0] == step else {}

    def tell(self, line: str) -> None:
        """Say something of the run, beside its progress."""
        self._progress.say(line)

    def _skipping(self, step: int, values: dict[str, float | None]) -> dict[str, float | None]:
        """Tell that the update of this step was skipped; its values, with None for those that are no numbers."""
        in_a_row, limit = self.skipped.in_a_row, self._run.skip_limit
        reason = f"{guard.not_finite(values)}: no longer a number"
        if in_a_row >= max(limit, 1):
            raise guard.Diverged(step, self.skipped, reason)
        self.tell(f"step {step}: {reason}; the update is skipped, {in_a_row} in a row (run.skip_limit = {limit})")
        return {name: x if x is not None and math.isfinite(x) else None for name, x in values.items()}

    def _write(self, step: int, values: dict[str, float | None]) -> None:
        guard.check_values(f"step {step}", values)
        self._writer.write(step, values)
        self._progress.say("  ".join(filter(None, (describe(step, self._run.steps, values), self._progress.left()))))

    def _tell_first(self, step: int) -> None:
        """It is slower than the others: what it waits for has not been made ahead."""
        took, ahead = time.monotonic() - self._begun, self._run.steps - step
        more = f"; {ahead:,} more, {duration(self._progress.rest * took)} at that pace" if ahead else ""
        self._progress.say(f"first step: {duration(took)}{more}")


class Rates:
    """Real tokens, slots and waiting time between two log lines, by a clock that never goes back."""

    def __init__(self, *, flops: float, peak: float) -> None:
        """`flops` of a real token; `peak` in TFLOP/s of all devices together, 0.0 if it is not known."""
        self._flops, self._peak = flops, peak * 1e12
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
        counted = distributed.total({"tokens": self._tokens, "slots": self._slots})  # each process counts its rows
        rate = counted["tokens"] / seconds
        values: dict[str, float | None] = {
            "tokens_per_second": rate,
            "slots_per_second": counted["slots"] / seconds,
            "steps_per_second": self._steps / seconds,
            "mfu": rate * self._flops / self._peak if self._peak else math.nan,
            "data_wait": self._wait / seconds,
        }
        values = {name: None if value is None or math.isnan(value) else value for name, value in values.items()}
        self.restart()
        return values


def flat(values: dict[str, Any]) -> dict[str, float]:
    """Numbers by term and kind as plain numbers: {"loss": .., "mlm_loss": .., "mlm_accuracy": ..}."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}_{kind}": float(number) for kind, number in value.items()}
        else:
            found[name] = float(value)
    return found
