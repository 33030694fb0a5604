"""The bar: on a terminal, and plain lines elsewhere."""

from bertjax import console


class Progress:
    """A bar on a terminal, plain lines elsewhere; both on standard error, which leaves standard output to results."""

    def __init__(self, total: int, *, start: int = 0, unit: str, label: str) -> None:
        from tqdm import tqdm  # here, so that `bertjax --help` need not import it

        self._bar = tqdm(
            total=total or None,
            initial=start,
            unit=unit,
            desc=label,
            disable=not console.stderr.isatty(),
            file=console.stderr,
            dynamic_ncols=True,  # as wide as the terminal, which tqdm does not ask of a file that it does not know
        )

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        self._bar.update(count)

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
