"""Building examples: what is in them, in which layout, and what is drawn anew each time."""

import numpy as np
import pytest
from data.numbered import SPECIAL, build_all, chunk, documents, places
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data import planning
from bertjax.data.examples import build, truncate

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
        patch.setattr(planning, "BLOCK", block)
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
        a, b = truncate(np.arange(len_a), np.arange(len_b), longest, rng)
        assert (len(a), len(b)) == truncate_one_at_a_time(len_a, len_b, longest)


def test_truncation_removes_front_and_back_alike():
    rng = np.random.default_rng(0)
    for segment, sizes in enumerate(((24, 4), (4, 24))):
        draws = (truncate(*(np.arange(n) for n in sizes), 20, rng) for _ in range(4_000))
        fronts = np.array([pair[segment][0] for pair in draws])
        # Binomial(8, 1/2): mean 4, variance 2.
        assert abs(fronts.mean() - 4) < 0.1 and abs(fronts.var() - 2) < 0.25
