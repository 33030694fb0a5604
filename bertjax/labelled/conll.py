"""Words and tags, a word a line and a blank line between sentences: CoNLL, WNUT, WikiANN."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bertjax import console
from bertjax.config.task_fields import TaskConfig
from bertjax.errors import DataError
from bertjax.labelled import source
from bertjax.labelled.labels import bio, is_chunks
from bertjax.labelled.records import Record
from bertjax.labelled.source import Notes

_DOCUMENT = "-DOCSTART-"
_LANGUAGE = re.compile(r"[a-z]{2,12}(-[a-z]+)*:")


def sentences(path: str, task: TaskConfig, *, labelled: bool) -> list[Record]:
    """The sentences of a file, with their tags as IOB2.

    `task.text` and `task.label` count where they are numbers of columns; else the word is in the first and the tag in
    the last. Columns are between tabs, or else between spaces. What WikiANN writes before each word ("en:") is taken
    away where all words have it. Raises DataError, with the line, for a word without a tag and for tags of no scheme.
    """
    notes = Notes(path)
    found = [_record(path, task, rows, labelled) for rows in _sentences(path, notes)]
    if not found:
        raise DataError(f"{path}: has no words; name a file with a word and its tag on each line")
    notes.say()
    return normalised(path, _without_language(path, found))


@dataclass(frozen=True)
class _Row:
    number: int
    cells: list[str]


def _sentences(path: str, notes: Notes) -> Iterator[list[_Row]]:
    rows: list[_Row] = []
    width = 0
    for number, line in source.text_lines(path, notes):
        if not line.strip():
            if rows:
                yield rows
            rows = []
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        if cells[0] == _DOCUMENT:
            continue
        width = width or len(cells)
        if len(cells) != width:
            fix = "give each word the same ones, and take out comments"
            raise DataError(f"{path}: line {number}: has {len(cells)} columns where others have {width}; {fix}")
        rows.append(_Row(number, cells))
    if rows:
        yield rows


def _record(path: str, task: TaskConfig, rows: list[_Row], labelled: bool) -> Record:
    width = len(rows[0].cells)
    word_at = int(task.text) if task.text.isdecimal() else 1
    tag_at = int(task.label) if task.label.isdecimal() else width
    tagged = labelled or (tag_at <= width and tag_at != word_at)
    words, tags = [], []
    for row in rows:
        place = f"{path}: line {row.number}"
        if word_at > width or word_at < 1:
            raise DataError(f"{place}: has no column {word_at} with a word (task.text); it has {width}")
        word = source.text(place, "the word", row.cells[word_at - 1]).strip()
        if not word:
            raise DataError(f"{place}: the word is missing before its tag; take out the line, or write the word")
        words.append(word)
        if not tagged:
            continue
        if tag_at > width or tag_at == word_at or not row.cells[tag_at - 1].strip():
            raise DataError(f"{place}: the word {word!r:.40} has no tag; write it behind a tab or a space")
        tags.append(row.cells[tag_at - 1].strip())
    return Record(f"{path}: line {rows[0].number}", tuple(words), tags=tuple(tags) if tagged else None)


def _without_language(path: str, records: list[Record]) -> list[Record]:
    match = _LANGUAGE.match(records[0].texts[0])
    mark = match[0] if match else ""
    if not mark or not all(word.startswith(mark) and word != mark for record in records for word in record.texts):
        return records
    console.say(f"{path}: all words begin with {mark!r}, as WikiANN writes their language; it is taken away")
    return [replace(r, texts=tuple(word.removeprefix(mark) for word in r.texts)) for r in records]


def normalised(path: str, records: list[Record]) -> list[Record]:
    """The records with tags as IOB2, which is said where they were not; tags that are no chunks as they are.

    Raises DataError for a file in which some are and some are not.
    """
    if not is_chunks(tag for record in records for tag in record.tags or ()):
        return records
    result, changed = [], 0
    for record in records:
        try:
            tags = None if record.tags is None else bio(record.tags)
        except ValueError as error:
            at = (record.tags or ()).index(str(error))
            problem = f"the tag {str(error)!r:.40} of word {at + 1} is neither O nor of the form B-X or I-X"
            raise DataError(f"{record.place}: {problem}, as others are; correct it") from None
        changed += tags != record.tags
        result.append(replace(record, tags=tags))
    if changed:
        console.say(f"{path}: the tags of {changed:,} sentences are not IOB2 and are read as such")
    return result
