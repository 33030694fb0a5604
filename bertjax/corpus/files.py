"""Text files, plain or compressed, in five forms, as paragraphs of documents.

Cutting a file between any two bytes changes nothing: a document belongs to the part in which its mark begins, which is
the blank line before it, its `<doc>` line or its line of JSON; the start of the file is a mark too. Memory is bounded
by the longest line of JSON, or else by MAX_CHARACTERS. What is wrong with a file is counted, and its text is kept
where that can be done.
"""

import codecs
import gzip
import html
import io
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import BinaryIO

from bertjax.errors import DataError

MAX_CHARACTERS = 1_000_000
"""A longer line is cut at white space, a longer document between sentences."""
MAX_JSON_BYTES = 16_000_000
"""A line of JSON is parsed as a whole; a longer one is dropped."""
COMPRESSED = (".gz", ".zst")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_BUFFER = 1 << 18
_WIKI40B = re.compile("_(?:START_ARTICLE|START_SECTION|START_PARAGRAPH|NEWLINE)_")

Lines = Iterator[tuple[int, str]]
"""(byte of the file at which the line begins, its text without white space at the ends)."""
Paragraphs = Iterator[str | None]
"""Paragraphs without white space at their ends, and None behind the last one of each document."""


class Notes:
    """Counts of what was found, and the first reason why text is missing."""

    def __init__(self, counts: Counter) -> None:
        self.counts = counts
        self.first: Callable[[], str] | None = None  # called for its text only when there is no document at all
        self.muted = False  # in lines of another part, which counts them

    def add(self, key: str, lost: Callable[[], str] | None = None) -> None:
        """Count a problem; `lost` says what it was and where, if it costs text."""
        if not self.muted:
            self.counts[key] += 1
            self.first = self.first or lost


def paragraphs(path: str, start: int, end: int, form: str, field: str, notes: Notes) -> Paragraphs:
    """What belongs to the bytes from `start` to before `end` of a file. DataError for one that cannot be read."""
    try:
        with _open(path) as file:
            offset = _first_line(file, start, end)
            if offset >= end:
                return
            if form == "jsonl":
                yield from _jsonl(file, path, offset, end, field, notes)
                return
            lines = _owned(_lines(file, offset, notes), start, end, _MARKS[form], notes)
            if form == "file":
                yield from _whole(lines)
            elif form == "wikiextractor":
                yield from _wiki(lines, path, notes)
            else:
                yield from _blank_separated(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(unreadable(path, error)) from None


def form_of(path: str) -> str:
    """The form of a file, from its name and its first line, so that all its parts agree."""
    if path.removesuffix(".gz").removesuffix(".zst").endswith(_JSON_LINES):
        return "jsonl"
    try:
        with _open(path) as file:
            head = file.read(_BUFFER).removeprefix(codecs.BOM_UTF8).lstrip()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(unreadable(path, error)) from None
    return "wikiextractor" if head.startswith(b"<doc ") else "paragraphs"


def record(text: str, notes: Notes) -> Paragraphs:
    """A document that is the text of a field: each line is a paragraph.

    In a text with _START_PARAGRAPH_ the other markers of wiki40b end a paragraph too, so that titles are paragraphs.
    """
    if "\0" in text:
        notes.add("nul_lines")
        text = text.replace("\0", "")
    if "_START_PARAGRAPH_" in text:
        text = _WIKI40B.sub("\n", text)
    for line in text.split("\n"):
        yield from filter(None, _stretches([line], notes))
    yield None


def decode(raw: bytes, notes: Notes) -> str:
    """UTF-8, or else Windows-1252, of which Latin-1 is a part; without NUL, which no tokenizer takes."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        notes.add("bad_utf8_lines")
        text = raw.decode("cp1252", errors="replace")
    if "\0" in text:
        notes.add("nul_lines")
        text = text.replace("\0", "")
    return text


def unreadable(path: str, error: Exception) -> str:
    """The message for a file that is not there, may not be read or is damaged."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"{path}: cannot be read ({reason}); check the path, its permissions and that the file is whole"


# Lines -------------------------------------------------------------------------------------------------------------


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return io.BufferedReader(gzip.open(path), _BUFFER)
    if path.endswith(".zst"):
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"), _BUFFER)
    return open(path, "rb", _BUFFER)


def _first_line(file: BinaryIO, start: int, end: int) -> int:
    """Move to the first line that begins in [start, end) and return its offset, or one from `end` on if none does."""
    if start == 0:
        return 0
    offset = file.seek(start - 1)
    while offset < end and (piece := file.readline(_BUFFER)):
        offset += len(piece)
        if piece.endswith(b"\n"):
            return offset
    return end


def _pieces(file: BinaryIO, offset: int, limit: int) -> Iterator[tuple[int, bytes]]:
    """(offset of the line, bytes of it): a line, or one above `limit` bytes in pieces. No byte order mark."""
    begin = offset
    while piece := file.readline(limit):
        yield begin, piece.removeprefix(codecs.BOM_UTF8) if offset == 0 else piece
        offset += len(piece)
        if piece.endswith(b"\n"):
            begin = offset


def _lines(file: BinaryIO, offset: int, notes: Notes) -> Lines:
    """Every line from `offset` on; one above MAX_CHARACTERS as several stretches, none of them blank."""
    for begin, pieces in itertools.groupby(_pieces(file, offset, MAX_CHARACTERS), key=itemgetter(0)):
        _, raw = next(pieces)
        if raw.endswith(b"\n") or len(raw) < MAX_CHARACTERS - len(codecs.BOM_UTF8):
            yield begin, decode(raw, notes).strip()
        else:
            line = itertools.chain([raw], (piece for _, piece in pieces))
            stretches = filter(None, _stretches(_decode_pieces(line, notes), notes))
            yield begin, next(stretches, "")
            yield from ((begin, text) for text in stretches)


def _decode_pieces(pieces: Iterable[bytes], notes: Notes) -> Iterator[str]:
    """As `decode`, for a line that is not held in memory: Windows-1252 from the first piece on that is not UTF-8."""
    decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")()
    nul = False
    for raw in itertools.chain(pieces, [b""]):
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError:
            notes.add("bad_utf8_lines")
            rest = decoder.getstate()[0] + raw
            decoder = codecs.getincrementaldecoder("cp1252")("replace")
            text = decoder.decode(rest)
        nul = nul or "\0" in text
        yield text.replace("\0", "").removesuffix("\n")
    if nul:
        notes.add("nul_lines")


def _stretches(line: Iterable[str], notes: Notes) -> Iterator[str]:
    """A line, which may come in pieces, in stretches of at most MAX_CHARACTERS, cut at white space if there is any."""
    pending, long = "", False
    for piece in line:
        pending += piece
        while len(pending) > MAX_CHARACTERS:
            cut = max(pending.rfind(space, 1, MAX_CHARACTERS) for space in " \t")
            cut = cut if cut > 0 else MAX_CHARACTERS
            yield pending[:cut].strip()
            pending, long = pending[cut:], True
    if long:
        notes.add("long_lines")
    yield pending.strip()


def _at_line(path: str, offset: int, problem: str) -> str:
    """The number of a line, which costs reading the file again up to it."""
    with _open(path) as file:
        lines = itertools.groupby(_pieces(file, 0, MAX_CHARACTERS), key=itemgetter(0))
        number = sum(1 for _ in itertools.takewhile(lambda line: line[0] <= offset, lines))
    return f"{path}:{number}: {problem}"


# Forms -------------------------------------------------------------------------------------------------------------

_MARKS: dict[str, Callable[[str], bool]] = {
    "file": lambda text: False,
    "paragraphs": lambda text: not text,
    "sentences": lambda text: not text,
    "wikiextractor": lambda text: text.startswith("<doc "),
}


def _owned(lines: Lines, start: int, end: int, mark: Callable[[str], bool], notes: Notes) -> Lines:
    """From the first mark that begins in [start, end), or the start of the file, to the first that begins behind it.

    The lines before belong to another part. That part also counts what is wrong with its last line, the mark of this.
    """
    notes.muted = start > 0
    for offset, text in lines:
        marked = mark(text)
        if offset >= end and (marked or notes.muted):
            break
        notes.muted = notes.muted and not marked
        if not notes.muted:
            yield offset, text
    notes.muted = False


def _whole(lines: Lines) -> Paragraphs:
    yield from (text for _, text in lines if text)
    yield None


def _blank_separated(lines: Lines) -> Paragraphs:
    inside = False
    for _, text in lines:
        if text:
            yield text
        elif inside:
            yield None
        inside = text != ""
    if inside:
        yield None


def _wiki(lines: Lines, path: str, notes: Notes) -> Paragraphs:
    """`<doc id= url= title=>`, the title again, paragraphs and headings one a line, `</doc>`."""
    inside = False
    titles: tuple[str, ...] = ()
    for offset, text in lines:
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
            notes.add("outside_lines", partial(_at_line, path, offset, problem))
    if inside:
        notes.add("broken_documents")
        yield None


def _jsonl(file: BinaryIO, path: str, offset: int, end: int, field: str, notes: Notes) -> Paragraphs:
    for begin, pieces in itertools.groupby(_pieces(file, offset, MAX_JSON_BYTES), key=itemgetter(0)):
        if begin >= end:
            break
        _, raw = next(pieces)
        try:
            if len(raw) >= MAX_JSON_BYTES - len(codecs.BOM_UTF8) and not raw.endswith(b"\n"):
                raise ValueError(f"longer than {MAX_JSON_BYTES} bytes")
            line = decode(raw, notes).strip()
            if not line:
                continue
            text = json.loads(line)[field]
            text.encode()  # a lone surrogate such as "\ud800" is legal JSON but no text: tokenizers fail on it
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            problem = f"not a JSON object with text under {field!r} ({type(error).__name__}: {error})"
            fix = "mend the line or set data.text_field"
            notes.add("bad_json_lines", partial(_at_line, path, begin, f"{problem}; {fix}"))
            continue
        yield from record(text, notes)
