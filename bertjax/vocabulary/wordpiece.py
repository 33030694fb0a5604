"""The training of a WordPiece vocabulary, as BERT's: a vocab.txt."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bertjax import storage
from bertjax.data.tokenizer import bert_normalizer
from bertjax.errors import DataError, StorageError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_COVERAGE = 0.99995  # of the characters, as in ALBERT's SentencePiece: words with a rarer one are unknown
_LEAST = 2  # a piece that the text has only once is not made
_LONGEST = 100  # characters of a word; BERT takes a longer one for unknown
_PENDING = 200_000  # different ones that are held before they are cut


def train_wordpiece(texts: Iterable[str], path: Path, *, vocab_size: int, lower_case: bool, exact: bool = True) -> int:
    """Train a vocabulary of `vocab_size` pieces and write it to `path`, whole or not at all; returns their number.

    First BERT's five special pieces, then the characters, then what is joined from them, the most frequent first. The
    same texts in any order give the same bytes. 9 MB take 5 seconds; memory grows with the number of different
    words. A corpus that is too small for `vocab_size` gives what it has unless `exact`. Raises DataError for it if so,
    and for one without text or of too many characters, StorageError where `path` cannot be written.
    """
    words = _words(texts, lower_case)
    alphabet = _alphabet(words)
    if not alphabet:
        raise DataError("data.source: no text to train a tokenizer on; name files with text")
    least = len(SPECIAL) + len(alphabet)
    if vocab_size < least:
        problem = "below the number of different characters in the corpus, by themselves and inside words"
        raise DataError(f"model.vocab_size = {vocab_size}: {problem}; use at least {least}")
    model = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=_LEAST,
        # With the characters, whose order otherwise differs in each process, and so which of two equal pairs is joined.
        special_tokens=[*SPECIAL, *alphabet],
        limit_alphabet=0,
        show_progress=False,
    )
    known = set(alphabet)
    model.train_from_iterator(
        (" ".join([word] * count) for word, count in words.items() if known >= set(word)), trainer
    )
    ids = model.get_vocab()
    if exact and len(ids) < vocab_size:
        fix = f"use at most {len(ids)}, or more text"
        raise DataError(f"model.vocab_size = {vocab_size}: the corpus is too small for so many pieces; {fix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, "".join(f"{piece}\n" for piece in sorted(ids, key=ids.__getitem__)))
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); check the disk and permissions") from None
    return len(ids)


def _words(texts: Iterable[str], lower_case: bool) -> Counter[str]:
    """How often each word occurs, as BERT cuts a text into words, in the order of the words."""
    normalizer, split = bert_normalizer(lower_case), pre_tokenizers.BertPreTokenizer()
    found: Counter[str] = Counter()
    for pending in _between_spaces(texts):
        for text, count in pending.items():
            for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text)):
                if len(word) <= _LONGEST:
                    found[word] += count
    return Counter(dict(sorted(found.items())))


def _between_spaces(texts: Iterable[str]) -> Iterator[Counter[str]]:
    """How often there is what: normalising each once takes a tenth of the time of normalising the text."""
    pending: Counter[str] = Counter()
    for text in texts:
        pending.update(text.split())
        if len(pending) > _PENDING:  # whole sentences in Japanese
            yield pending
            pending = Counter()
    yield pending


def _alphabet(words: Counter[str]) -> list[str]:
    """The characters as pieces, without the rarest ones: all of them, then as they stand inside words.

    The trainer leaves out a character inside a word that is no piece by itself; and it may yet begin a word.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    covered = itertools.accumulate(counts[character] for character in ranked)
    needed = _COVERAGE * counts.total()
    kept = {c for c, reached in zip(ranked, covered, strict=True) if reached - counts[c] < needed}
    inside = set().union(*(word[1:] for word in words)) & kept
    return [*sorted(kept), *(f"##{character}" for character in sorted(inside))]
