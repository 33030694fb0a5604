"""Signals that ask a run to stop."""

import signal
from collections.abc import Callable
from typing import Any


class noted:
    """While entered, SIGTERM, Ctrl-C and a terminal that is closed only note that the run should save and stop.

    A second Ctrl-C interrupts. A hangup that is ignored, as under nohup, stays so.
    """

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return lambda: self._asked

    def _note(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
