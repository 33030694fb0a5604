"""Text files in seven forms, as paragraphs of documents.

Cutting a file between any two bytes changes nothing: a document belongs to the part in which its mark begins, which is
the blank line before it, its `<doc>` or `>` line or its own line; the start of the file is a mark too. Memory is
bounded by the longest line of JSON, or else by MAX_CHARACTERS.
"""

import codecs
import html
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from bertjax.corpus import lines, opening
from bertjax.corpus.lines import Lines, Notes

MAX_JSON_BYTES = 16_000_000
"""A line of JSON is parsed as a whole; a longer one is dropped."""
RECORDS = 1_000
_HEAD = 1 << 20  # bytes in which they must be
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_WIKI40B = re.compile("_(?:START_ARTICLE|START_SECTION|START_PARAGRAPH|NEWLINE)_")

Paragraphs = Iterator[str | None]
"""Paragraphs without white space at their ends, and None behind the last one of each document."""


def paragraphs(path: str, start: int, end: int, form: str, field: str, notes: Notes) -> Paragraphs:
    """What belongs to the bytes from `start` to before `end` of a file. DataError for one that cannot be read."""
    with opening.opened(path) as file:
        offset = lines.seek_line(file, start, end)
        if offset >= end:
            return
        if form == "jsonl":
            yield from _jsonl(file, path, offset, end, field, notes)
            return
        owned = _owned(lines.text_lines(file, offset, notes), start, end, _MARKS[form], notes)
        if form == "file":
            yield from _whole(owned)
        elif form == "fasta":
            yield from _fasta(owned)
        elif form == "lines":
            yield from _each_line(owned)
        elif form == "wikiextractor":
            yield from _wiki(owned, path, notes)
        else:
            yield from _blank_separated(owned)


def is_json(path: str) -> bool:
    """Whether a name is that of lines of JSON, plain or compressed."""
    for ending in opening.COMPRESSED:
        path = path.removesuffix(ending)
    return path.endswith(_JSON_LINES)


def form_of(path: str) -> str:
    """The form of a file, from its name and its beginning, so that all its parts agree. DataError as `paragraphs`.

    Where the first RECORDS lines or more have no blank one among them, each is taken for a document: as paragraphs of
    one document nothing of them could be held out.
    """
    if is_json(path):
        return "jsonl"
    with opening.opened(path) as file:
        head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).strip()
    if head.startswith(b"<doc "):
        return "wikiextractor"
    found = head.split(b"\n")
    return "lines" if len(found) >= RECORDS and all(map(bytes.strip, found)) else "paragraphs"


def record(text: str, notes: Notes) -> Paragraphs:
    """A document that is the text of a field: each line is a paragraph.

    In a text with _START_PARAGRAPH_ the other markers of wiki40b end a paragraph too, so that titles are paragraphs.
    """
    text = lines.without_nul(text, notes)
    if "_START_PARAGRAPH_" in text:
        text = _WIKI40B.sub("\n", text)
    for line in text.split("\n"):
        yield from filter(None, lines.stretches([line], notes))
    yield None


_MARKS: dict[str, Callable[[str], bool]] = {
    "file": lambda text: False,
    "paragraphs": lambda text: not text,
    "sentences": lambda text: not text,
    "lines": lambda text: True,
    "fasta": lambda text: text.startswith(">"),
    "wikiextractor": lambda text: text.startswith("<doc "),
}


def _owned(found: Lines, start: int, end: int, mark: Callable[[str], bool], notes: Notes) -> Lines:
    """From the first mark that begins in [start, end), or the start of the file, to the first that begins behind it.

    The lines before belong to another part. That part also counts what is wrong with its last line, the mark of this.
    """
    notes.muted = start > 0
    for offset, text in found:
        marked = mark(text)
        if offset >= end and (marked or notes.muted):
            break
        notes.muted = notes.muted and not marked
        if not notes.muted:
            yield offset, text
    notes.muted = False


def _whole(found: Lines) -> Paragraphs:
    yield from (text for _, text in found if text)
    yield None


def _each_line(found: Lines) -> Paragraphs:
    for _, text in found:
        if text:
            yield text
            yield None


def _fasta(found: Lines) -> Paragraphs:
    """`>NAME`, then a sequence, cut into lines of any length, which belong together; a very long one is several."""
    letters: list[str] = []
    size = 0
    for _, text in found:
        if text.startswith(">") or size > lines.MAX_CHARACTERS:
            yield from _joined(letters)
            letters, size = [], 0
        if not text.startswith((">", ";")):
            letters.append(text)
            size += len(text)
    yield from _joined(letters)


def _joined(letters: list[str]) -> Paragraphs:
    if sequence := "".join(letters):
        yield sequence
        yield None


def _blank_separated(found: Lines) -> Paragraphs:
    inside = False
    for _, text in found:
        if text:
            yield text
        elif inside:
            yield None
        inside = text != ""
    if inside:
        yield None


def _wiki(found: Lines, path: str, notes: Notes) -> Paragraphs:
    """`<doc id= url= title=>`, the title again, paragraphs and headings one a line, `</doc>`."""
    inside = False
    titles: tuple[str, ...] = ()
    for offset, text in found:
        if text.startswith("<doc "):
            if inside:
                notes.add("broken_documents")
                yield None
            match = re.search(r'title="(.*)"', text)
            inside, titles = True, (match[1], html.unescape(match[1])) if match else ()
        elif text == "</doc>" and inside:
            yield None
            inside = False
        elif text and inside:
            if text not in titles:
                yield text
            titles = ()  # only the first line repeats the title
        elif text:
            problem = "text outside <doc> … </doc>; set data.format to the form of this file"
            notes.add("outside_lines", partial(lines.at_line, path, offset, problem))
    if inside:
        notes.add("broken_documents")
        yield None


def _jsonl(file: BinaryIO, path: str, offset: int, end: int, field: str, notes: Notes) -> Paragraphs:
    for begin, pieces in lines.raw_lines(file, offset, MAX_JSON_BYTES):
        if begin >= end:
            break
        raw = next(pieces)
        try:
            if not lines.is_whole(raw, MAX_JSON_BYTES):
                raise ValueError(f"longer than {MAX_JSON_BYTES} bytes")
            line = lines.decode(raw, notes).strip()
            if not line:
                continue
            text = json.loads(line)[field]
            text.encode()  # a lone surrogate such as "\ud800" is legal JSON but no text: tokenizers fail on it
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            problem = f"not a JSON object with text under {field!r} ({type(error).__name__}: {error})"
            fix = "correct the line or set data.text_field"
            notes.add("bad_json_lines", partial(lines.at_line, path, begin, f"{problem}; {fix}"))
            continue
        yield from record(text, notes)
