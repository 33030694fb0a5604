"""The lines of a text file, and notes on what is wrong with them.

What is wrong with a line is counted, and its text is kept where that can be done. Memory is bounded whatever the file
holds: a long line comes in pieces.
"""

import codecs
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import BinaryIO

from bertjax.corpus import opening

MAX_CHARACTERS = 1_000_000
"""A longer line is cut at white space, a longer document between sentences."""

Lines = Iterator[tuple[int, str]]
"""(byte of the file at which the line begins, its text without white space at the ends)."""


class Notes:
    """Counts of what was found, and the first reason why text is missing."""

    def __init__(self, counts: Counter) -> None:
        self.counts = counts
        # Called only where there is no document at all: it may have to read the file again.
        self.first: Callable[[], str] | None = None
        self.muted = False  # while lines of another part are read, which counts them itself

    def add(self, key: str, lost: Callable[[], str] | None = None) -> None:
        """Count a problem; `lost` says what it was and where, if it costs text."""
        if not self.muted:
            self.counts[key] += 1
            self.first = self.first or lost


def seek_line(file: BinaryIO, start: int, end: int) -> int:
    """Move to the first line that begins in [start, end) and return its offset, or one from `end` on if none does."""
    if start == 0:
        return 0
    offset = file.seek(start - 1)
    while offset < end and (piece := file.readline(opening.BUFFER)):
        offset += len(piece)
        if piece.endswith(b"\n"):
            return offset
    return end


def raw_lines(file: BinaryIO, offset: int, limit: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """(its offset, its bytes in pieces of at most `limit`) of each line from `offset` on, without byte order mark.

    The pieces must be taken before the next line is asked for.
    """
    for begin, found in itertools.groupby(_pieces(file, offset, limit), key=itemgetter(0)):
        yield begin, (piece for _, piece in found)


def _pieces(file: BinaryIO, offset: int, limit: int) -> Iterator[tuple[int, bytes]]:
    begin = offset
    while piece := file.readline(limit):
        yield begin, piece.removeprefix(codecs.BOM_UTF8) if offset == 0 else piece
        offset += len(piece)
        if piece.endswith(b"\n"):
            begin = offset


def is_whole(first: bytes, limit: int) -> bool:
    """Whether the first piece of a line, which may have lost its byte order mark, is all of it."""
    return first.endswith(b"\n") or len(first) < limit - len(codecs.BOM_UTF8)


def text_lines(file: BinaryIO, offset: int, notes: Notes) -> Lines:
    """Every line from `offset` on; one above MAX_CHARACTERS as several stretches, none of them blank."""
    for begin, pieces in raw_lines(file, offset, MAX_CHARACTERS):
        first = next(pieces)
        if is_whole(first, MAX_CHARACTERS):
            yield begin, decode(first, notes).strip()
        else:
            found = filter(None, stretches(_decoded(itertools.chain([first], pieces), notes), notes))
            yield begin, next(found, "")
            yield from ((begin, text) for text in found)


def decode(raw: bytes, notes: Notes) -> str:
    """UTF-8, or else Windows-1252, of which Latin-1 is a part; without NUL."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        notes.add("bad_utf8_lines")
        text = raw.decode("cp1252", errors="replace")
    return without_nul(text, notes)


def without_nul(text: str, notes: Notes) -> str:
    """The text without NUL, which no tokenizer takes."""
    if "\0" not in text:
        return text
    notes.add("nul_lines")
    return text.replace("\0", "")


def _decoded(pieces: Iterable[bytes], notes: Notes) -> Iterator[str]:
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


def stretches(line: Iterable[str], notes: Notes) -> Iterator[str]:
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


def at_line(path: str, offset: int, problem: str) -> str:
    """The problem with the number of the line that begins at `offset`, which costs reading the file again up to it."""
    with opening.opened(path) as file:
        begins = (begin for begin, _ in raw_lines(file, 0, MAX_CHARACTERS))
        number = sum(1 for _ in itertools.takewhile(lambda begin: begin <= offset, begins))
    return f"{path}:{number}: {problem}"
