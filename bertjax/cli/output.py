"""Standard output, where the results of commands go, and standard input, where texts come from."""

import json
import sys
from typing import Any

from bertjax.errors import DataError, NumericError


class ReadEnough(Exception):
    """Whoever reads standard output has left, as of `bertjax ... | head`."""


def show(text: str) -> None:
    """A result, to standard output. Raises ReadEnough if nobody reads it any more."""
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise ReadEnough from error


def dumps(values: Any, *, indent: int | None = None) -> str:
    """A result as JSON, which has no NaN. Raises NumericError if there is one."""
    try:
        return json.dumps(values, indent=indent, allow_nan=False)
    except ValueError:
        fix = "use another checkpoint or configuration"
        raise NumericError(f"a value of the result is no longer a number; {fix}") from None


def lines() -> list[str]:
    """The lines of standard input that hold text. Raises DataError for what is not UTF-8."""
    try:
        return [line.strip() for line in sys.stdin if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: is not UTF-8 text ({error.reason}); convert it") from error
