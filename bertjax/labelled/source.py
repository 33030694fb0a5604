"""The lines of a file of examples as text, and what was odd in them."""

import codecs
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from bertjax import console
from bertjax.corpus import opening
from bertjax.errors import DataError, one_line

MAX_CHARACTERS = 1_000_000
"""Of a text. Most longer ones are an open quote or a wrong delimiter, and no model reads them to their end."""
MAX_LINE = 16_000_000  # bytes
MAX_FILE = 1 << 30  # bytes of a file that is one JSON value
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class Notes:
    """What is read in spite of being odd, said once for a file: the first place and how many there are."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, list[int]] = {}

    def add(self, problem: str, number: int) -> None:
        """Note it of line `number`."""
        self._found.setdefault(problem, []).append(number)

    def say(self) -> None:
        """Tell the user."""
        for problem, numbers in self._found.items():
            more = f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else ""
            console.say(f"{self._path}: line {numbers[0]}{more}: {problem}")


def text_lines(path: str, notes: Notes) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of each line, unpacked and decoded.

    What is not UTF-8 is read as Windows-1252, of which Latin-1 is a part. Raises DataError for what is no text, is
    empty, or has a line above MAX_LINE.
    """
    check_file(path)
    number = 0
    with opening.opened(path) as file:
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            if len(raw) > MAX_LINE:
                fix = "one example is a line; check that it has line ends and no such texts"
                raise DataError(f"{path}: line {number}: longer than {MAX_LINE:,} bytes; {fix}")
            yield number, _decoded(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number, notes)
    if not number:
        raise DataError(f"{path}: the file is empty; name one with examples")


def check_file(path: str) -> None:
    """Raise DataError for what is no file of text."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: is no regular file; name a file")
    opening.check_text(path, setting="the task")


def json_value(path: str) -> Any:
    """The one JSON value that a file is. Raises DataError with the line at which it is none."""
    check_file(path)
    with opening.opened(path) as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise DataError(f"{path}: more than {MAX_FILE:,} bytes in one JSON value; make several files of it")
    if not raw.strip():
        raise DataError(f"{path}: the file is empty; name one with examples")
    try:
        return json.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not UTF-8, which JSON is; convert the file") from None
    except json.JSONDecodeError as error:
        problem = f"no JSON ({one_line(error.msg)}); copy the file again, or set task.format"
        raise DataError(f"{path}: line {error.lineno}: {problem}") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply for the JSON of SQuAD; set task.format") from None


def text(place: str, name: str, value: Any) -> str:
    """The value of a column, or the word of a list, if it is text. Raises DataError, which says where it is."""
    if not isinstance(value, str):
        raise DataError(f"{place}: {name} is {_shown(value)} and no text; write it in quotes, or name another column")
    if len(value) > MAX_CHARACTERS:
        fix = "cut it, or check task.quotes and task.delimiter"
        raise DataError(f"{place}: {name} has {len(value):,} characters, above {MAX_CHARACTERS:,}; {fix}")
    if odd := _NO_TEXT.search(value):
        raise DataError(f"{place}: {name} has {ascii(odd[0])} in it, which is no character of a text; take it out")
    return value


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.40}"


def _decoded(raw: bytes, number: int, notes: Notes) -> str:
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        line = raw.decode("cp1252", "replace")
        notes.add("not UTF-8, so it is read as Latin-1", number)
    if "\0" in line:
        line = line.replace("\0", "")
        notes.add("has NUL in it, which is left out", number)
    return line.removesuffix("\n").removesuffix("\r")
