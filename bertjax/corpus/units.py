"""Where text comes from: files, TFDS data sets or the built-in prose, cut into units, as documents of sentences.

A unit is a stretch of the source that one process reads by itself. The documents of all units, one after the other,
are the corpus, whoever reads them and in what order. Reading takes memory for a document, not for a file.
"""

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bertjax.config.schema import DataConfig
from bertjax.corpus import builtin, files, ids, lines, opening, tables
from bertjax.corpus.files import Paragraphs
from bertjax.corpus.lines import MAX_CHARACTERS, Notes
from bertjax.corpus.sentences import split_sentences
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError

UNIT_BYTES = 4_000_000
"""Of text in a unit, roughly; more in a large corpus, so that there are no more than MAX_UNITS."""
MAX_UNITS = 400
"""Roughly the most units of a corpus: each becomes a shard or two, and readers keep all shards open."""
_WHOLE = ("sentences", "lines", "fasta", "ids")
"""The forms in which a paragraph is one sentence, whatever stops are in it."""
_COMPRESSION = 4  # bytes of text in a compressed byte, roughly


@dataclass(frozen=True)
class Part:
    """A stretch of one source. Files that are compressed, UTF-16 or one document are read whole in any case."""

    path: str  # of a file, or "tfds:DIRECTORY[SPLIT]", or "builtin"
    start: int  # bytes of a file, row groups of Parquet, records of TFDS
    end: int


@dataclass(frozen=True)
class Unit:
    """What one process reads by itself."""

    source: int  # index into `data.source`
    parts: tuple[Part, ...]


# Units -------------------------------------------------------------------------------------------------------------


def units(data: DataConfig) -> list[Unit]:
    """The units of the corpus, in a fixed order: entries as named, the files of an entry sorted, nothing twice.

    Reads sizes and metadata only, but prepares a TFDS data set that is not on this machine. Raises DataError for an
    entry that names nothing or cannot be what it says.
    """
    found: list[Unit] = []
    seen: set[str] = set()
    parts = [list(_parts(entry, data, seen)) for entry in data.source]
    enough = max(UNIT_BYTES, sum(size for named in parts for _, size in named) // MAX_UNITS)
    for source, named in enumerate(parts):
        group: list[Part] = []
        size = 0
        for part, part_size in named:
            group.append(part)
            size += part_size
            if size >= enough:
                found.append(Unit(source, tuple(group)))
                group, size = [], 0
        if group:
            found.append(Unit(source, tuple(group)))
    return found


def _parts(entry: str, data: DataConfig, seen: set[str]) -> Iterator[tuple[Part, int]]:
    """Each part of an entry, and roughly how many bytes of text it holds. Adds the paths to `seen`."""
    if data.format == "ids" and (entry == "builtin" or entry.startswith("tfds:")):
        raise DataError(f"data.source = {entry!r}: data.format = ids is read from text, JSONL and Parquet; name files")
    if entry == "builtin":
        paths = [entry]
    elif entry.startswith("tfds:"):
        paths = [tables.tfds_path(entry, data.text_field)]
    else:
        paths = _paths(entry)
    for path in paths:
        if path not in seen:
            seen.add(path)
            for start, end, size in _cuts(path, data):
                yield Part(path, start, end), size


def _paths(pattern: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    # What exists is taken literally, because a file name may hold the brackets of a pattern.
    matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    found = {Path(match) for match in matches if not os.path.isdir(match)}
    if not found:
        fix = "is a directory; name its files, as in DIR/*.txt" if matches else "no such file; check the path"
        raise DataError(f"data.source = {pattern!r}: {fix}")
    return [str(path) for path in sorted(found)]


def _cuts(path: str, data: DataConfig) -> Iterator[tuple[int, int, int]]:
    """(start, end, rough bytes of text) of each part of a path."""
    if path == "builtin":
        yield 0, 1, UNIT_BYTES
    elif path.startswith("tfds:"):
        records, size = tables.tfds_size(path)
        step = max(1, UNIT_BYTES // size)
        yield from ((i, min(i + step, records), step * size) for i in range(0, records, step))
    elif _is_parquet(path, data):
        yield from ((i, i + 1, size) for i, size in enumerate(tables.row_groups(path, data.text_field)))
    else:
        size = _file_size(path)
        opening.check_text(path)
        if _is_whole(path, data):
            yield 0, size, size * (_COMPRESSION if path.endswith(opening.COMPRESSED) else 1)
        else:
            yield from ((i, min(i + UNIT_BYTES, size), min(UNIT_BYTES, size - i)) for i in range(0, size, UNIT_BYTES))


def _file_size(path: str) -> int:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(opening.unreadable(path, error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"data.source: {path} is a pipe or a device, which has no parts to be read again; name a file")
    return found.st_size


def _is_parquet(path: str, data: DataConfig) -> bool:
    return path.endswith(".parquet") or data.format == "parquet"


def _is_text(path: str, data: DataConfig) -> bool:
    return not (path == "builtin" or path.startswith("tfds:") or _is_parquet(path, data))


def _is_whole(path: str, data: DataConfig) -> bool:
    return data.format == "file" or opening.recoded(path)


def records(data: DataConfig) -> list[str]:
    """The files of the corpus in which data.format = auto takes each line for a document."""
    if data.format != "auto":
        return []
    paths = dict.fromkeys(part.path for unit in units(data) for part in unit.parts)
    return [path for path in paths if _is_text(path, data) and files.form_of(path) == "lines"]


# Documents ---------------------------------------------------------------------------------------------------------


def documents(data: DataConfig, counts: Counter | None = None) -> Iterator[list[str]]:
    """The documents of all units, each a list of at least one sentence; `counts` as in `read`.

    Raises DataError at once where `units` does, and from the iterator where `read` does and for a corpus without any
    text, with what was skipped and where the first of it stands.
    """
    return _all(units(data), data, Notes(Counter() if counts is None else counts))


def _all(found: list[Unit], data: DataConfig, notes: Notes) -> Iterator[list[str]]:
    empty = True
    for unit in found:
        for sentences in _read(unit, data, notes):
            empty = False
            yield sentences
    if empty:
        counted = ", ".join(f"{key}: {count}" for key, count in sorted(notes.counts.items()))
        message = "holds no document with text" + (f" ({counted})" if counted else "")
        problem = f"the first problem is {notes.first()}" if notes.first else "name files that do"
        raise DataError(f"data.source = {data.source}: {message}; {problem}")


def read(unit: Unit, data: DataConfig, counts: Counter, tokenizer: Tokenizer | None = None) -> Iterator[list[str]]:
    """The documents of a unit, each a list of at least one sentence. Raises DataError for a file it cannot read, and
    in a corpus of ids for one that is not of `tokenizer`, or of any vocabulary if that is None.

    `counts` receives "documents", "sentences" and, where they occur,

    empty_documents   documents without text
    cut_documents     above MAX_CHARACTERS, and so taken as several
    broken_documents  WikiExtractor: without </doc>; their text is kept
    bad_utf8_lines    lines or rows that are not UTF-8, read as Windows-1252
    nul_lines         lines or rows with NUL, which is removed
    long_lines        lines above MAX_CHARACTERS, cut at white space
    bad_json_lines    dropped: not JSON, no text in it or above MAX_JSON_BYTES
    bad_rows          dropped: no text in the column or field
    outside_lines     dropped: WikiExtractor: text outside of <doc> … </doc>
    unparsable_files  dropped: the built-in corpus: Python files that do not parse
    """
    return _read(unit, data, Notes(counts), tokenizer)


def _read(unit: Unit, data: DataConfig, notes: Notes, tokenizer: Tokenizer | None = None) -> Iterator[list[str]]:
    for part in unit.parts:
        found = builtin.documents(notes.counts) if part.path == "builtin" else _gathered(part, data, notes, tokenizer)
        for sentences in found:
            notes.counts["documents"] += 1
            notes.counts["sentences"] += len(sentences)
            yield sentences


def _gathered(part: Part, data: DataConfig, notes: Notes, tokenizer: Tokenizer | None) -> Iterator[list[str]]:
    """The documents of a part; one that is too long is cut between two sentences."""
    sentences: list[str] = []
    characters, cut = 0, False
    for paragraph in _paragraphs(part, data, notes, tokenizer):
        if paragraph is None:
            if sentences:
                yield sentences
            else:
                notes.add("empty_documents")
            sentences, characters, cut = [], 0, False
            continue
        for sentence in [paragraph] if data.format in _WHOLE else split_sentences(paragraph):
            if sentences and characters + len(sentence) > MAX_CHARACTERS:
                if not cut:
                    notes.add("cut_documents")
                yield sentences
                sentences, characters, cut = [], 0, True
            sentences.append(sentence)
            characters += len(sentence)


def _paragraphs(part: Part, data: DataConfig, notes: Notes, tokenizer: Tokenizer | None) -> Paragraphs:
    path, field = part.path, data.text_field
    if data.format == "ids" and _is_parquet(path, data):
        return ids.parquet_sequences(path, part.start, part.end, field, tokenizer, notes)
    if path.startswith("tfds:"):
        return _records(tables.tfds_rows(path, part.start, part.end, field), field, notes)
    if _is_parquet(path, data):
        return _records(tables.parquet_rows(path, part.start, part.end, field), field, notes)
    end = sys.maxsize if _is_whole(path, data) else part.end
    if data.format == "ids":
        return ids.file_sequences(path, part.start, end, field, tokenizer, notes)
    form = files.form_of(path) if data.format == "auto" else data.format
    return files.paragraphs(path, part.start, end, form, field, notes)


def _records(rows: tables.Rows, field: str, notes: Notes) -> Paragraphs:
    for place, value in rows:
        if value is None:
            notes.add("bad_rows", partial(str, f"{place}: no text under {field!r}; set data.text_field"))
        else:
            yield from files.record(lines.decode(value, notes), notes)
