"""Minimal pairs as files: two sentences that differ in little, of which one is good English and the other is not."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.errors import DataError
from bertjax.storage import user_path

BUILTIN = "builtin"
_BUILTIN_FILE = Path(__file__).with_name("builtin_pairs.tsv")
_COLUMNS = ("good", "bad", "paradigm", "field")
_BLIMP = {"good": "sentence_good", "bad": "sentence_bad", "paradigm": "UID", "field": "field"}


@dataclass(frozen=True)
class Paradigm:
    """Pairs that ask one question about grammar, and the field of grammar that it belongs to ("" = not said)."""

    name: str
    field: str
    pairs: tuple[tuple[str, str], ...]  # good, bad


_Line = tuple[int, dict[str, str]]
"""The number of a line, and good, bad, paradigm and field as far as it says them."""


def read(paths: Sequence[str | Path], *, limit: int = 0) -> list[Paradigm]:
    """The paradigms in files, directories of such files, or "builtin"; of each at most `limit` pairs (0 = all), evenly
    spread. A paradigm that goes on in another file is one.

    .jsonl  BLiMP: objects with sentence_good, sentence_bad, and perhaps UID and field
    .txt    Zorro: each odd line is bad, and the line after it is its good twin
    .tsv    good TAB bad, and perhaps TAB paradigm TAB field; a first line that says so is no pair

    A file that names no paradigm is one, by its own name; the field of `agreement-in_question.txt` is then `agreement`.
    Raises DataError, naming file and line, for what is missing, empty or of another form.
    """
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for path in (file for named in paths for file in _files(named)):
        for number, line in _checked(path):
            name = line.get("paradigm") or path.stem
            field = line.get("field") or ("" if "paradigm" in line else path.stem.rpartition("-")[0])
            field = field.replace("/", "_")  # BLiMP spells one of its fields syntax/semantics and syntax_semantics
            known, pairs = found.setdefault(name, (field, []))
            if known != field:
                fix = "give it one field, or another name"
                raise DataError(
                    f"{path}:{number}: paradigm {name!r} is of field {field!r}, and before {known!r}; {fix}"
                )
            pairs.append((line["good"], line["bad"]))
    if not found:
        raise DataError(f"{', '.join(map(str, paths)) or 'pairs'}: has no pair; name a file with one in each line")
    return [Paradigm(name, field, tuple(_spread(pairs, limit))) for name, (field, pairs) in found.items()]


def _spread(pairs: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
    count = min(limit, len(pairs)) if limit else len(pairs)
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _files(path: str | Path) -> list[Path]:
    if str(path) == BUILTIN:
        return [_BUILTIN_FILE]
    place, ends = user_path(path), ", ".join(_READERS)
    if not str(path).strip() or not place.exists():
        raise DataError(f"{path or 'pairs'}: not found; name a file ({ends}), a directory of them, or {BUILTIN}")
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in _READERS)
        if not files:
            raise DataError(f"{place}: holds no file of minimal pairs ({ends}); name another directory")
        return files
    if place.suffix not in _READERS:
        raise DataError(f"{place}: must end in {ends}, by which the form of its pairs is known; rename it")
    return [place]


def _checked(path: Path) -> Iterator[_Line]:
    """The pairs of a file, each with two sentences."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name another") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text at byte {error.start}; convert it") from None
    for number, line in _READERS[path.suffix](path, lines if lines[-1].strip() else lines[:-1]):
        for side in ("good", "bad"):
            text = line.get(side, "").strip()
            if not text:
                raise DataError(f"{path}:{number}: the {side} sentence is missing; write it, or remove the pair")
            if any("\ud800" <= c <= "\udfff" for c in text):
                raise DataError(f"{path}:{number}: the {side} sentence has half a character; write it as UTF-8")
            line[side] = text
        yield number, line


def _of_jsonl(path: Path, lines: list[str]) -> Iterator[_Line]:
    for number, text in enumerate(lines, 1):
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise DataError(f"{path}:{number}: is not a JSON object; give it sentence_good and sentence_bad")
        line = {name: values[key] for name, key in _BLIMP.items() if key in values}
        if not all(isinstance(value, str) for value in line.values()):
            raise DataError(f"{path}:{number}: {', '.join(_BLIMP.values())} must be texts; quote them")
        yield number, line


def _of_zorro(path: Path, lines: list[str]) -> Iterator[_Line]:
    if len(lines) % 2:
        fix = "each odd line is bad and needs its good twin after it"
        raise DataError(f"{path}:{len(lines)}: has no line after it; {fix}")
    for number in range(1, len(lines), 2):
        yield number, {"bad": lines[number - 1], "good": lines[number]}


def _of_tsv(path: Path, lines: list[str]) -> Iterator[_Line]:
    for number, text in enumerate(lines, 1):
        cells = [cell.strip() for cell in text.split("\t")]
        if number == 1 and tuple(cell.lower() for cell in cells) == _COLUMNS[: len(cells)]:
            continue
        if not 2 <= len(cells) <= len(_COLUMNS):
            raise DataError(
                f"{path}:{number}: has {len(cells)} columns; they are {', '.join(_COLUMNS)}, with tabs between"
            )
        yield number, dict(zip(_COLUMNS, cells, strict=False))


_READERS: dict[str, Callable[[Path, list[str]], Iterator[_Line]]] = {
    ".jsonl": _of_jsonl,
    ".txt": _of_zorro,
    ".tsv": _of_tsv,
}
"""Ending of a file -> what reads its lines."""
