"""The training of a SentencePiece model, with ALBERT's settings, and how many pieces a text can teach."""

import io
import itertools
import math
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from bertjax import storage
from bertjax.data.tokenizer import normalise
from bertjax.errors import DataError, StorageError, one_line

CHARACTERS_OF_TOKEN = 3.5
"""In text with spaces and a vocabulary that fits it: 3.1 in 1 MB of English articles, 3.7 in 3 MB of novels."""
_COVERAGE = 0.99995
"""Share of a text whose characters become pieces."""
_MOST = 16_384
_CONTROL = ["[CLS]", "[SEP]", "[MASK]"]
_MARKS = ["(", ")", '"', "-", ".", "–", "£", "€"]  # pieces of their own, in any text
_ALONGSIDE = 2 + len(_CONTROL) + len(_MARKS)  # with <pad> and <unk>


def pieces_for(tokens: float, alphabet: int) -> int:
    """How many pieces a text of so many tokens and different characters teaches: 4 times the root of its tokens, up to
    16,384, and at least twice the characters.

    A piece then occurs 130 times in 1 MB, and a thousand times in 100 MB. From 1,000 on it is a multiple of 64, because
    devices like such sizes.
    """
    pieces = round(max(min(4 * math.sqrt(tokens), _MOST), 2 * alphabet + _ALONGSIDE))
    return pieces if pieces < 1_000 else -(-pieces // 64) * 64


def least_pieces(alphabet: int) -> int:
    """How many there are in any vocabulary of a text of so many different characters."""
    return alphabet + _ALONGSIDE


def count_characters(text: str, counts: Counter[str]) -> None:
    """Add the characters of a text to the counts, composed as SentencePiece sees them."""
    counts.update(text if text.isascii() else unicodedata.normalize("NFKC", text))


def alphabet_of(counts: Counter[str]) -> int:
    """How many different characters become pieces, where each occurs so often: the commonest, up to the coverage."""
    found = sorted((count for character, count in counts.items() if character not in _MARKS), reverse=True)
    enough = _COVERAGE * sum(found)
    needed = sum(before < enough for before in itertools.accumulate(found[:-1], initial=0)) if found else 0
    return needed + (" " not in counts)  # which stands before each first word, too


def train_sentencepiece(
    texts: Iterable[str],
    path: Path,
    *,
    vocab_size: int,
    lower_case: bool,
    seed: int = 0,
    sentences: int = 10_000_000,
) -> None:
    """Train a unigram model with ALBERT's settings and write it to `path`, whole or not at all.

    `texts` are sentences or paragraphs; at most `sentences` of them, a random sample, are used (10 million in ALBERT).
    24 MB of sentences take half a minute and 0.5 GB of memory. Both grow with the text: where that is too much, lower
    `sentences`. The same texts and seed give the same bytes. Raises DataError for a corpus too small for `vocab_size`,
    StorageError where `path` cannot be written. Source: google-research/albert, README "SentencePiece".
    """
    model = io.BytesIO()
    characters: Counter[str] = Counter()
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts, lower_case, characters),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            control_symbols=_CONTROL,
            user_defined_symbols=_MARKS,
            character_coverage=_COVERAGE,
            input_sentence_size=sentences,
            shuffle_input_sentence=True,
            num_threads=16,  # fixed, because the order of its sums, and so the model, depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_problem(str(error), vocab_size, characters)) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, model.getvalue())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); check the disk and permissions") from None


def _lines(texts: Iterable[str], lower_case: bool, characters: Counter[str]) -> Iterator[str]:
    """The lines to train on; `characters` counts what is in them."""
    for text in texts:
        text = normalise(text, lower_case)
        count_characters(text, characters)
        if len(text) <= 1000:
            if text:
                yield text
        else:
            # Lines over 4,192 bytes are dropped by the trainer without a word; 1,000 characters are at most 4,000.
            yield from textwrap.wrap(text, 1000, break_on_hyphens=False)


def _problem(message: str, vocab_size: int, characters: Counter[str]) -> str:
    field = f"model.vocab_size = {vocab_size}"
    if most := re.search(r"value <= (\d+)", message):
        sensible = pieces_for(characters.total() / CHARACTERS_OF_TOKEN, alphabet_of(characters))
        return (
            f"{field}: this text has only {int(most[1]):,} pieces, and most of these are too rare to learn; set it to"
            f" {min(sensible, int(most[1]))}, or name more text"
        )
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{field}: below the number of different characters in the corpus; use at least {least[1]}"
    if "sentences_.empty()" in message:
        return "data.source: no text to train a tokenizer on; name files with text"
    return f"{field}: SentencePiece cannot train on this corpus ({one_line(message)})"
