"""How fast a run is, between two lines of its log."""

import math
import time


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
