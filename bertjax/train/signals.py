"""Signals that ask a run to stop."""

import signal
from collections.abc import Callable
from typing import Any


class noted:
    """While entered, SIGTERM and Ctrl-C only note that the run should save and stop; a second Ctrl-C interrupts."""

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return lambda: self._asked

    def _note(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
