"""Standard error, where a command tells how it goes. A command outlives it: what cannot be written is dropped.

The reader of `2>&1 | head -3` has left, the disk under a log is full, the terminal is gone: no reason to lose work.
"""

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def say(text: str) -> None:
    """Print a line on standard error, if that can be done and this process has not been muted."""
    if not stderr.muted:
        stderr.write(f"{text}\n")
        stderr.flush()


def say_last(text: str) -> None:
    """The same of a line that ends the process: muted ones say it too."""
    stderr.write(f"{text}\n")
    stderr.flush()


def mute() -> None:
    """From now on only what ends this process is said: of several processes of a run, one tells how it goes."""
    stderr.muted = True


def attach() -> None:
    """Give a process that was started without a standard error (`2>&-`) one that goes nowhere.

    Otherwise the next file that is opened, a log or a lock, gets its number, and what libraries write there.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # open to the end


class _StandardError:
    """`sys.stderr`, whatever it is at the time, without its errors: a file for `say` and for tqdm."""

    muted = False

    def write(self, text: str) -> None:
        with _dropping():
            sys.stderr.write(text)

    def flush(self) -> None:
        with _dropping():
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


stderr: Any = _StandardError()


@contextlib.contextmanager
def _dropping() -> Iterator[None]:
    try:
        yield
    except OSError:
        atexit.unregister(_let_go)
        atexit.register(_let_go)


def _let_go() -> None:
    """What is left in the buffer at the end: written if that can be done by now, else thrown away.

    Python would try once more, and exit with a code of its own.
    """
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
