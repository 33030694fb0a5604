"""Training a tokenizer gives the same file each time, and says what is wrong with a corpus."""

import pytest
from bpe import TEXT

from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError
from bertjax.vocabulary.unigram import train_sentencepiece


def test_training_is_deterministic_and_keeps_long_lines(tmp_path):
    model, again = tmp_path / "one" / "spiece.model", tmp_path / "again" / "spiece.model"
    train_sentencepiece(TEXT, model, vocab_size=45, lower_case=True)
    train_sentencepiece(iter(TEXT), again, vocab_size=45, lower_case=True)
    assert again.read_bytes() == model.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["spiece.model"]
    train_sentencepiece([" ".join(TEXT)], again, vocab_size=44, lower_case=True)  # one line of 13 kB
    assert "▁the" in load_tokenizer(again, lower_case=True).pieces


def test_training_problems_name_the_fix(tmp_path):
    path = tmp_path / "m.model"
    with pytest.raises(DataError, match=r"model.vocab_size = 30000: .* at most \d+, or more text$"):
        train_sentencepiece(TEXT, path, vocab_size=30000, lower_case=True)
    with pytest.raises(DataError, match=r"model.vocab_size = 20: .* at least \d+$"):
        train_sentencepiece(TEXT, path, vocab_size=20, lower_case=True)
    with pytest.raises(DataError, match="no text"):
        train_sentencepiece([" "], path, vocab_size=45, lower_case=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="m.model"):
        train_sentencepiece(TEXT, tmp_path / "file" / "m.model", vocab_size=45, lower_case=True)
    assert not path.exists()
