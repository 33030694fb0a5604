"""Planning and building examples, on splits whose every token is its own place: 5 + its number in the split."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.schema import DataConfig
from bertjax.data import examples
from bertjax.data.examples import build, plan
from bertjax.errors import DataError

SPECIAL = SimpleNamespace(pad=0, unk=1, cls=2, sep=3, mask=4)
MODES = ("nsp", "sop", "full_sentences", "doc_sentences")

documents = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=2, max_size=8)


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


# The plan of pairs ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(documents, st.integers(5, 24), st.sampled_from(["nsp", "sop"]), st.sampled_from([0.0, 0.5]), st.integers(1, 9))
def test_chunks_cover_every_token_once_and_are_greedy(lengths, seq_len, mode, short, block):
    split, longest = FakeSplit(lengths), seq_len - 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_BLOCK", block)  # so that chunks cross blocks in splits this small
        planned = plan_split(split, mode, seq_len=seq_len, short=short)
    token_P1 = planned.piece_starts_P1
    assert token_P1[0] == 0 and token_P1[-1] == split.starts_D1[-1]
    assert ((np.diff(token_P1) > 0) & (np.diff(token_P1) <= longest)).all()
    assert set(np.cumsum(split.sentence_lengths)) <= set(token_P1)
    np.testing.assert_array_equal(token_P1[planned.document_pieces_D1], split.starts_D1)
    assert planned.first_N1[0] == 0 and planned.first_N1[-1] == len(token_P1) - 1
    assert len(planned) == len(planned.first_N1) - 1
    for first, last in pairwise(planned.first_N1):
        begin, end = token_P1[first], token_P1[last]
        assert begin < end <= split.starts_D1[split.document(begin) + 1]
        assert token_P1[last - 1] - begin < longest
        if not short:
            assert end - begin >= longest or end in split.starts_D1


def test_pieces_are_sentences_cut_every_seq_len_less_3():
    planned = plan_split(FakeSplit([[3, 25, 10], [7]]), "sop", seq_len=13, short=0.0)
    assert np.diff(planned.piece_starts_P1).tolist() == [3, 10, 10, 5, 10, 7]
    assert planned.first_N1.tolist() == [0, 2, 3, 5, 6]
    assert planned.lengths_N.tolist() == [13, 12, 13, 9]


@pytest.mark.parametrize("mode", MODES)
def test_plan_of_nothing_is_empty(mode):
    assert len(plan_split(FakeSplit([]), mode, seq_len=13)) == 0


@pytest.mark.parametrize("flaws", [False, True])
def test_plan_is_a_function_of_the_seed(flaws):
    split = FakeSplit([[5] * 40] * 20)
    first, second, other = (
        plan_split(split, "nsp", seq_len=32, short=0.5, seed=s, flaws=flaws).lengths_N for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert len(first) != len(other) or (first != other).any()


def test_short_targets_are_drawn_for_each_example():
    # Sentences of one token: a chunk is as long as its target.
    planned = plan_split(FakeSplit([[1] * 50_000] * 4), "nsp", seq_len=34, short=0.1)
    size_N = planned.lengths_N - 3
    short_N = size_N < 31
    # 0.1 x 29/30, because the uniform target may also be the longest; the standard error is below 0.004.
    assert len(short_N) > 6_000 and abs(short_N.mean() - 0.1 * 29 / 30) < 0.015
    assert size_N[short_N].min() == 2 and abs(size_N[short_N].mean() - 16) < 2
    assert 0 < short_N[:1000].mean() < 0.5, "one draw for the whole document"


def test_nsp_needs_two_documents():
    with pytest.raises(DataError, match=r"^data\.examples = 'nsp'.*only 1 document.*data\.examples = 'sop'"):
        plan_split(FakeSplit([[5, 5]]), "nsp", seq_len=32)
    assert len(plan_split(FakeSplit([[5, 5]]), "nsp", seq_len=32, flaws=True)) > 0
    for mode in MODES[1:]:
        assert len(plan_split(FakeSplit([[5, 5]]), mode, seq_len=32)) == 1


# One segment ------------------------------------------------------------------------------------------------------


def sentences_one_by_one(lengths, longest, cross):
    """Lists of (document, tokens) pieces, packed one after the other."""
    packed, size = [], longest
    for number, document in enumerate(lengths):
        for sentence in document:
            for piece in [longest] * (sentence // longest) + [sentence % longest] * (sentence % longest > 0):
                new = not packed or number != packed[-1][-1][0]
                size += piece + new
                if size > longest or (new and not cross):
                    packed.append([])
                    size = piece
                packed[-1].append((number, piece))
    return packed


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(5, 40), st.booleans(), st.integers(1, 9))
def test_sentences_are_packed_while_they_fit(lengths, seq_len, cross, block):
    mode = "full_sentences" if cross else "doc_sentences"
    expected = sentences_one_by_one(lengths, seq_len - 2, cross)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_BLOCK", block)
        split, planned, built = build_all(lengths, mode, seq_len=seq_len)
    assert len(planned) == len(expected)
    at = 0
    for (index, example), pieces in zip(built, expected, strict=True):
        row = [SPECIAL.cls]
        for i, (document, size) in enumerate(pieces):
            row += [SPECIAL.sep] * (i > 0 and document != pieces[i - 1][0]) + list(range(5 + at, 5 + at + size))
            at += size
        assert example.tokens_L.tolist() == [*row, SPECIAL.sep]
        assert len(example.tokens_L) == planned.lengths_N[index] <= seq_len
        assert example.tokens_L.dtype == example.token_types_L.dtype == np.int32
        assert not example.token_types_L.any() and len(example.token_types_L) == len(example.tokens_L)
        assert (example.pair_label, example.pair_weight) == (0, 0.0)
    assert at == split.starts_D1[-1] and len(split.reads) == len(planned)


def test_a_separator_counts():
    # 5 + [SEP] + 5 + [CLS] + [SEP] = 13.
    for seq_len, expected in ((13, [13]), (12, [7, 7])):
        assert plan_split(FakeSplit([[5], [5]]), "full_sentences", seq_len=seq_len).lengths_N.tolist() == expected


# Pairs ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(5, 40), st.sampled_from(["nsp", "sop"]), st.booleans())
def test_layout_length_and_reads_of_pairs(lengths, seq_len, mode, flaws):
    split, planned, built = build_all(lengths, mode, seq_len=seq_len, flaws=flaws)
    assert planned.lengths_N.dtype == np.int32 and len(planned.lengths_N) == len(planned)
    for index, example in built:
        a, b = places(example)
        assert len(a) > 0 and (len(b) > 0) == bool(example.pair_weight)
        longest = planned.lengths_N[index]
        assert longest <= seq_len
        exact = flaws or mode == "sop" or example.pair_label == 0
        assert len(example.tokens_L) == longest if exact else len(example.tokens_L) <= longest
    random = sum(example.pair_label for _, example in built) if flaws or mode == "nsp" else 0
    assert len(split.reads) <= len(built) + random


@settings(max_examples=100, deadline=None)
@given(documents, st.integers(5, 40), st.sampled_from(["nsp", "sop"]))
def test_a_chunk_of_one_piece_has_no_label(lengths, seq_len, mode):
    _, planned, built = build_all(lengths, mode, seq_len=seq_len)
    for index, example in built:
        begin, end, pieces = chunk(planned, index)
        a, b = places(example)
        if pieces == 1:
            assert (example.pair_label, example.pair_weight) == (0, 0.0)
            assert a.tolist() == list(range(begin, end))
        else:
            own = b if example.pair_label and mode == "sop" else a
            assert example.pair_weight == 1.0 and begin <= own[0] and own[-1] < end


def test_nothing_is_lost_that_fits():
    _, _, built = build_all([[5, 5, 5], [5, 5, 4]], "sop", seq_len=18, short=0.0)
    assert sorted(p for _, example in built for p in np.concatenate(places(example))) == list(range(29))


def test_sop_swaps_half_and_the_label_says_which():
    _, _, built = build_all([[4] * 400] * 20, "sop", seq_len=35, copies=10)
    labelled = [example for _, example in built if example.pair_weight]
    cuts = []
    for example in labelled:
        a, b = places(example)
        assert example.pair_label == (b[0] < a[0])
        if len(a) + len(b) < 32:  # not truncated: the two parts touch
            assert (b[-1] + 1 == a[0]) if example.pair_label else (a[-1] + 1 == b[0])
        elif not example.pair_label and a[0] % 4 == 0 and len(a) % 4 == 0 and len(b) % 4 == 0:
            cuts.append(len(a) // 4)  # 8 sentences, nothing truncated
    assert len(labelled) > 9_000
    assert abs(np.mean([example.pair_label for example in labelled]) - 0.5) < 0.02  # four standard errors
    shares = np.bincount(cuts, minlength=8)[1:] / len(cuts)
    assert len(shares) == 7 and abs(shares - 1 / 7).max() < 0.025, "cut after 1..7 of the 8 sentences alike"


def test_nsp_takes_b_from_another_document_iff_label_1():
    split, planned, built = build_all([[4] * 400] * 20 + [[6] * 9], "nsp", seq_len=35, copies=14)
    labels, others = [], []
    for index, example in built:
        a, b = places(example)
        if not example.pair_weight:
            continue
        document_a, document_b = split.document(a[0]), split.document(b[0])
        assert document_a == split.document(chunk(planned, index)[0])
        assert example.pair_label == (document_a != document_b) and split.document(b[-1]) == document_b
        labels.append(example.pair_label)
        others.append(document_b)
        if example.pair_label == 0 and len(a) + len(b) < 32:
            assert a[-1] + 1 == b[0]
    assert len(labels) > 12_000 and abs(np.mean(labels) - 0.5) < 0.018
    shares = np.bincount(np.array(others)[np.array(labels) == 1], minlength=21) / sum(labels)
    expected = np.array([400] * 20 + [9]) / 8_009
    assert abs(shares - expected).max() < 0.012 and shares[20] < 0.005, "sentences are drawn uniformly"


@settings(max_examples=150, deadline=None)
@given(documents, st.integers(8, 40))
def test_a_random_b_takes_the_place_of_the_true_one(lengths, seq_len):
    longest = seq_len - 3
    split, planned, built = build_all(lengths, "nsp", seq_len=seq_len, short=0.5, copies=3)
    starts = set(planned.piece_starts_P1.tolist())
    ends = planned.piece_starts_P1[1:]
    for index, example in built:
        if not example.pair_label:
            continue
        a, b = places(example)
        begin, end, _ = chunk(planned, index)
        document_end = split.starts_D1[split.document(b[0]) + 1]
        if end - begin > longest:  # the true pair is truncated: this one is too, unless its document ends
            if len(a) + len(b) < longest:
                assert a[0] == begin and a[-1] + 1 in starts and b[0] in starts and b[-1] + 1 == document_end
            continue
        room = (end - begin) - len(a)
        assert a[0] == begin and a[-1] + 1 in starts and b[0] in starts and len(b) <= room
        if b[-1] + 1 in starts:  # whole pieces, as many as fit
            following = ends[np.searchsorted(ends, b[-1] + 1) + 1 :]
            assert b[-1] + 1 == document_end or len(b) == room or following[0] - b[0] > room
        else:
            assert len(b) == room < ends[np.searchsorted(ends, b[0], side="right")] - b[0]


def test_a_random_b_begins_anywhere_in_its_document():
    _, _, built = build_all([[2] * 200] * 20, "nsp", seq_len=23, short=0.0, copies=5)
    starts = [places(example)[1][0] % 400 // 2 for _, example in built if example.pair_label]
    # Uniform over 200 sentences: mean 99.5 with a standard error of 1.9; truncation moves it by less than 3.
    assert len(starts) > 900 and abs(np.mean(starts) - 99.5) < 9
    assert np.min(starts) < 5 and np.max(starts) > 194


def test_what_is_random_in_a_chunk_is_drawn_anew():
    split, planned, built = build_all([[4] * 50] * 3, "nsp", seq_len=64, copies=40)
    of_first = [example for index, example in built if index == 0]
    assert len({example.tokens_L.tobytes() for example in of_first}) > 20
    again = [build(planned, 0, split, np.random.default_rng(7), special=SPECIAL).tokens_L for _ in range(2)]
    np.testing.assert_array_equal(*again)


# Truncation -------------------------------------------------------------------------------------------------------


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
    for segment, sizes in enumerate(((24, 4), (4, 24))):
        draws = (examples._truncate(*(np.arange(n) for n in sizes), 20, rng) for _ in range(4_000))
        fronts = np.array([pair[segment][0] for pair in draws])
        # Binomial(8, 1/2): mean 4, variance 2.
        assert abs(fronts.mean() - 4) < 0.1 and abs(fronts.var() - 2) < 0.25
