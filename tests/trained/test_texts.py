"""`bertjax.trained.texts`: what is no text is named, and words keep their places."""

import pytest

from bertjax.errors import DataError
from bertjax.trained.texts import checked_texts, same_count, words_of


def test_any_iterable_of_texts_is_a_list_of_them():
    assert checked_texts("f", (text for text in ["a", ""])) == ["a", ""]


@pytest.mark.parametrize("texts", ["a text", b"bytes", [b"bytes"], ["a", None], 3, None])
def test_what_is_no_list_of_texts_is_named(texts):
    with pytest.raises(DataError, match="f: takes a list of str"):
        checked_texts("f", texts)


def test_half_a_character_is_named():
    with pytest.raises(DataError, match="half a character") as error:
        checked_texts("f", ["a", "b\n\ud800"])
    assert str(error.value).isascii() and len(str(error.value).splitlines()) == 1


def test_there_is_one_for_each():
    same_count("f", "texts", [1], "pairs", [2])
    with pytest.raises(DataError, match="f: 1 texts and 2 pairs; give one for each"):
        same_count("f", "texts", [1], "pairs", [1, 2])


@pytest.mark.parametrize("sentence", ["  Anna  was\tin New\u00a0York\n", ["Anna", "", "in", "New York"], "", []])
def test_a_word_stands_where_it_is_said_to(sentence):
    text, words, starts = words_of(sentence)
    assert words == (sentence.split() if isinstance(sentence, str) else sentence)
    assert [text[start : start + len(word)] for word, start in zip(words, starts, strict=True)] == words
    assert sorted(starts) == starts
