"""Files and TFDS splits to records."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

from bertjax import console
from bertjax.config.task_fields import TaskConfig
from bertjax.corpus import opening
from bertjax.errors import ConfigError, DataError
from bertjax.labelled import conll, fields, squad, tables
from bertjax.labelled.records import Record
from bertjax.storage import user_path

_FORMATS = {
    "classify": ("table", "jsonl"),
    "regress": ("table", "jsonl"),
    "choice": ("table", "jsonl"),
    "tag": ("conll", "jsonl"),
    "span": ("squad", "jsonl"),
}
"""Those that a kind of task can be read from, the usual one first."""


def read(task: TaskConfig, sources: Sequence[str], *, labelled: bool = True) -> list[Record]:
    """The examples of files and of `tfds:NAME[SPLIT]`, in their order.

    With `labelled` each has what is to be learnt; without, as for a test set, it may lack it. What is odd and read all
    the same is said on standard error. Raises DataError with the file and the line, or ConfigError for a field of the
    task that does not go with the file.
    """
    setting = next(
        (f"task.{name}" for name in ("train", "dev", "test") if getattr(task, name) == sources), "task.train"
    )
    records: list[Record] = []
    for entry in sources:
        if entry.startswith("tfds:"):
            found = _tfds(entry, task, setting, labelled)
        else:
            found = _file(str(user_path(entry)), task, labelled)
        _say_empty(found)
        records += found
    if not records:
        raise DataError(f"{setting} = {tuple(sources)}: has no examples; name a file with some")
    return records


def digest(records: Iterable[Record]) -> str:
    """SHA-256 in hex of what records hold, wherever they are from."""
    hashed = hashlib.sha256()
    for r in records:
        answers = None if r.answers is None else [(answer.start, answer.text) for answer in r.answers]
        line = json.dumps([r.texts, r.label, r.tags, answers, r.name], allow_nan=False)
        hashed.update(line.encode() + b"\n")
    return hashed.hexdigest()


def _file(path: str, task: TaskConfig, labelled: bool) -> list[Record]:
    form = _format(path, task)
    if form == "squad":
        return list(squad.records(path, labelled=labelled))
    if form == "conll":
        return conll.sentences(path, task, labelled=labelled)
    rows = tables.table if form == "table" else tables.json_lines
    found = list(rows(path, task, labelled=labelled))
    return conll.normalised(path, found) if task.kind == "tag" else found


def _format(path: str, task: TaskConfig) -> str:
    possible = _FORMATS[task.kind]
    if task.format != "auto":
        if task.format not in possible:
            choices = " or ".join(possible)
            raise ConfigError(f"task.format = {task.format!r}: {task.kind} is read from {choices}; name one of these")
        return task.format
    for ending in opening.COMPRESSED:
        path = path.removesuffix(ending)
    lines = (".jsonl", ".ndjson") if task.kind == "span" else (".jsonl", ".ndjson", ".json")
    return "jsonl" if path.endswith(lines) else possible[0]


def _tfds(entry: str, task: TaskConfig, setting: str, labelled: bool) -> list[Record]:
    from bertjax.corpus import tables as prepared  # here: the packages that read it take a second to import

    path = prepared.tfds_path(entry, "", setting=setting)
    columns = prepared.tfds_columns(path)
    for name, column in fields.needed(task, labelled=labelled):
        if column not in columns:
            raise fields.missing(name, column, entry, columns)
    rows: Iterator = prepared.tfds_values(path)
    found = [fields.record(place, task, values, labelled=labelled) for place, values in rows]
    return conll.normalised(entry, found) if task.kind == "tag" else found


def _say_empty(records: list[Record]) -> None:
    empty = [record for record in records if not all(map(str.strip, record.texts))]
    if empty:
        more = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        console.say(f"{empty[0].place}{more}: an empty text")
