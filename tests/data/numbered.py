"""Splits whose every token is its own place, 5 + its number, so that an example tells what it is made of."""

from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from bertjax.config.schema import DataConfig
from bertjax.data.examples import build
from bertjax.data.planning import plan

SPECIAL = SimpleNamespace(pad=0, unk=1, cls=2, sep=3, mask=4)
MODES = ("nsp", "sop", "full_sentences", "doc_sentences")

documents = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=2, max_size=8)
"""The sentence lengths of some documents."""


class FakeSplit:
    """The split of some documents, given as lists of sentence lengths; notes what is read."""

    def __init__(self, lengths):
        self.document_offsets = np.cumsum([0] + [len(document) for document in lengths])
        self.sentence_lengths = np.array([n for document in lengths for n in document], np.int32)
        self.sentence_lengths.flags.writeable = False
        self.starts_D1 = np.cumsum([0] + [sum(document) for document in lengths])
        self.reads = []

    def tokens(self, start, end):
        assert 0 <= start < end <= self.starts_D1[-1]
        self.reads.append((start, end))
        tokens = np.arange(5 + start, 5 + end, dtype=np.int32)
        tokens.flags.writeable = False
        return tokens

    def document(self, place):
        return int(np.searchsorted(self.starts_D1, place, side="right")) - 1


def plan_split(split, mode, *, seq_len, short=0.1, seed=0, flaws=False):
    data = DataConfig(examples=mode, seq_len=seq_len, short_seq_prob=short, original_flaws=flaws)
    return plan(split.document_offsets, split.sentence_lengths, data, seed=seed)


def build_all(lengths, mode, *, seq_len, short=0.1, copies=1, flaws=False):
    """Every example of a split, `copies` times with other draws, as (number, example)."""
    split = FakeSplit(lengths)
    planned = plan_split(split, mode, seq_len=seq_len, short=short, flaws=flaws)
    rng = np.random.default_rng(1)
    numbers = [i for i in range(len(planned)) for _ in range(copies)]
    return split, planned, [(i, build(planned, i, split, rng, special=SPECIAL)) for i in numbers]


def places(example):
    """The places of A's and of B's tokens in the split, after checking the layout around them."""
    tokens_L, types_L = example.tokens_L, example.token_types_L
    assert tokens_L.dtype == types_L.dtype == np.int32 and len(tokens_L) == len(types_L)
    separators = np.flatnonzero(tokens_L == SPECIAL.sep)
    assert tokens_L[0] == SPECIAL.cls and separators[-1] == len(tokens_L) - 1
    assert len(separators) == (2 if example.pair_weight else 1)
    np.testing.assert_array_equal(types_L, np.arange(len(tokens_L)) > separators[0])
    a, b = tokens_L[1 : separators[0]], tokens_L[separators[0] + 1 : -1]
    for segment in (a, b):
        assert (segment >= 5).all() and (np.diff(segment) == 1).all()
    return a - 5, b - 5


def chunk(planned, index):
    """First token of a chunk of pairs, its end, and how many pieces it has."""
    first, last = planned.first_N1[index : index + 2]
    return *planned.piece_starts_P1[[first, last]], last - first
