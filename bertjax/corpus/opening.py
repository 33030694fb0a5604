"""A source file as the bytes of UTF-8 text: unpacked, UTF-16 recoded, and refused by name where it is no text."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from bertjax.errors import DataError, one_line

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
BUFFER = 1 << 18
"""Bytes that are read at a time."""
_HEAD = 1 << 16  # bytes that are looked at
_NUL = 1 / 4  # share of NUL above which a file is no text; a stray one is removed from its line
_BEYOND_ASCII = 1 / 3  # share of such bytes above which what is not UTF-8 is not Windows-1252 either; German has 2 %
_RETURNS = 10  # so many carriage returns, and no line feed, are those of an old Mac
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, with whose mark it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LEAVE, _NAME = "leave it out of {setting}", "is unpacked where its name ends in"
_KINDS = (
    (0, b"\x89PNG", "a PNG picture", _LEAVE),
    (0, b"\xff\xd8\xff", "a JPEG picture", _LEAVE),
    (0, b"GIF8", "a GIF picture", _LEAVE),
    (0, b"RIFF", "sound or video (RIFF)", _LEAVE),
    (0, b"%PDF-", "PDF", "take the text out of it, for example with `pdftotext`"),
    (0, b"PK\x03\x04", "a zip archive, as .docx, .xlsx, .epub and .npz are", "take the text out of it"),
    (0, b"\xd0\xcf\x11\xe0", "a document of an old Microsoft Office", "save it as text"),
    (0, b"{\\rtf", "RTF", "save it as text"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"\x1f\x8b", "compressed by gzip", f"it {_NAME} .gz"),
    (0, b"BZh", "compressed by bzip2", f"it {_NAME} .bz2"),
    (0, b"\xfd7zXZ", "compressed by xz", f"it {_NAME} .xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", f"it {_NAME} .zst"),
    (0, b"PAR1", "Parquet", "end its name in .parquet"),
    (0, b"\x7fELF", "a program", _LEAVE),
    (0, b"\x93NUMPY", "a NumPy array", _LEAVE),
    (0, b"SQLite format 3", "an SQLite database", "write its text to a file"),
)
"""(where the bytes stand that tell it, these bytes, what the file is, the fix)."""


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The bytes of a file as UTF-8, or whatever they are. UTF-16 and UTF-32 are known by their byte order mark; what is
    malformed in them becomes U+FFFD. Raises DataError where it cannot be opened, and where the block cannot read it.
    """
    try:
        with _unpacked(path) as file:
            encoding = _encoding(file.peek(4))
            yield cast(BinaryIO, io.BufferedReader(_Recoded(file, encoding), BUFFER) if encoding else file)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(unreadable(path, error)) from None


def recoded(path: str) -> bool:
    """Whether the bytes of the text are other ones than those of the file, so that it cannot be cut into parts."""
    if path.endswith(COMPRESSED):
        return True
    try:
        with open(path, "rb") as file:
            return bool(_encoding(file.read(4)))
    except OSError as error:
        raise DataError(unreadable(path, error)) from None


def check_text(path: str, *, setting: str = "data.source") -> None:
    """Raise DataError for a file that is no text, or text in an encoding or with line ends that are not read: what it
    is, and the fix. `setting` is the field that names it.
    """
    with opened(path) as file:
        head = file.read(_HEAD)
    for offset, magic, kind, fix in _KINDS:
        if head.startswith(magic, offset):
            raise DataError(f"{path}: is no text but {kind}; {fix.format(setting=setting)}")
    if head.count(0) > _NUL * len(head):
        what = f"NUL is {head.count(0) / len(head):.0%} of its bytes, as in UTF-16 without a byte order mark"
        raise DataError(f"{path}: is no text, or in another encoding ({what}); convert it to UTF-8, or leave it out")
    odd = b"".join(b"".join(line for line in head.split(b"\n") if not _is_utf8(line)).split())
    beyond = sum(byte > 0x7F for byte in odd)
    if len(odd) > len(head) / 2 and beyond > _BEYOND_ASCII * len(odd):
        what = f"not UTF-8, and {beyond / len(odd):.0%} of its bytes are beyond ASCII"
        fix = f"convert it with `iconv -f ENCODING -t UTF-8`, or leave it out of {setting}"
        raise DataError(f"{path}: is no text, or in another encoding ({what}); {fix}")
    if b"\n" not in head and head.count(b"\r") >= _RETURNS:
        fix = r"convert it with `tr '\r' '\n'`"
        raise DataError(f"{path}: its lines end in a carriage return alone, so it would be one line; {fix}")


def unreadable(path: str, error: Exception) -> str:
    """The message for a file that is not there, may not be read or is damaged."""
    reason = getattr(error, "strerror", None) or one_line(error)
    return f"{path}: cannot be read ({reason}); check the path, its permissions and that the file is whole"


def _unpacked(path: str) -> io.BufferedReader:
    if path.endswith(".gz"):
        return io.BufferedReader(cast(io.RawIOBase, gzip.open(path)), BUFFER)
    if path.endswith(".bz2"):
        return io.BufferedReader(cast(io.RawIOBase, bz2.open(path)), BUFFER)
    if path.endswith(".xz"):
        return io.BufferedReader(cast(io.RawIOBase, lzma.open(path)), BUFFER)
    if path.endswith(".zst"):
        import pyarrow  # here, because only these files need it

        return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"), BUFFER)
    return cast(io.BufferedReader, open(path, "rb", BUFFER))


def _encoding(head: bytes) -> str:
    """That of the byte order mark; "" where there is none, or that of UTF-8."""
    return next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "")


def _is_utf8(line: bytes) -> bool:
    """Also for a line that is cut within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return True


class _Recoded(io.RawIOBase):
    """The text of a file in another encoding, as UTF-8."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        raw = b" "
        while not self._ready and raw:
            raw = self._file.read(BUFFER)
            self._ready = memoryview(self._decoder.decode(raw, final=not raw).encode())
        size = min(len(target), len(self._ready))
        target[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
