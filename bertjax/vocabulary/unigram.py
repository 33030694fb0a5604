"""The training of a SentencePiece model, with ALBERT's settings."""

import io
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from bertjax import storage
from bertjax.data.tokenizer import normalise
from bertjax.errors import DataError, StorageError, one_line


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
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts, lower_case),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece="<pad>",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"],
            character_coverage=0.99995,
            input_sentence_size=sentences,
            shuffle_input_sentence=True,
            num_threads=16,  # fixed, because the order of its sums, and so the model, depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_problem(str(error), vocab_size)) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, model.getvalue())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); check the disk and permissions") from None


def _lines(texts: Iterable[str], lower_case: bool) -> Iterator[str]:
    for text in texts:
        text = normalise(text, lower_case)
        if len(text) <= 1000:
            if text:
                yield text
        else:
            # Lines over 4,192 bytes are dropped by the trainer without a word; 1,000 characters are at most 4,000.
            yield from textwrap.wrap(text, 1000, break_on_hyphens=False)


def _problem(message: str, vocab_size: int) -> str:
    field = f"model.vocab_size = {vocab_size}"
    if most := re.search(r"value <= (\d+)", message):
        return f"{field}: the corpus is too small for so many pieces; use at most {most[1]}, or more text"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{field}: below the number of different characters in the corpus; use at least {least[1]}"
    if "sentences_.empty()" in message:
        return "data.source: no text to train a tokenizer on; name files with text"
    return f"{field}: SentencePiece cannot train on this corpus ({one_line(message)})"
