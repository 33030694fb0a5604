"""What in a text, or in the data set made of it, speaks against the settings: found, and told in a line each."""

import string
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data import order
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError

_SAMPLE = 200_000  # characters
_LONG_WORD = 12  # characters of a word on average; English has 5, Finnish 8
_MARKS = 0.01  # share of the letters that lose a mark
_KMERS = 0.8  # share of the words that go on with all letters but one of the word before
_HELD_OUT = 100  # examples; with fewer, an accuracy is off by 5 points and more by chance alone
_LARGE = 0.1  # share of the text in one document


def sample(documents: Iterable[list[str]]) -> str:
    """The beginning of a text, with a space between sentences: enough for `uncased` and `doubts`."""
    found: list[str] = []
    size = 0
    for document in documents:
        for sentence in document:
            found.append(sentence[: _SAMPLE - size])
            size += len(found[-1])
            if size >= _SAMPLE:
                return " ".join(found)
    return " ".join(found)


def uncased(text: str) -> str:
    """What a text would lose if it were uncased, with an example; "" if next to nothing."""
    letters = sum(map(str.isalpha, text))
    marked = [c for c in text if c.isalpha() and any(map(unicodedata.combining, unicodedata.normalize("NFKD", c)))]
    marked += [c for c in text if unicodedata.combining(c)]
    if len(marked) > _MARKS * letters:
        first = unicodedata.normalize("NFKD", marked[0])
        bare = "".join(c for c in first if not unicodedata.combining(c))
        becomes = f"{marked[0]} becomes {bare}" if bare else f"{marked[0]!a} is left out"
        return f"the marks of {len(marked) / letters:.0%} of the letters ({becomes})"
    if _length_of_words(text) and any(map(str.isupper, text)) and any(map(str.islower, text)):
        capital = next(filter(str.isupper, text))
        return f"the case of what are no words ({capital} becomes {capital.lower()})"
    return ""


def doubts(text: str, data: DataConfig, *, lower_case: bool) -> Iterator[str]:
    """Lines that each name a field, what it does to this text, and what to set instead.

    - Letters lose the marks that tell them apart, as in Japanese (が becomes か), Arabic, Vietnamese or Hindi.
    - The text is FASTA and is read by lines.
    - The words are far longer than those of any language: SMILES, proteins and DNA are hardly words.
    - The words are k-mers of DNA that overlap.
    """
    if data.format in ("auto", "lines") and text.startswith(">"):
        fix = "whose names would become sequences; set it to fasta"
        yield f"data.format = {data.format}: this text looks like FASTA, {fix}"
    words = text.split()
    overlap = sum(len(a) > 1 and a[1:] == b[:-1] for a, b in zip(words, words[1:], strict=False))
    if data.alphabet in ("words", "dna") and overlap > _KMERS * len(words):
        problem = f"these are k-mers that overlap ({' '.join(words[:3])}), and neighbours give a masked one away"
        fix = "write the sequence itself, and set it to dna"
        yield f"data.alphabet = {data.alphabet}: {problem}; {fix}"
    if data.by_rule:
        return
    if lower_case and (lost := uncased(text)):
        yield f"data.case = {data.case}: the text is uncased and loses {lost}; set it to cased if that matters here"
    if length := _length_of_words(text):
        kind = _alphabet(text)
        yield (
            f"data.alphabet = words: those of this text have {length:.0f} letters on average, as in {words[0]:.40}; it"
            f" looks like {kind}: use the recipe configs/sequences.py:{kind}"
        )


def doubts_of_prepared(prepared: Prepared, data: DataConfig, tokenizer: Tokenizer, *, seed: int) -> Iterator[str]:
    """The same of a data set: too little is held out, one document is much of it all, documents make no pairs."""
    lengths = np.concatenate([_document_lengths(split) for split in (prepared.train, prepared.validation)])
    largest = int(np.argmax(lengths))
    if lengths[largest] > _LARGE * lengths.sum():
        split, number = prepared.train, largest
        if largest >= len(split.document_offsets) - 1:
            split, number = prepared.validation, largest - len(split.document_offsets) + 1
        start = int(_document_lengths(split)[:number].sum())
        begins = tokenizer.decode(split.tokens(start, start + min(int(lengths[largest]), 12)))
        fix = "if it is several, put blank lines between them or set data.format, as to lines for one a line"
        share = f"{lengths[largest] / lengths.sum():.0%} of the text"
        yield f"data.source: one document of {len(lengths):,} holds {share}, that which begins {begins!r:.80}; {fix}"
    alone = np.mean(np.concatenate([np.diff(s.document_offsets) for s in (prepared.train, prepared.validation)]) == 1)
    if data.pairs and alone > 1 / 2:
        problem = f"{alone:.0%} of the documents are one sentence, which makes no pair"
        yield f"data.examples = {data.examples}: {problem}; set it to doc_sentences and objective.pair to 0.0"
    yield from doubts_of_held_out(prepared, data, seed=seed)


def doubts_of_held_out(prepared: Prepared, data: DataConfig, *, seed: int) -> Iterator[str]:
    """A line if too few examples are held out, or none."""
    try:
        held_out = sum(len(source.plan) for source in order.sources(data, prepared.validation, seed))
    except DataError as error:
        yield str(error)
        return
    if held_out < _HELD_OUT:
        share = min(0.5, float(f"{data.holdout * 1.5 * _HELD_OUT / held_out:.1g}"))
        fix = f"raise it, to {share} or so, or name more text"
        yield f"data.holdout = {data.holdout}: {held_out} examples are held out, too few to measure by; {fix}"


def _document_lengths(split: order.Split) -> np.ndarray:
    """int64 [documents], in tokens."""
    ends = np.concatenate(([0], np.cumsum(split.sentence_lengths, dtype=np.int64)))
    return np.diff(ends[split.document_offsets])


def _length_of_words(text: str) -> float:
    """Characters of a word on average, if that is more than any language has; 0.0 if it is not."""
    # Only of ASCII, because Japanese and its like have no spaces.
    words = [word for word in text.split() if word.isascii()]
    letters = sum(map(len, words))
    return letters / len(words) if letters > max(_LONG_WORD * len(words), len(text) / 2) else 0.0


def _alphabet(text: str) -> str:
    """Which of the alphabets a text without words may be of."""
    found = set(text) - set(string.whitespace)
    if found <= set("ACGTNacgtn"):
        return "dna"
    return "protein" if found <= set(string.ascii_uppercase + "*-") else "smiles"
