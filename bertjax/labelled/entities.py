"""Entities in sequences of tags, by the rules of conlleval.

They take any sequence: an entity that begins without a B, or whose type changes inside, is one all the same. E ends an
entity and S is one alone, as in IOBES. What is none of these tags, such as "NOUN", is a type by itself.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

OUTSIDE = "O"


class Entity(NamedTuple):
    """The words `start` to `end` - 1 of a sentence, by its index."""

    sentence: int
    start: int
    end: int
    type: str


def entities(sentences: Iterable[Sequence[str]]) -> list[Entity]:
    """The entities of sentences, each given as the tags of its words, in the order of the text.

    A tag is O, or a letter of BIES, "-" and the type; the letter alone has the type "_".
    """
    found: dict[str, int] = {OUTSIDE: 0}
    ids: list[int] = []
    starts = [0]  # of the sentences; there is an O behind each, where nothing goes on
    for tags in sentences:
        ids += [found.setdefault(tag, len(found)) for tag in tags]
        ids.append(0)
        starts.append(len(ids))
    ids_N = np.array(ids, np.int32)
    letters, kinds = zip(*map(parse, found), strict=True)
    types: dict[str, int] = {}
    letters_N = np.array([ord(letter) for letter in letters], np.uint8)[ids_N]
    types_N = np.array([types.setdefault(kind, len(types)) for kind in kinds], np.int32)[ids_N]
    begins, ends = _borders(letters_N, types_N)
    sentence = np.searchsorted(starts, begins, side="right") - 1
    first, names = np.array(starts)[sentence], list(types)
    columns = sentence, begins - first, ends - first, types_N[begins]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Entity(number, start, end, names[kind]) for number, start, end, kind in rows]


def parse(tag: str) -> tuple[str, str]:
    """The letter and the type of a tag: "B-PER" is B and PER, "O" is O and nothing."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, kind = tag[:1], tag[1:2], tag[2:]
    if letter and letter in "BIES" and dash in ("", "-"):
        return letter, kind or "_"
    return "I", tag


def _borders(letters_N: np.ndarray, types_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where entities begin and where they end (the word behind), among words of which the last is outside."""
    outside, *ending = (ord(letter) for letter in OUTSIDE + "ES")
    before_N = np.concatenate(([outside], letters_N[:-1]))
    other_type_N = np.concatenate(([True], types_N[1:] != types_N[:-1]))
    fresh_N = np.isin(letters_N, (ord("B"), ord("S"))) | np.isin(before_N, (outside, *ending)) | other_type_N
    # What is inside either goes on or begins anew, and what was inside before ends where it does not go on.
    inside_N, was_inside_N = letters_N != outside, before_N != outside
    return np.flatnonzero(inside_N & fresh_N), np.flatnonzero(was_inside_N & (fresh_N | ~inside_N))
