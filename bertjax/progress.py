"""The bar: on a terminal, and plain lines elsewhere; and how long what is left will take."""

import time

from bertjax import console


class Progress:
    """A bar on a terminal, plain lines elsewhere; both on standard error, which leaves standard output to results."""

    def __init__(self, total: int, *, start: int = 0, unit: str, label: str) -> None:
        from tqdm import tqdm  # here, so that `bertjax --help` need not import it

        self._total, self._end, self._done = total, float(total), start
        self._since: tuple[float, int] | None = None
        self._bar = tqdm(
            total=total or None,
            initial=start,
            unit=unit,
            desc=label,
            disable=console.stderr.muted or not console.stderr.isatty(),
            file=console.stderr,
            dynamic_ncols=True,  # as wide as the terminal, which tqdm does not ask of a file that it does not know
        )

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        self._done += count
        self._since = self._since or (time.monotonic(), self._done)
        self._bar.update(count)

    def pace(self, end: int, more: float) -> None:
        """From here to unit `end` they take a time of their own each; what comes then, as long as `more` of them."""
        self._since, self._end = None, end + more

    @property
    def rest(self) -> float:
        """What is left, in units of the present pace."""
        return self._end - self._done

    def left(self) -> str:
        """How long the rest takes, at the pace since the first advance, which is often slower than all others; "" where
        that is not known yet, and on a terminal, where the bar tells, unless the pace is to change.
        """
        if self._since is None or not (self._bar.disable or self._end != self._total):
            return ""
        start, first = self._since
        counted = self._done - first
        return f"{duration((time.monotonic() - start) / counted * self.rest)} left" if counted else ""

    def reach(self, count: int) -> None:
        """Move the bar to `count`."""
        self._bar.update(count - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._bar.clear()
        console.say(text)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def duration(seconds: float) -> str:
    """A time for a person, in its two largest units: "12 s", "3 min 20 s", "5 h 2 min", "12 d 4 h"."""
    for large, small, size in (("d", "h", 3600), ("h", "min", 60), ("min", "s", 1)):
        ratio = 24 if large == "d" else 60
        many, rest = divmod(round(seconds / size), ratio)
        if many:
            return f"{many:,} {large} {rest} {small}" if rest else f"{many:,} {large}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
