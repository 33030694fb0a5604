"""`bertjax.trained.fill_mask`: how a text with masks becomes a row."""

from bpe import train_bpe
from small import tiny

from bertjax.data import tokenizer
from bertjax.trained import fill_mask as predict


def row_pieces(tokens, text):
    config = tiny(model={"vocab_size": tokens.vocab_size})
    return [tokens.pieces[i] for i in predict._row(config, tokens, text)["tokens"][0] if i != tokens.special.pad]


def test_words_around_a_mask_keep_their_spaces_in_byte_level_bpe(tmp_path):
    tokens = tokenizer.load(train_bpe(tmp_path / "tokenizer.json"), lower_case=False)
    whole = [tokens.pieces[i] for i in tokens.encode_batch(["The king of the city"])[0]]
    place = whole.index("Ġking")
    expected = ["<s>", *whole[:place], "<mask>", *whole[place + 1 :], "</s>"]
    assert row_pieces(tokens, "The [MASK] of the city") == expected
    assert row_pieces(tokens, "The [MASK], lost") != row_pieces(tokens, "The [MASK] , lost")
