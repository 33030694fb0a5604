"""An export as a sentence encoder: what sentence-transformers makes of it is the mean that `encode_text` gives."""

import json
import warnings

import numpy as np
import pytest
from directories import hf, ours, write

import bertjax

TEXTS = ["a small test", "one more", "the test is a test of a test"]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def directory(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "small", "test", "one", "more", "the", "is", "of"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return write(folder / "model", request.param, tokenizer=folder / "vocab.txt")


def test_every_kind_of_pooling_is_named(directory):
    """text-embeddings-inference wants each, and takes max_seq_length for what the model can hold."""
    config = json.loads((directory / "config.json").read_text())
    pooling = json.loads((directory / "1_Pooling" / "config.json").read_text())
    assert pooling.pop("word_embedding_dimension") == config["hidden_size"]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    assert pooling == {f"pooling_mode_{name}": name == "mean_tokens" for name in modes}
    settings = json.loads((directory / "sentence_bert_config.json").read_text())
    assert settings["max_seq_length"] == config["max_position_embeddings"]
    modules = json.loads((directory / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    assert "contrastive training" in (directory / "README.md").read_text()


def test_no_tokenizer_no_sentences(tmp_path):
    directory = write(tmp_path / "model")
    assert not (directory / "modules.json").exists() and not (directory / "1_Pooling").exists()


def test_sentence_transformers_computes_the_same(directory):
    hf()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sentence_transformers = pytest.importorskip("sentence_transformers", reason="it is not installed")
        peer = sentence_transformers.SentenceTransformer(str(directory), device="cpu")
        theirs = peer.encode(TEXTS, show_progress_bar=False)
    loaded = bertjax.load(directory)
    assert peer.get_max_seq_length() == loaded.config.max_positions == ours("bert")[0].max_positions
    np.testing.assert_allclose(loaded.encode_text(TEXTS), theirs, atol=1e-5, rtol=0)
