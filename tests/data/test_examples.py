"""Planning and building examples, on corpora whose every token is its own place: 5 + its number in the split."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data import examples
from bertjax.data.examples import build, max_tokens, plan
from bertjax.errors import DataError

SPECIAL = SimpleNamespace(pad=0, unk=1, cls=2, sep=3, mask=4)

documents = st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=2, max_size=8)


def make_split(lengths):
    """A split with the given sentence lengths of each document, and the first token of each document [D + 1]."""
    sentences = [n for document in lengths for n in document]
    starts_D1 = np.cumsum([0] + [sum(document) for document in lengths])
    return SimpleNamespace(
        document_offsets=np.cumsum([0] + [len(document) for document in lengths]),
        sentence_lengths=np.array(sentences, np.int32),
        tokens=lambda d: np.arange(5 + starts_D1[d], 5 + starts_D1[d + 1], dtype=np.int32),
        starts_D1=starts_D1,
    )


def plan_split(split, *, seq_len, pair, short=0.1, seed=0):
    return plan(
        split.document_offsets, split.sentence_lengths, seq_len=seq_len, pair=pair, short_seq_prob=short, seed=seed
    )


def build_all(lengths, *, pair, seq_len, short=0.1, copies=1):
    """Every example of a corpus, `copies` times with other draws, as (chunk index, example)."""
    split = make_split(lengths)
    chunks = plan_split(split, seq_len=seq_len, pair=pair, short=short)
    rng = np.random.default_rng(1)
    keywords = {"pair": pair, "seq_len": seq_len, "special": SPECIAL}
    return (
        split,
        chunks,
        [(i, build(chunks, i, split, rng, **keywords)) for i in range(len(chunks)) for _ in range(copies)],
    )


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


def check_plan(split, chunks, longest):
    """Chunks tile the pieces, pieces tile the sentences, and every chunk ends where the greedy rule says."""
    token_P1 = chunks.piece_starts_P1
    assert chunks.first_N1[0] == 0 and chunks.first_N1[-1] == len(token_P1) - 1
    assert (np.diff(chunks.first_N1) > 0).all()
    assert token_P1[0] == 0 and token_P1[-1] == split.sentence_lengths.sum()
    assert ((np.diff(token_P1) > 0) & (np.diff(token_P1) <= longest)).all()
    assert set(np.cumsum(split.sentence_lengths)) <= set(token_P1) | {0}
    for i, (first, last) in enumerate(pairwise(chunks.first_N1)):
        document = chunks.document_D[chunks.slot_N[i]]
        low, high = split.starts_D1[document : document + 2]
        assert low <= token_P1[first] and token_P1[last] <= high
        assert token_P1[last] - token_P1[first] >= chunks.target_N[i] or token_P1[last] == high
        assert token_P1[last - 1] - token_P1[first] < chunks.target_N[i]


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(5, 24), st.sampled_from(["nsp", "sop", "none"]), st.integers(1, 9))
def test_plan_covers_every_token_once_and_is_greedy(lengths, seq_len, pair, block):
    split = make_split(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_BLOCK", block)  # so that chunks cross blocks in corpora this small
        try:
            chunks = plan_split(split, seq_len=seq_len, pair=pair, short=0.5)
        except DataError:
            assert pair == "nsp" and sum(sum(document) > 0 for document in lengths) == 1
            return
    check_plan(split, chunks, max_tokens(seq_len, pair))


def test_pieces_are_sentences_cut_every_max_tokens():
    chunks = plan_split(make_split([[3, 25, 0, 10], [], [0], [7]]), seq_len=13, pair="sop", short=0.0)
    assert np.diff(chunks.piece_starts_P1).tolist() == [3, 10, 10, 5, 10, 7]
    assert chunks.document_D.tolist() == [0, 3]
    assert chunks.first_N1.tolist() == [0, 2, 3, 5, 6]


def test_plan_of_nothing_is_empty():
    assert len(plan_split(make_split([]), seq_len=13, pair="nsp")) == 0
    assert len(plan_split(make_split([[], [0, 0]]), seq_len=13, pair="none")) == 0


def test_plan_is_a_function_of_the_seed():
    split = make_split([[5] * 40] * 20)
    first, second, other = (plan_split(split, seq_len=32, pair="sop", short=0.5, seed=s).first_N1 for s in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert len(first) != len(other) or (first != other).any()


def test_short_targets_are_drawn_for_each_example():
    chunks = plan_split(make_split([[2] * 20_000] * 4), seq_len=34, pair="nsp", short=0.1)
    short_N = chunks.target_N < 31
    # 0.1 x 29/30, because the uniform target may also be the longest; the standard error is below 0.003.
    assert len(short_N) > 5_000 and abs(short_N.mean() - 0.1 * 29 / 30) < 0.015
    assert chunks.target_N[short_N].min() == 2 and abs(chunks.target_N[short_N].mean() - 16) < 2
    assert 0 < short_N[chunks.slot_N == 0].mean() < 0.5, "one draw for the whole document"


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(5, 24), st.sampled_from(["nsp", "sop", "none"]))
def test_layout_and_length(lengths, seq_len, pair):
    lengths = [[9, 4], *lengths, [1, 2]]  # NSP needs two documents
    split, chunks, built = build_all(lengths, pair=pair, seq_len=seq_len)
    for index, example in built:
        a, b = places(example)
        assert len(a) > 0 and len(a) + len(b) <= max_tokens(seq_len, pair) and len(example.tokens_L) <= seq_len
        pieces = chunks.first_N1[index + 1] - chunks.first_N1[index]
        assert example.pair_weight == float(pair != "none" and pieces > 1)
        assert (len(b) > 0) == bool(example.pair_weight)
        if not example.pair_weight:
            assert example.pair_label == 0
        low, high = chunks.piece_starts_P1[chunks.first_N1[index : index + 2]]
        own = a if example.pair_label == 0 or pair == "nsp" else b
        assert low <= own[0] and own[-1] < high


def test_nothing_is_lost_that_fits():
    _, chunks, built = build_all([[5, 5, 5], [5, 5, 4]], pair="sop", seq_len=18, short=0.0)
    assert sorted(p for _, example in built for p in np.concatenate(places(example))) == list(range(29))


def test_sop_swaps_half_and_the_label_says_which():
    _, _, built = build_all([[4] * 400] * 50, pair="sop", seq_len=35, copies=9)
    labelled = [example for _, example in built if example.pair_weight]
    assert len(labelled) > 20_000
    for example in labelled:
        a, b = places(example)
        assert example.pair_label == (b[0] < a[0])
        if len(a) + len(b) < 32:  # not truncated: the two parts touch
            assert (b[-1] + 1 == a[0]) if example.pair_label else (a[-1] + 1 == b[0])
    assert abs(np.mean([example.pair_label for example in labelled]) - 0.5) < 0.015  # four standard errors


def test_nsp_takes_b_from_another_document_iff_label_1():
    split, chunks, built = build_all([[4] * 400] * 40 + [[], [6] * 9], pair="nsp", seq_len=35, copies=10)
    labels, others = [], []
    for index, example in built:
        a, b = places(example)
        if example.pair_weight:
            document_a, document_b = np.searchsorted(split.starts_D1, (a[0], b[0]), side="right") - 1
            assert document_a == chunks.document_D[chunks.slot_N[index]]
            assert example.pair_label == (document_a != document_b)
            assert split.starts_D1[document_b] <= b[0] and b[-1] < split.starts_D1[document_b + 1]
            labels.append(example.pair_label)
            others.append(document_b)
            if example.pair_label == 0 and len(a) + len(b) < 32:
                assert a[-1] + 1 == b[0]
    assert len(labels) > 15_000 and abs(np.mean(labels) - 0.5) < 0.02
    shares = np.bincount(np.array(others)[np.array(labels) == 1], minlength=42) / sum(labels)
    assert shares[40] == 0 and abs(shares[41] - 1 / 41) < 0.006, "documents are drawn uniformly, whatever their length"


def test_nsp_fills_random_next_up_to_the_target():
    _, chunks, built = build_all([[1] * 200] * 20, pair="nsp", seq_len=23, short=0.5, copies=5)
    full, starts = 0, []
    for index, example in built:
        a, b = places(example)
        if example.pair_label:
            starts.append(b[0] % 200)
            at_end = (b[-1] + 1) % 200 == 0
            assert len(a) + len(b) == chunks.target_N[index] or (at_end and len(a) + len(b) < chunks.target_N[index])
            full += not at_end
    # Uniform over 200 sentences: mean 99.5, standard error 2.6 of some 500 draws.
    assert full > 100 and len(starts) > 400 and abs(np.mean(starts) - 99.5) < 12


def test_nsp_needs_two_documents():
    with pytest.raises(DataError, match=r"data\.pair = 'nsp'.*only 1 document.*data\.pair = 'sop'"):
        plan_split(make_split([[5, 5], [0]]), seq_len=32, pair="nsp")
    assert len(plan_split(make_split([[5, 5], [0]]), seq_len=32, pair="sop")) == 1


def truncate_one_at_a_time(len_a, len_b, longest):
    """The original's loop, lengths only."""
    while len_a + len_b > longest:
        if len_a > len_b:
            len_a -= 1
        else:
            len_b -= 1
    return len_a, len_b


def test_truncation_removes_from_the_longer():
    rng = np.random.default_rng(0)
    for len_a, len_b, longest in np.ndindex(14, 14, 12):
        a, b = examples._truncate(np.arange(len_a), np.arange(len_b), longest, rng)
        assert (len(a), len(b)) == truncate_one_at_a_time(len_a, len_b, longest)


def test_truncation_removes_front_and_back_alike():
    rng = np.random.default_rng(0)
    fronts = np.array([examples._truncate(np.arange(24), np.arange(4), 20, rng)[0][0] for _ in range(4_000)])
    # Binomial(8, 1/2): mean 4, variance 2.
    assert abs(fronts.mean() - 4) < 0.1 and abs(fronts.var() - 2) < 0.25
