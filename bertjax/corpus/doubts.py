"""What in a text speaks against the settings with which it is to be read: found in a sample, told in a line each."""

import unicodedata
from collections.abc import Iterable, Iterator

from bertjax.config.schema import DataConfig

_SAMPLE = 200_000  # characters
_LONG_WORD = 12  # characters of a word on average; English has 5, Finnish 8
_MARKS = 0.01  # share of the letters that lose a mark


def doubts(documents: Iterable[list[str]], data: DataConfig) -> Iterator[str]:
    """Lines that each name a field, what it does to the text of these documents, and what to set instead.

    - Letters lose the marks that tell them apart, as in Japanese (が becomes か), Vietnamese or Hindi.
    - The text is FASTA and is read by lines.
    - The words are far longer than those of any language: SMILES, proteins and DNA are hardly words.
    """
    sample = _sample(documents)
    if data.format == "lines" and sample.startswith(">"):
        yield "data.format = lines: this text looks like FASTA, whose names would become sequences; set it to fasta"
    if data.by_rule:
        return
    if data.lower_case:
        letters = sum(map(str.isalpha, sample))
        marked = [
            c for c in sample if c.isalpha() and any(map(unicodedata.combining, unicodedata.normalize("NFKD", c)))
        ]
        marked += [c for c in sample if unicodedata.combining(c)]
        if len(marked) > _MARKS * letters:
            first = unicodedata.normalize("NFKD", marked[0])
            bare = "".join(c for c in first if not unicodedata.combining(c))
            becomes = f"{marked[0]} becomes {bare}" if bare else f"{marked[0]!a} is left out"
            yield (
                f"data.lower_case = True: removes the marks of {len(marked) / letters:.0%} of the letters ({becomes});"
                " set it to False if marks matter here"
            )
    # Only of ASCII, because Japanese and its like have no spaces.
    words = [word for word in sample.split() if word.isascii()]
    letters = sum(map(len, words))
    if letters > max(_LONG_WORD * len(words), len(sample) / 2):
        yield (
            f"data.alphabet = words: those of this text have {letters / len(words):.0f} letters on average; set it to"
            " smiles, protein or dna if it is that"
        )


def _sample(documents: Iterable[list[str]]) -> str:
    found: list[str] = []
    size = 0
    for document in documents:
        for sentence in document:
            found.append(sentence[: _SAMPLE - size])
            size += len(found[-1])
            if size >= _SAMPLE:
                return " ".join(found)
    return " ".join(found)
