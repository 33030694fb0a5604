"""A record from the values of a row, whatever file the row is of."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import ConfigError, DataError, printable
from bertjax.labelled import labels, source, squad
from bertjax.labelled.records import Record

SPAN_COLUMNS = ("question", "context")
"""Of rows with questions; besides there may be answers, is_impossible and id."""


def needed(task: TaskConfig, *, labelled: bool) -> Iterator[tuple[str, str]]:
    """(field of the task, column) of each column that a row must have."""
    if task.kind == "span":
        yield from (("task.kind = 'span'", column) for column in SPAN_COLUMNS)
        return
    yield "task.text", task.text
    if task.pair:
        yield "task.pair", task.pair
    yield from (("task.endings", column) for column in task.endings)
    if labelled:
        yield "task.label", task.label


def missing(setting: str, column: str, where: str, columns: Sequence[str]) -> ConfigError:
    """The error for a column that the first row of a file does not have."""
    near = difflib.get_close_matches(column, columns, n=1)
    fix = f"the nearest is {near[0]!r}" if near else f"set {setting} to one of them"
    shown = ", ".join(f"{name:.40}" for name in columns[: labels.SHOWN])
    setting = f"{setting} = {column!r}" if "=" not in setting else f"{setting}: {column!r}"
    return ConfigError(f"{setting}: {where} has no such column; it has {printable(shown)}; {fix}")


def record(place: str, task: TaskConfig, values: Mapping[str, Any], *, labelled: bool) -> Record:
    """The record of a row whose values have the names of the columns of `task`.

    The label may be missing, empty or null where it need not be `labelled`. Raises DataError for values that are not
    what they should be.
    """
    if task.kind == "span":
        return squad.record(place, values, labelled=labelled)
    if task.kind == "tag":
        return _tagged(place, task, values, labelled=labelled)
    columns = (task.text, *((task.pair,) if task.pair else ()), *task.endings)
    texts = tuple(source.text(place, f"column {column!r}", values.get(column)) for column in columns)
    label = _label(place, task, values.get(task.label))
    if label is None and labelled:
        raise DataError(f"{place}: has no label in column {task.label!r} (task.label); add it, or take out the row")
    if label is not None:
        _check_label(place, task, label)
    return Record(place, texts, label=label)


def _tagged(place: str, task: TaskConfig, values: Mapping[str, Any], *, labelled: bool) -> Record:
    words, tags = values.get(task.text), values.get(task.label)
    if not isinstance(words, list) or not words:
        raise DataError(f"{place}: column {task.text!r} is {words!r:.40} and no list of words; write [..., ...]")
    found = tuple(source.text(place, f"a word of {task.text!r}", word) for word in words)
    if not all(map(str.strip, found)):
        raise DataError(f"{place}: a word of {task.text!r} is empty; take it out with its tag")
    if tags is None and not labelled:
        return Record(place, found)
    if not isinstance(tags, list) or len(tags) != len(words):
        what = f"{len(tags)} tags" if isinstance(tags, list) else f"{tags!r:.40}"
        raise DataError(f"{place}: {len(words)} words and {what} in column {task.label!r}; give each word its tag")
    return Record(place, found, tags=tuple(source.text(place, f"a tag of {task.label!r}", tag) for tag in tags))


def _label(place: str, task: TaskConfig, value: Any) -> str | None:
    if value is None or value != value:  # NaN, as pandas writes what is missing
        return None
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, list | dict):
        raise DataError(f"{place}: the label in column {task.label!r} is {value!r:.40}; write one text or number")
    label = source.text(place, f"column {task.label!r}", str(value)).strip()
    if task.separator:
        label = label.partition(task.separator)[0].strip()
    return label or None


def _check_label(place: str, task: TaskConfig, label: str) -> None:
    if task.kind == "regress":
        try:
            number = float(label)
        except ValueError:
            fix = "write it with a point; if this line is a header, set task.header = yes"
            raise DataError(f"{place}: {label!r:.40} in column {task.label!r} is no number; {fix}") from None
        if not math.isfinite(number):
            raise DataError(f"{place}: {label} in column {task.label!r} is no number to learn; take out the row")
    if task.kind == "choice" and not (label.isdecimal() and int(label) < len(task.endings)):
        fix = f"write which ending is right, from 0 to {len(task.endings) - 1}"
        raise DataError(f"{place}: {label!r:.40} in column {task.label!r} is none of the endings; {fix}")
