"""What `bertjax predict` asks a model: texts of the command line, or the lines of standard input.

Of standard input no more is read ahead of the answers than a chunk, so it may be of any length.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from bertjax.errors import ConfigError, DataError, one_line

FORMATS = ("auto", "text", "tsv", "jsonl")
_CHUNK, _CHARACTERS = 256, 2**20
"""A chunk ends after so many requests, or with so many characters."""
_LONGEST = 10_000_000  # bytes of a line


@dataclass(frozen=True)
class Form:
    """How a model of one kind (`task.kind`) is asked: the names of what it must be told, as the keys of an object."""

    first: str
    second: str = ""  # "" = there is none
    needed: bool = False  # whether there must be a second
    several: bool = False  # whether the second is a list of texts

    @property
    def told(self) -> str:
        """How to give both."""
        columns = [self.first.upper(), *([self.second.upper()] if self.second else [])] + ["..."] * self.several
        return f'{" TAB ".join(columns)}, or {{"{self.first}": .., "{self.second}": ..}}'


FORMS = {
    "classify": Form("text", "pair"),
    "regress": Form("text", "pair"),
    "tag": Form("text"),
    "span": Form("question", "context", needed=True),
    "choice": Form("text", "endings", needed=True, several=True),
}
_WORDS = "words"
"""Key of a list of words, which a tagger takes in place of a text."""


@dataclass(frozen=True)
class Request:
    """One question to a model."""

    place: str  # as "standard input: line 3"
    first: str | list[str]  # a text, a question, or words
    second: str | list[str] | None = None  # its pair, the context, the endings


def chunks(kind: str, words: list[str], form: str) -> Iterator[list[Request]]:
    """Requests to a model of this `kind`, in chunks: of `words`, or without any, of the lines of standard input that
    hold text. `form` is one of FORMATS; "auto" goes by the first line.

    Raises DataError for a line of another form than the first one, or that lacks what such a model must be told.
    """
    lines = ((f"argument {number}", word) for number, word in enumerate(words, 1)) if words else _standard_input()
    reader: _Reader | None = None
    chunk: list[Request] = []
    characters = 0
    for place, line in lines:
        if not line.strip():
            continue
        reader = reader or _reader_of(kind, form, place, line)
        chunk.append(reader.read(place, line))
        characters += len(line)
        if len(chunk) == _CHUNK or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _standard_input() -> Iterator[tuple[str, str]]:
    """Place and text of each line."""
    for number in count(1):
        place = f"standard input: line {number}"
        line = sys.stdin.buffer.readline(_LONGEST + 1)
        if not line:
            return
        if len(line) > _LONGEST:
            raise DataError(f"{place}: has more than {_LONGEST:,} bytes; cut it")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: is not UTF-8 text ({error.reason}); convert it") from None
        yield place, text


@dataclass(frozen=True)
class _Reader:
    """Reads lines like the first one, of which it knows the form."""

    kind: str
    form: str  # text, tsv or jsonl
    paired: bool  # whether it had a second
    guessed: bool  # whether the form is guessed

    def read(self, place: str, line: str) -> Request:
        """The request in a line. Raises DataError, naming its place."""
        request = {"text": self._text, "tsv": self._columns, "jsonl": self._object}[self.form](place, line)
        if (request.second is not None) != self.paired:
            has, had = ("lacks", "has") if self.paired else ("has", "lacks")
            second = FORMS[self.kind].second
            raise DataError(f'{place}: {has} "{second}", which the first line {had}; ask for both kinds by themselves')
        return request

    def _text(self, place: str, line: str) -> Request:
        if self.guessed and line.lstrip().startswith("{") and isinstance(_parsed(line), dict):
            raise DataError(f"{place}: is a JSON object, and the first line is not; keep to one, or say --format=text")
        if self.guessed and FORMS[self.kind].second and "\t" in line.strip():
            raise DataError(f"{place}: has a TAB, and the first line has none; keep to one form, or say --format=text")
        return Request(place, line.strip())

    def _columns(self, place: str, line: str) -> Request:
        form = FORMS[self.kind]
        first, *rest = line.rstrip("\r\n").split("\t")
        if form.several and len(rest) >= 2:
            return Request(place, first, rest)
        if not form.several and len(rest) == 1:
            return Request(place, first, rest[0])
        wanted, columns = "3 or more" if form.several else "2", "columns" if rest else "column"
        raise DataError(f"{place}: has {1 + len(rest)} {columns}, must have {wanted}: {form.told}")

    def _object(self, place: str, line: str) -> Request:
        values, form = _parsed(line), FORMS[self.kind]
        if not isinstance(values, dict):
            problem = str(values) if isinstance(values, ValueError) else type(values).__name__
            raise DataError(f"{place}: is no JSON object ({one_line(problem)}); give one a line, or say --format=text")
        name = _WORDS if self.kind == "tag" and _WORDS in values else form.first
        second = form.second if form.second in values or form.needed else ""
        return Request(
            place,
            _value(values, name, place, several=name == _WORDS),
            _value(values, second, place, several=form.several) if second else None,
        )


def _reader_of(kind: str, form: str, place: str, line: str) -> _Reader:
    columns = "\t" in line.strip() and FORMS[kind].second != ""
    found = form
    if form == "auto":
        found = "jsonl" if line.lstrip().startswith("{") else "tsv" if columns else "text"
    if found == "text" and FORMS[kind].needed:
        raise DataError(f"{place}: is one text, and this model must be told more; give {FORMS[kind].told}")
    if found == "tsv" and not FORMS[kind].second:
        raise ConfigError("--format=tsv: this model takes one text at a time; leave it, or say --format=text")
    values = _parsed(line) if found == "jsonl" else None
    paired = found == "tsv" or FORMS[kind].needed or (isinstance(values, dict) and FORMS[kind].second in values)
    return _Reader(kind, found, paired, form == "auto")


def _parsed(line: str) -> Any:
    """The value of a line of JSON, or the ValueError that tells why it has none."""
    try:
        return json.loads(line)
    except RecursionError:
        return ValueError("nested too deeply")
    except ValueError as error:
        return error


def _value(values: dict[str, Any], name: str, place: str, *, several: bool) -> Any:
    """Raises DataError for one that is missing, no text, or no list of texts where there are `several`."""
    if name not in values:
        others = ", ".join(f'"{key}"' for key in list(values)[:5])
        raise DataError(f'{place}: lacks "{name}" (has {one_line(others) if values else "nothing"}); add it')
    value = values[name]
    texts = value if several and isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts) or several != isinstance(value, list):
        wanted = "a list of texts" if several else "a text"
        raise DataError(f'{place}: "{name}" = {one_line(repr(value)):.60}: must be {wanted}')
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f'{place}: "{name}" has half a character (\\ud800 to \\udfff); write the whole one')
    return value
