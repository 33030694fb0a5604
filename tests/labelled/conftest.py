"""Tokenizers of each kind, for all tests of what is encoded."""

import pytest
import tokenizers
from bpe import TEXT, train_bpe

from bertjax.data import tokenizer
from bertjax.vocabulary.unigram import train_sentencepiece
from bertjax.vocabulary.wordpiece import train_wordpiece

HARD = ["Café naïve 東京 ﬁne ½ in 2020, 1,000, é ß İ Σς 🤗", "E\u0301a ﷺ 가 x\u0323\u0307 – “ok”…"]


def _unigram_json(path):
    """As transformers saves ALBERT."""
    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "▁", "▁the", "▁king", "▁caf", "e", "t", "h", "k", "in", "g"]
    built = tokenizers.Tokenizer(tokenizers.models.Unigram([(piece, -1.0 - i) for i, piece in enumerate(pieces)], 1))
    normalizers = tokenizers.normalizers
    built.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    built.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    built.save(str(path))


@pytest.fixture(scope="session")
def every_tokenizer(tmp_path_factory):
    """Name -> tokenizer: SentencePiece, WordPiece and three tokenizer.json, uncased and cased."""
    folder = tmp_path_factory.mktemp("tokenizers")
    train_sentencepiece(TEXT + HARD * 30, folder / "spiece.model", vocab_size=70, lower_case=True)
    train_wordpiece(TEXT + HARD * 30, folder / "vocab.txt", vocab_size=167, lower_case=True)
    train_bpe(folder / "bpe.json")
    train_bpe(folder / "lower.json", prefix_space=True, normalizer=tokenizers.normalizers.Lowercase())
    _unigram_json(folder / "unigram.json")
    found = {}
    for name in ("spiece.model", "vocab.txt"):
        for case in (True, False):
            found[f"{name} {'uncased' if case else 'cased'}"] = tokenizer.load(folder / name, lower_case=case)
    return found | {
        name: tokenizer.load(folder / name, lower_case=None) for name in ("bpe.json", "lower.json", "unigram.json")
    }


@pytest.fixture(scope="session")
def pieces(every_tokenizer):
    """A tokenizer of words."""
    return every_tokenizer["vocab.txt uncased"]
