"""What a text holds, before anything is made of it: how much, how varied, in how long documents.

Everything is read once, in a few seconds for 100 MB, and nothing is kept but counts. Text is counted as the tokenizer
is to see it, normalised.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.corpus import units
from bertjax.data.tokenizer import normalise
from bertjax.vocabulary.unigram import CHARACTERS_OF_TOKEN, alphabet_of, count_characters, least_pieces, pieces_for

MOST = 400_000_000
"""Characters after which the rest is not read: what follows from the amount of text does not grow beyond that."""
_IDEOGRAPHS = 500  # different characters, more than any script has whose characters stand for sounds
_CHARACTERS_OF_TOKEN = 1.7  # there; 1.5 to 2.0 in Japanese and Chinese
_PREFIX = 16  # characters of the longest piece of SentencePiece


@dataclass(frozen=True)
class Survey:
    """The counts of a text."""

    documents: int
    distinct_words: int
    """Stretches between white space, by their first 16 characters."""
    characters: int
    alphabet: int
    """Different characters that are pieces in any vocabulary of this text."""
    typical: int
    """Half of the text is in documents of at least so many characters."""
    whole: bool
    """Whether all of it was read."""

    @property
    def tokens(self) -> int:
        """How many tokens that will be, within a quarter or so: it depends on the language and the vocabulary."""
        return round(self.characters / self.characters_of_token)

    @property
    def characters_of_token(self) -> float:
        """How many characters a token stands for, roughly."""
        return _CHARACTERS_OF_TOKEN if self.alphabet > _IDEOGRAPHS else CHARACTERS_OF_TOKEN

    @property
    def typical_tokens(self) -> int:
        """Half of the text is in documents of at least so many tokens, roughly."""
        return round(self.typical / self.characters_of_token)

    @property
    def pieces(self) -> int:
        """How many pieces of a vocabulary the text teaches, and not more than it has: a text that repeats itself has
        few.
        """
        there = self.alphabet + self.distinct_words // 4
        return max(least_pieces(self.alphabet), min(pieces_for(self.tokens, self.alphabet), there))


def survey(data: DataConfig, *, most: int = MOST) -> Survey:
    """The counts of `data.source`, or of its first `most` characters. Raises DataError as `units.documents` does."""
    return counted(units.documents(data), lower_case=data.lower_case is not False, most=most)


def counted(documents: Iterable[list[str]], *, lower_case: bool, most: int = MOST) -> Survey:
    """The counts of these documents, each a list of sentences."""
    lengths: list[int] = []
    distinct: set[str] = set()
    characters: Counter[str] = Counter()
    size = 0
    whole = True
    for sentences in documents:
        if size >= most:
            whole = False
            break
        text = normalise(" ".join(sentences), lower_case)
        distinct.update(word[:_PREFIX] for word in text.split())
        count_characters(text, characters)
        size += len(text)
        lengths.append(len(text))
    return Survey(
        documents=len(lengths),
        distinct_words=len(distinct),
        characters=size,
        alphabet=alphabet_of(characters),
        typical=_typical(np.array(lengths)),
        whole=whole,
    )


def _typical(lengths: np.ndarray) -> int:
    ordered = np.sort(lengths)[::-1]
    if not len(ordered):
        return 0
    return int(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
