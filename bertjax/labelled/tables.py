"""Tab- and comma-separated files and lines of JSON, by columns."""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from bertjax.config.task_fields import TaskConfig
from bertjax.corpus.opening import COMPRESSED
from bertjax.errors import ConfigError, DataError, one_line
from bertjax.labelled import fields, source
from bertjax.labelled.records import Record
from bertjax.labelled.source import Notes

_DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " "}
_HEADER_ROWS = 20
"""Rows from which on a label that none but the first row has is taken for a header."""

Rows = Iterator[tuple[int, list[str]]]
"""(number of the line at which it begins, its cells) of each row; [] for a blank line."""


def table(path: str, task: TaskConfig, *, labelled: bool) -> Iterator[Record]:
    """The rows of a file. Raises ConfigError for a column that it does not have and DataError, with the line, for a row
    that lacks a cell or is no row.
    """
    notes = Notes(path)
    rows = _rows(path, task, notes)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: has nothing but blank lines; name a file with examples")
    names, is_header = _names(path, task, first[1], labelled)
    place_of = {
        column: _place(path, task, setting, column, names) for setting, column in fields.needed(task, labelled=labelled)
    }
    if not labelled and task.label not in place_of and _known(task.label, names):
        place_of[task.label] = _place(path, task, "task.label", task.label, names)
    width = len(first[1])
    counted: Counter[str | None] = Counter()
    opening = None
    for number, cells in rows if is_header else itertools.chain([first], rows):
        place = f"{path}: line {number}"
        if is_header and len(cells) != width:
            fix = "correct the line, or check task.delimiter and task.quotes"
            raise DataError(f"{place}: has {len(cells)} columns, and the header {width}; {fix}")
        if len(cells) != width:
            notes.add(f"has {len(cells)} columns where line 1 has {width}; they are counted from the left", number)
        values = {column: _cell(place, task, cells, at, column, labelled) for column, at in place_of.items()}
        record = fields.record(place, task, values, labelled=labelled)
        opening = opening or record
        counted[record.label] += 1
        yield record
    if opening is None:
        raise DataError(f"{path}: has a header and no rows; name a file with examples")
    if not is_header and task.header == "auto" and task.kind == "classify":
        _check_no_header(opening, counted)
    notes.say()


def json_lines(path: str, task: TaskConfig, *, labelled: bool) -> Iterator[Record]:
    """The objects of a file, one a line. Raises as `table`."""
    notes = Notes(path)
    first = True
    for number, line in source.text_lines(path, notes):
        if not line.strip():
            notes.add("blank, and left out", number)
            continue
        place = f"{path}: line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: no JSON ({one_line(error)}); correct it, or set task.format") from None
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise DataError(f"{place}: no JSON object but {kind}; write one object a line: {{...}}")
        for setting, column in fields.needed(task, labelled=labelled) if first else ():
            if column not in values:
                raise fields.missing(setting, column, place, list(values))
        first = False
        yield fields.record(place, task, values, labelled=labelled)
    if first:
        raise DataError(f"{path}: has nothing but blank lines; name a file with examples")
    notes.say()


# Rows ---------------------------------------------------------------------------------------------------------------


def _rows(path: str, task: TaskConfig, notes: Notes) -> Rows:
    comma = _plain_name(path).endswith(".csv")
    delimiter = _DELIMITERS[("comma" if comma else "tab") if task.delimiter == "auto" else task.delimiter]
    lines = source.text_lines(path, notes)
    if delimiter == " " and task.quotes == "yes":
        raise ConfigError("task.quotes = 'yes': with task.delimiter = space a line has two columns; set it to no")
    quoted = task.quotes == "yes" or (task.quotes == "auto" and (comma or delimiter in ",;"))
    blank: list[int] = []
    for number, cells in _quoted(path, lines, delimiter) if quoted else _plain(lines, delimiter):
        if not cells:
            blank.append(number)
            continue
        for skipped in blank:  # none at the end, where one more line end is no mistake
            notes.add("blank, and left out", skipped)
        blank.clear()
        yield number, cells


def _plain(lines: Iterator[tuple[int, str]], delimiter: str) -> Rows:
    for number, line in lines:
        yield number, line.split(delimiter, 1 if delimiter == " " else -1) if line.strip() else []


def _quoted(path: str, lines: Iterator[tuple[int, str]], delimiter: str) -> Rows:
    csv.field_size_limit(2 * source.MAX_LINE)  # what is too long is said by `source.text`, with its line
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problem = "a quote is open to the end of the file" if "unexpected end" in str(error) else one_line(error)
            fix = 'write a quote inside of quotes twice (""), or set task.quotes = no'
            raise DataError(f"{path}: line {number}: {problem}; {fix}") from None
        if cells is None:
            return
        yield number, cells


def _plain_name(path: str) -> str:
    """Without the ending of compression."""
    for ending in COMPRESSED:
        path = path.removesuffix(ending)
    return path


# Columns ------------------------------------------------------------------------------------------------------------


def _known(column: str, names: Sequence[str]) -> bool:
    return column in names or column.isdecimal()


def _names(path: str, task: TaskConfig, first: list[str], labelled: bool) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first row is what gives them."""
    cells = [cell.strip() for cell in first]
    asked = [column for _, column in fields.needed(task, labelled=labelled)]
    named = [column for column in asked if not column.isdecimal()]
    if task.header == "yes" or (task.header == "auto" and named and all(column in cells for column in named)):
        return cells, True
    if task.header == "auto" and not task.columns and named:
        setting, column = next(
            pair for pair in fields.needed(task, labelled=labelled) if pair[1] in named and pair[1] not in cells
        )
        error = fields.missing(setting, column, f"{path}: line 1", cells)
        raise ConfigError(f"{error}; if it is no header, name all columns in task.columns")
    return list(task.columns), False


def _place(path: str, task: TaskConfig, setting: str, column: str, names: Sequence[str]) -> int:
    """Which cell of a row is that of a column."""
    if names.count(column) > 1:
        raise ConfigError(
            f"{setting} = {column!r}: {path} has several columns of this name; set it to a number, from 1"
        )
    if column in names:
        return names.index(column)
    if column.isdecimal() and int(column) > 0:
        return int(column) - 1
    if not names:
        fix = "set it to a number, from 1, or name all columns in task.columns"
        raise ConfigError(f"{setting} = {column!r}: {path} is read without a header; {fix}")
    raise fields.missing(setting, column, path if task.header == "yes" else "task.columns", names)


def _cell(place: str, task: TaskConfig, cells: list[str], at: int, column: str, labelled: bool) -> str | None:
    if at < len(cells):
        return cells[at]
    if column == task.label and not labelled:
        return None
    fix = "correct the line, or check the column, task.delimiter and task.quotes"
    raise DataError(f"{place}: has {len(cells)} columns, and {column!r} is column {at + 1}; {fix}")


def _check_no_header(first: Record, counted: Counter[str | None]) -> None:
    if counted.total() >= _HEADER_ROWS and counted[first.label] == 1 and len(counted) < counted.total() / 2:
        what = f"its label {first.label!r:.40} is that of no other row, so it looks like a header"
        raise DataError(f"{first.place}: {what}; set task.header to yes if it is one, else to no")
