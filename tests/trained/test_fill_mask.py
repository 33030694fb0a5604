"""`bertjax.trained.fill_mask`: the probabilities are the model's, whatever else is asked in the same call."""

import directories
import jax
import numpy as np
import pytest
from bpe import train_bpe

from bertjax.config.schema import ComputeConfig
from bertjax.data import tokenizer
from bertjax.errors import CheckpointError, ConfigError, DataError, NumericError
from bertjax.model import network
from bertjax.trained.exchange import import_directory
from bertjax.trained.fill_mask import fill_mask, masked_ids
from bertjax.trained.inference import Loaded, Outputs
from bertjax.vocabulary.unigram import train_sentencepiece

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), ".", "\x1b[31m\u202e"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A directory of transformers, with a vocabulary in which somebody has hidden what a terminal obeys."""
    folder = tmp_path_factory.mktemp("fill")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return directories.write(folder / "hf", tokenizer=folder / "vocab.txt")


def probabilities(text):
    """Of each mask of a text, all of the vocabulary: the model on a row as long as it takes."""
    config, params = directories.ours("bert")
    ids = [PIECES.index(piece) for piece in ["[CLS]", *text.split(), "[SEP]"]]
    L = config.max_positions
    real, positions = (np.arange(L) < len(ids))[None], np.arange(L)[None]
    row = {"tokens": np.zeros((1, L), int), "segments": real.astype(int), "positions": positions}
    row["tokens"][0, : len(ids)] = ids
    row |= {"token_types": np.zeros((1, L), int), "mlm_positions": positions, "pair_positions": np.zeros((1, 1), int)}
    logits = jax.jit(network.apply, static_argnums=(0, 1))(config, ComputeConfig(), params, row)["mlm_logits"][0]
    return np.asarray(jax.nn.softmax(logits))[np.flatnonzero(np.array(ids) == PIECES.index("[MASK]"))]


def test_probabilities_are_those_of_the_model(bert, tmp_path):
    """In each kind of directory, for short and long rows, few masks and as many as a row holds, in any order."""
    texts = ["a [MASK] c .", "[MASK] " * 30, "[MASK]", "b [MASK] c [MASK] e", "a b c d e f g h i j k l m n [MASK] p q"]
    texts = [text.strip() for text in texts * 8]  # more than run at once
    import_directory(bert, tmp_path / "run")
    for path in (bert, tmp_path / "run"):
        found = fill_mask(path, texts, top=4)
        assert [filled.text for filled in found] == texts
        for filled in found[:5] + found[-5:]:
            expected = probabilities(filled.text)[:, : len(PIECES)]
            assert len(filled.choices) == len(expected) == filled.text.count("[MASK]")
            for choices, probs in zip(filled.choices, expected, strict=True):
                np.testing.assert_allclose([p for _, p in choices], np.sort(probs)[::-1][:4], atol=1e-6)
    assert len(fill_mask(bert, ["a [MASK]"], top=1000)[0].choices[0]) == len(PIECES)  # rows of no piece are not named


def test_choices_are_named_best_first(bert):
    (filled,) = fill_mask(bert, (text for text in ["a [MASK] c"]), top=3)
    (probs,) = probabilities("a [MASK] c")
    assert [piece for piece, _ in filled.choices[0]] == [
        PIECES[i] if PIECES[i].isprintable() else r"\x1b[31m\u202e" for i in np.argsort(-probs[: len(PIECES)])[:3]
    ]


def test_nothing_that_a_terminal_obeys_is_in_a_piece(bert):
    pieces = {piece for piece, _ in fill_mask(bert, ["a [MASK]"], top=len(PIECES))[0].choices[0]}
    assert r"\x1b[31m\u202e" in pieces and all(piece.isprintable() for piece in pieces)
    assert pieces >= {piece for piece in PIECES if piece.isprintable()}


def test_what_cannot_be_filled_is_one_line(bert, tmp_path):
    most = directories.ours("bert")[0].max_positions
    headless = directories.write(tmp_path / "headless", tokenizer=bert / "vocab.txt")
    kept = {k: v for k, v in directories.stored(headless).items() if not k.startswith("cls.")}
    directories.restore(headless, kept)
    for path, texts, error, named in (
        (bert, ["a [MASK]", "no\nmask " * 99], ConfigError, r"has no \[MASK\]"),
        (bert, ["a " * (most - 2) + "[MASK]"], ConfigError, f"has {most + 1} tokens; shorten it to {most}"),
        (bert, ["[MASK] \ud800"], DataError, "half a character"),
        (bert, "a [MASK]", DataError, "list of str"),
        (headless, ["a [MASK]"], CheckpointError, "no trained head for masked words"),
        (directories.write(tmp_path / "mute"), ["a [MASK]"], DataError, "has no tokenizer"),
        (tmp_path / "none", ["a [MASK]"], CheckpointError, "there is no such directory"),
    ):
        with pytest.raises(error, match=named) as caught:
            fill_mask(path, texts, top=1)
        assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 300
    assert fill_mask(bert, ["a " * (most - 3) + "[MASK]"], top=1)[0].choices
    assert fill_mask(bert, [], top=1) == []


# How a text becomes a row -------------------------------------------------------------------------------------------


def row_pieces(loaded, text):
    return [loaded.pieces[i] for i in masked_ids(loaded, text)]


def test_words_around_a_mask_keep_their_spaces_in_byte_level_bpe(tmp_path):
    loaded = tokenizer.load(train_bpe(tmp_path / "tokenizer.json"), lower_case=False)
    whole = [loaded.pieces[i] for i in loaded.encode_batch(["The king of the city"])[0]]
    place = whole.index("Ġking")
    expected = ["<s>", *whole[:place], "<mask>", *whole[place + 1 :], "</s>"]
    assert row_pieces(loaded, "The [MASK] of the city") == expected
    assert row_pieces(loaded, "The [MASK], lost") != row_pieces(loaded, "The [MASK] , lost")


def test_a_full_stop_after_a_mask_has_no_space_before_it_in_sentencepiece(tmp_path):
    texts = ["the thing is the singing of the king.", "the ring of the bells.", "the quick brown fox jumps lazily."] * 9
    train_sentencepiece(texts, tmp_path / "spiece.model", vocab_size=41, lower_case=True)
    loaded = tokenizer.load(tmp_path / "spiece.model", lower_case=True)
    assert row_pieces(loaded, "The [MASK].")[-3:] == ["[MASK]", ".", "[SEP]"]
    assert row_pieces(loaded, "The [MASK] .")[-4:] == ["[MASK]", "\u2581", ".", "[SEP]"]
    assert row_pieces(loaded, "[MASK][MASK]") == ["[CLS]", "[MASK]", "[MASK]", "[SEP]"]


def test_probabilities_that_are_no_numbers_are_an_error(bert, monkeypatch):
    def spoiled(self, tokens, **_):
        return Outputs(None, None, np.full((len(tokens), 1, self.config.vocab_size), np.nan, np.float32), None)

    monkeypatch.setattr(Loaded, "__call__", spoiled)
    with pytest.raises(NumericError, match="gives no probabilities for 'a .MASK.'"):
        fill_mask(bert, ["a [MASK]"], top=1)
