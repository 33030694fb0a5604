"""Training a tokenizer gives the same file each time, and says what is wrong with a corpus."""

import re

import numpy as np
import pytest
from bpe import TEXT

from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError
from bertjax.vocabulary.unigram import pieces_for, train_sentencepiece


def test_training_is_deterministic_and_keeps_long_lines(tmp_path):
    model, again = tmp_path / "one" / "spiece.model", tmp_path / "again" / "spiece.model"
    train_sentencepiece(TEXT, model, vocab_size=45, lower_case=True)
    train_sentencepiece(iter(TEXT), again, vocab_size=45, lower_case=True)
    assert again.read_bytes() == model.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["spiece.model"]
    train_sentencepiece([" ".join(TEXT)], again, vocab_size=44, lower_case=True)  # one line of 13 kB
    assert "▁the" in load_tokenizer(again, lower_case=True).pieces


def test_too_many_pieces_are_answered_with_a_number_that_makes_sense(corpus_file, tmp_path):
    """It can be trained, and it is far from all that the text has, most of which occur once or twice."""
    texts, path = corpus_file.read_text().splitlines(), tmp_path / "m.model"
    with pytest.raises(DataError, match=r"^model.vocab_size = 30000: .* more text$") as error:
        train_sentencepiece(texts, path, vocab_size=30_000, lower_case=True)
    most, advised = re.search(r"has only ([\d,]+) pieces.* set it to (\d+), or", str(error.value)).groups()
    assert int(advised) < int(most.replace(",", "")) / 2
    train_sentencepiece(texts, path, vocab_size=int(advised), lower_case=True)
    counts = load_tokenizer(path, lower_case=True).encode_batch(texts)[0]
    assert (np.bincount(counts) >= 5).mean() > 0.9
    with pytest.raises(DataError, match=r"has only (\d+) pieces.* set it to \1, or"):  # a text that has few, needs them
        train_sentencepiece(["Nobody knew."] * 99, path, vocab_size=300, lower_case=True)


def test_the_size_follows_from_tokens_and_characters():
    sizes = [pieces_for(tokens, 60) for tokens in (1e4, 3e5, 1e6, 3e6, 1e7, 1e8, 1e9)]
    assert sizes == sorted(sizes) and sizes[-1] == sizes[-2] == 16_384
    assert [size % 64 for size in sizes if size >= 1_000] == [0] * 6
    assert pieces_for(3e5, 3_000) >= 6_000


def test_training_problems_name_the_fix(tmp_path):
    path = tmp_path / "m.model"
    with pytest.raises(DataError, match=r"model.vocab_size = 20: .* at least \d+$"):
        train_sentencepiece(TEXT, path, vocab_size=20, lower_case=True)
    with pytest.raises(DataError, match="no text"):
        train_sentencepiece([" "], path, vocab_size=45, lower_case=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="m.model"):
        train_sentencepiece(TEXT, tmp_path / "file" / "m.model", vocab_size=45, lower_case=True)
    assert not path.exists()
