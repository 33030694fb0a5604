"""Texts as a caller gives them: checked before anything else is done, and cut into words."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from bertjax.errors import DataError


def checked_texts(what: str, texts: Iterable[str]) -> list[str]:
    """The texts as a list. Raises DataError, naming `what` takes them, for anything else and for half characters."""
    listed = None if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if listed is None or not all(isinstance(text, str) for text in listed):
        raise DataError(f"{what}: takes a list of str; put a single text into a list")
    for text in listed:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = text[error.start]
            raise DataError(f"{what}: {text!r:.60}: {half!r} is half a character; read the text as UTF-8") from None
    return listed


def same_count(what: str, first: str, firsts: Sequence[Any], second: str, seconds: Sequence[Any]) -> None:
    """Raise DataError, naming `what` takes them, if there are not as many of the one as of the other."""
    if len(firsts) != len(seconds):
        raise DataError(f"{what}: {len(firsts)} {first} and {len(seconds)} {second}; give one for each")


def words_of(sentence: str | Sequence[str]) -> tuple[str, list[str], list[int]]:
    """A text, its words, and the character at which each begins; a list of words is a text with spaces between them."""
    if isinstance(sentence, str):
        found = list(re.finditer(r"\S+", sentence))
        return sentence, [match[0] for match in found], [match.start() for match in found]
    words, places, end = list(sentence), [], 0
    for word in words:
        places.append(end)
        end += len(word) + 1
    return " ".join(words), words, places
