"""A WordPiece vocabulary is as BERT's, the same from every process, and no larger than the text gives."""

import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from bpe import TEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError
from bertjax.vocabulary import wordpiece
from bertjax.vocabulary.wordpiece import SPECIAL, train_wordpiece

CODE = """
import sys
from pathlib import Path
from bpe import TEXT
from bertjax.vocabulary.wordpiece import train_wordpiece
train_wordpiece(TEXT, Path(sys.argv[1]), vocab_size=int(sys.argv[2]), lower_case=True)
"""


def pieces(path):
    return path.read_text(encoding="utf-8").splitlines()


def trained(path, texts, vocab_size, lower_case=True):
    train_wordpiece(texts, path, vocab_size=vocab_size, lower_case=lower_case)
    return pieces(path)


def largest(path, texts, lower_case=True):
    """The largest vocabulary that the error names."""
    with pytest.raises(
        DataError, match=r"^model.vocab_size = 9999: the corpus is too small .* or more text$"
    ) as caught:
        train_wordpiece(texts, path, vocab_size=9999, lower_case=lower_case)
    return int(str(caught.value).split("at most ")[1].split(",")[0])


def test_each_process_writes_the_same_bytes_whatever_the_order_of_the_texts(tmp_path):
    """The library by itself breaks ties by chance: of two processes each makes other pieces."""
    size = largest(tmp_path / "none.txt", TEXT)
    first = trained(tmp_path / "here.txt", [*reversed(TEXT)], size)
    for name in ("one.txt", "two.txt"):
        path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
        environment = {"PYTHONPATH": ":".join(path), "PYTHONHASHSEED": str(len(name))}
        subprocess.run([sys.executable, "-c", CODE, str(tmp_path / name), str(size)], check=True, env=environment)
        assert (tmp_path / name).read_bytes() == (tmp_path / "here.txt").read_bytes()
    assert len(first) == size == len(set(first))


def test_the_special_pieces_come_first_in_berts_order_then_characters_then_what_is_frequent(tmp_path):
    found = trained(tmp_path / "vocab.txt", ["abab abab ab. B!"] * 3, 13)
    assert found == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", ".", "a", "b", "##a", "##b", "ab", "##ab"]
    cased = trained(tmp_path / "cased.txt", ["abab abab ab. B!"] * 3, 15, lower_case=False)
    assert cased[5:] == ["!", ".", "B", "a", "b", "##a", "##b", "ab", "##ab", "abab"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(alphabet="abcABé漢字が .!-\u0301\u00a0\t", min_size=1, max_size=30), min_size=1, max_size=8))
def test_every_text_it_was_trained_on_has_a_spelling(tmp_path_factory, texts):
    """Nothing of it is unknown, and the ids are those of the tokenizers library by itself."""
    path = tmp_path_factory.mktemp("wordpiece") / "vocab.txt"
    for lower_case in (True, False):
        size = largest(path, [*texts, "a"], lower_case)
        trained(path, [*texts, "a"], size, lower_case)
        loaded = load_tokenizer(path, lower_case=lower_case)
        ids, lengths = loaded.encode_batch(texts)
        assert loaded.special.unk not in ids
        reference = tokenizers.BertWordPieceTokenizer(str(path), lowercase=lower_case)
        assert ids.tolist() == [i for text in texts for i in reference.encode(text, add_special_tokens=False).ids]


def test_words_with_a_character_that_is_hardly_there_are_not_learnt(tmp_path):
    texts = ["hello there"] * 9000 + ["hel☃lo hel☃lo"]
    found = trained(tmp_path / "vocab.txt", texts, largest(tmp_path / "none.txt", texts))
    assert "hello" in found and not any("☃" in piece for piece in found)
    loaded = load_tokenizer(tmp_path / "vocab.txt", lower_case=True)
    assert loaded.encode_batch(["hel☃lo"])[0].tolist() == [loaded.special.unk]


def test_what_is_counted_in_several_goes_is_the_same(tmp_path, monkeypatch):
    whole = trained(tmp_path / "one.txt", TEXT, 60)
    monkeypatch.setattr(wordpiece, "_PENDING", 7)
    assert trained(tmp_path / "two.txt", iter(TEXT), 60) == whole
    assert whole[: len(SPECIAL)] == list(SPECIAL)


def test_training_problems_name_the_fix(tmp_path):
    path = tmp_path / "vocab.txt"
    most = largest(path, TEXT)
    with pytest.raises(DataError, match=r"model.vocab_size = 20: below the number of .* at least (\d+)$") as caught:
        train_wordpiece(TEXT, path, vocab_size=20, lower_case=True)
    least = int(str(caught.value).split()[-1])
    with pytest.raises(DataError, match="no text"):
        train_wordpiece([" ", "\u0001"], path, vocab_size=45, lower_case=True)
    assert not path.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="vocab.txt"):
        train_wordpiece(TEXT, tmp_path / "file" / "vocab.txt", vocab_size=least, lower_case=True)
    for size in (least, most):
        assert len(trained(path, TEXT, size)) == size
