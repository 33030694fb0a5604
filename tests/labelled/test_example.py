"""The frame of texts is BERT's, and examples share what is the same in them."""

import numpy as np
import pytest

from bertjax.data.tokenizer import Special
from bertjax.labelled.example import Example, Frame

SPECIAL = Special(pad=0, unk=1, cls=2, sep=3, mask=4)


def test_frames():
    first, second = np.array([7, 8], np.int32), np.array([9], np.int32)
    for token_types in (True, False):
        frame = Frame(SPECIAL, token_types)
        tokens, types = frame.one(first)
        assert (tokens.tolist(), types.tolist()) == ([2, 7, 8, 3], [0, 0, 0, 0])
        tokens, types = frame.two(first, second)
        assert tokens.tolist() == [2, 7, 8, 3, 9, 3]
        assert types.tolist() == [0, 0, 0, 0, *[int(token_types)] * 2]
        assert tokens.dtype == types.dtype == np.int32


def test_token_types_are_shared_and_cannot_be_written_to():
    frame = Frame(SPECIAL, True)
    a, b = (frame.two(np.arange(3, dtype=np.int32), np.arange(n, dtype=np.int32))[1] for n in (4, 4))
    assert a is b
    with pytest.raises(ValueError, match="read-only"):
        a[0] = 1


def test_what_a_kind_does_not_have_is_empty():
    example = Example(np.arange(3), np.zeros(3), 0)
    assert example.label == -1 and example.span is None
    assert example.labels.shape == example.words.shape == example.max_context.shape == (0,)
    assert example.offsets.shape == (0, 2)
