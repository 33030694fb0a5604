"""Sequences of integers, which are ids of the tokenizer already: from lines, JSONL and Parquet.

A sequence is a document of one sentence. It stays text, numbers with a space between them, until it is written. Other
bad text is left out and counted; a bad id ends the preparation, because others that look good then mean other pieces.
"""

import itertools
import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from bertjax.corpus import lines, opening, tables
from bertjax.corpus.files import MAX_JSON_BYTES, Paragraphs, is_json
from bertjax.corpus.lines import Notes
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError

_BELOW = 2**31  # of any vocabulary


def file_sequences(
    path: str, start: int, end: int, field: str, tokenizer: Tokenizer | None, notes: Notes
) -> Paragraphs:
    """Those of the lines that begin at the bytes from `start` to before `end`; of JSONL, a list under `field` of each.

    Raises DataError for a file that cannot be read and for what is no id of `tokenizer`, or of any vocabulary if that
    is None; it names the line.
    """
    with opening.opened(path) as file:
        offset = lines.seek_line(file, start, end)
        if offset >= end:
            return
        for begin, pieces in lines.raw_lines(file, offset, MAX_JSON_BYTES):
            if begin >= end:
                break
            raw = next(pieces)
            place = partial(lines.at_line, path, begin)
            if not lines.is_whole(raw, MAX_JSON_BYTES):
                raise DataError(place(f"longer than {MAX_JSON_BYTES} bytes; cut the sequence"))
            text = lines.decode(raw, notes).strip()
            if text:
                values = _listed(text, field, place) if is_json(path) else text.split()
                yield from _sequence(values, tokenizer, place)


def parquet_sequences(
    path: str, start: int, end: int, field: str, tokenizer: Tokenizer | None, notes: Notes
) -> Paragraphs:
    """Those of the lists in column `field` of the row groups from `start` to before `end`. Errors name the row."""
    for where, values in tables.parquet_rows(path, start, end, field, lambda column: column.to_pylist()):
        if values is None:
            notes.add("bad_rows", partial(str, f"{where}: no list under {field!r}; set data.text_field"))
        else:
            yield from _sequence(values, tokenizer, lambda problem, where=where: f"{where}: {problem}")


def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """As `Tokenizer.encode_batch`, of sequences."""
    numbers = [text.split() for text in texts]
    lengths = np.array([len(found) for found in numbers], np.int64)
    return np.array(list(itertools.chain.from_iterable(numbers)), np.int32), lengths


def _listed(text: str, field: str, place: Any) -> Any:
    try:
        return json.loads(text)[field]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        problem = f"not a JSON object with a list under {field!r} ({type(error).__name__})"
        raise DataError(place(f"{problem}; correct the line or set data.text_field")) from None


def _sequence(values: Any, tokenizer: Tokenizer | None, place: Any) -> Paragraphs:
    """A document, or nothing for a sequence without ids."""
    if not isinstance(values, list):
        raise DataError(place(f"{values!r:.40} is no list of ids; set data.text_field or data.format"))
    numbers = [str(value) for value in values]
    if problem := _problem(numbers, tokenizer):
        raise DataError(place(problem))
    if numbers:
        yield " ".join(str(int(number)) for number in numbers)
    yield None


def _problem(numbers: Iterable[str], tokenizer: Tokenizer | None) -> str:
    """What is wrong with the first bad id, and the fix; "" if nothing."""
    below = tokenizer.vocab_size if tokenizer else _BELOW
    reserved = {}
    if tokenizer:
        special = tokenizer.special
        reserved = {i: tokenizer.pieces[i] for i in (special.pad, special.cls, special.sep, special.mask)}
    for number in numbers:
        if not (number.isascii() and number.isdigit()):
            return f"{number!r:.40} is not an integer of at least 0; correct it, or set data.format"
        if len(number) > 10 or int(number) >= below:
            fix = "correct it or use a tokenizer with more pieces" if tokenizer else "correct it"
            return f"id {number:.40} is not below {below}; {fix}"
        if int(number) in reserved:
            return (
                f"id {number} is the special piece {reserved[int(number)]}, which is put where it belongs; leave it out"
            )
    return ""
