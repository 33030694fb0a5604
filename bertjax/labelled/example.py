"""What an example is: tokens with labels at them. A record is one, or several where it is longer than a row.

Shape letter: n tokens of an example.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bertjax.data.tokenizer import Special

_NO_TOKENS, _NO_OFFSETS, _NO_FLAGS = np.zeros(0, np.int32), np.zeros((0, 2), np.int32), np.zeros(0, bool)


@dataclass(frozen=True, slots=True)
class Example:
    """The tokens behind one [CLS] and where their labels are. What a kind of task does not have stays as it is here."""

    tokens: np.ndarray
    """int32 [n], with [CLS] and [SEP]."""
    token_types: np.ndarray
    """int32 [n]: 1 for the second text of a pair, where the model tells them apart. Examples share it."""
    record: int
    """The index of its record."""
    label: float = -1
    """classify: index in the labels. choice: of the right ending, at each of them. Both -1 where that is not known.
    regress: the number, or nan."""
    labels: np.ndarray = field(default_factory=lambda: _NO_TOKENS)
    """tag: int32 [n], at the first piece of each word the index of its label, else -1."""
    words: np.ndarray = field(default_factory=lambda: _NO_TOKENS)
    """tag: int32 [n], at the first piece of each word its index in the record, else -1."""
    span: tuple[int, int] | None = None
    """span: the first and the last token of the answer; (0, 0), which is [CLS], where it is not in this example; None
    where no answers are known."""
    offsets: np.ndarray = field(default_factory=lambda: _NO_OFFSETS)
    """span: int32 [n, 2], of each token of the context its first character and the one after its last, else -1."""
    max_context: np.ndarray = field(default_factory=lambda: _NO_FLAGS)
    """span: bool [n], whether a token of the context has more of it around than in the other examples of its record."""


class Frame:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]."""

    def __init__(self, special: Special, token_types: bool) -> None:
        """With token types 0 throughout if the model has no table for them."""
        self.unk = np.array([special.unk], np.int32)
        self._cls, self._sep = np.array([special.cls], np.int32), np.array([special.sep], np.int32)
        self._token_types = token_types

    def one(self, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and token types of one text."""
        tokens = np.concatenate((self._cls, first, self._sep))
        return tokens, _types(len(tokens), len(tokens))

    def two(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and token types of a pair."""
        tokens = np.concatenate((self._cls, first, self._sep, second, self._sep))
        return tokens, _types(len(first) + 2 if self._token_types else len(tokens), len(tokens))


@lru_cache(maxsize=1 << 16)
def _types(zeros: int, size: int) -> np.ndarray:
    # The same for many examples: with an array for each they would need as much memory as the tokens.
    types = np.zeros(size, np.int32)
    types[zeros:] = 1
    types.setflags(write=False)
    return types
