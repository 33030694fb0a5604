"""Packing examples of given lengths into rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data import packing
from bertjax.data.packing import density, pack


@st.composite
def problems(draw):
    row_length = draw(st.integers(1, 40))
    lengths_N = np.array(draw(st.lists(st.integers(1, row_length), max_size=60)), np.int32)
    return lengths_N, row_length, draw(st.integers(1, 9))


def best_fit_decreasing(lengths_N, row_length, most):
    """Rows as (room, places) pairs: each example, longest first, where it leaves least room."""
    rows = []
    for length in sorted(lengths_N.tolist(), reverse=True):
        fitting = [row for row in rows if row[0] >= length and row[1]]
        row = min(fitting, default=(row_length, most))
        if fitting:
            rows.remove(row)
        rows.append((row[0] - length, row[1] - 1))
    return rows


def realistic(N, seed=0):
    """45 % full rows, the rest anywhere from 10 to 511."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(N) < 0.45, 512, rng.integers(10, 512, N)).astype(np.int32)


@settings(max_examples=300, deadline=None)
@given(problems(), st.integers(0, 3), st.integers(1, 20))
def test_every_example_is_in_one_row_that_it_fits(problem, seed, block):
    lengths_N, row_length, most = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "BLOCK", block)
        rows = pack(lengths_N, row_length=row_length, most=most, seed=seed)
    assert sorted(rows.example_N.tolist()) == list(range(len(lengths_N)))
    assert rows.first_R1[0] == 0 and rows.first_R1[-1] == len(lengths_N) and len(rows) == len(rows.first_R1) - 1
    assert rows.first_R1.dtype == rows.example_N.dtype == np.int64
    for examples in np.split(rows.example_N, rows.first_R1[1:-1]) if len(rows) else []:
        assert 1 <= len(examples) <= most and lengths_N[examples].sum() <= row_length


@settings(max_examples=300, deadline=None)
@given(problems())
def test_as_dense_as_best_fit_decreasing_one_by_one(problem):
    lengths_N, row_length, most = problem
    expected = [room for room, _ in best_fit_decreasing(lengths_N, row_length, most)]
    rows = packing.patterns(np.bincount(lengths_N, minlength=row_length + 1).tolist(), row_length, most)
    found = [row_length - sum(length * copies for length, copies in pattern) for n, pattern in rows for _ in range(n)]
    assert sorted(found) == sorted(expected)


def test_one_each_keeps_the_order():
    rows = pack(np.array([5, 9, 2]), row_length=10, most=1, seed=3)
    assert rows.first_R1.tolist() == [0, 1, 2, 3] and rows.example_N.tolist() == [0, 1, 2]


def test_rows_are_a_function_of_the_seed():
    lengths_N = realistic(5_000)
    first, second, other = (pack(lengths_N, row_length=512, most=8, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.example_N, second.example_N)
    np.testing.assert_array_equal(first.first_R1, second.first_R1)
    np.testing.assert_array_equal(first.first_R1, other.first_R1)
    np.testing.assert_array_equal(lengths_N[first.example_N], lengths_N[other.example_N])
    assert (first.example_N != other.example_N).any()


def test_neighbours_do_not_share_a_row():
    rows = pack(np.full(4_000, 100), row_length=200, most=2, seed=0)
    distance = np.abs(np.diff(rows.example_N.reshape(-1, 2), axis=1))
    # Two uniform places out of 4,000 are 4,000 / 3 apart, with a standard error of 21.
    assert (np.diff(rows.first_R1) == 2).all() and abs(distance.mean() - 4_000 / 3) < 100


def test_dense_on_realistic_lengths():
    lengths_N = realistic(100_000)
    rows = pack(lengths_N, row_length=512, most=8, seed=0)
    assert density(lengths_N, rows, 512) > 0.99
    alone = pack(lengths_N, row_length=512, most=1, seed=0)
    assert density(lengths_N, alone, 512) < 0.75


def test_density_counts_tokens_over_slots():
    lengths_N = np.array([6, 3, 8], np.int32)
    assert density(lengths_N, pack(lengths_N, row_length=10, most=2, seed=0), 10) == 17 / 20


def test_search_depends_on_the_lengths_not_on_how_many():
    count_l = np.bincount(realistic(100_000), minlength=513)
    few, many = (packing.patterns((count_l * factor).tolist(), 512, 8) for factor in (1, 1_000_000))
    assert sum(rows for rows, _ in many) <= 1_000_000 * sum(rows for rows, _ in few)
    assert len(many) < 3 * 512


def chunked(pieces_seed, documents):
    """(lengths, first pieces, piece starts) of documents cut greedily into chunks of 509 tokens, as for pairs."""
    rng = np.random.default_rng(pieces_seed)
    starts, firsts, lengths = [0], [], []
    for _ in range(documents):
        left = int(rng.integers(100, 1500))
        while left > 0:
            firsts.append(len(starts) - 1)
            begin = starts[-1]
            while left > 0 and starts[-1] - begin < 509:
                size = min(left, int(rng.integers(5, 50)))
                starts.append(starts[-1] + size)
                left -= size
            lengths.append(min(starts[-1] - begin, 509) + 3)
    return np.array(lengths, np.int32), np.array([*firsts, len(starts) - 1]), np.array(starts)


@pytest.mark.parametrize("seed", range(5))
def test_filling_cuts_few_examples_and_loses_none(seed):
    lengths_N, first_N1, starts_P1 = chunked(seed, 2000)
    rows = packing.pack(lengths_N, row_length=512, most=8, seed=0)
    before = packing.density(lengths_N, rows, 512)
    cuts, filled = packing.fill(rows, lengths_N, first_N1, starts_P1, row_length=512, most=8)
    assert len(set(cuts)) == len(cuts) and not set(cuts) & set(first_N1.tolist())
    bounds = np.union1d(first_N1, cuts)
    after_N = np.minimum(np.diff(starts_P1[bounds]), 509) + 3
    assert sorted(filled.example_N.tolist()) == list(range(len(lengths_N) + len(cuts)))
    sums_R = np.add.reduceat(after_N[filled.example_N], filled.first_R1[:-1])
    sizes_R = np.diff(filled.first_R1)
    assert sums_R.max() <= 512 and sizes_R.min() >= 1 and sizes_R.max() <= 8
    assert packing.density(after_N, filled, 512) > max(before, 0.98)
    cut = np.searchsorted(first_N1, cuts, side="right") - 1
    assert len(set(cut.tolist())) < 0.1 * len(lengths_N)
    # What is not cut stays where it was: with the same others, but for parts that came.
    whole_N = np.setdiff1d(np.arange(len(lengths_N)), cut)
    assert (lengths_N[whole_N] == after_N[np.searchsorted(bounds, first_N1[whole_N])]).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.lists(st.integers(1, 40), max_size=20))
def test_gaps_are_chosen_once_and_none_is_left_unused(needs, rooms):
    need_d, room_F = np.array(needs), np.sort(np.array(rooms, np.int64))
    chosen_d = packing.choose_gaps(need_d, room_F)
    used = chosen_d[chosen_d >= 0]
    assert len(set(used.tolist())) == len(used) == min(len(needs), len(rooms))
    held = np.sort(need_d[(chosen_d >= 0) & (room_F[chosen_d] >= need_d)]) if rooms else need_d[:0]
    free = room_F.tolist()
    for need in sorted(needs):  # one by one, the least first: each the least room that holds it
        if fitting := [room for room in free if room >= need]:
            free.remove(min(fitting))
    assert len(held) >= len(rooms) - len(free)


def test_filling_without_gaps_or_donors_changes_nothing():
    for lengths in ([512] * 5, [300] * 5, [5]):
        lengths_N = np.array(lengths, np.int32)
        first_N1 = np.arange(len(lengths) + 1)
        rows = packing.pack(lengths_N, row_length=512, most=4, seed=0)
        cuts, filled = packing.fill(rows, lengths_N, first_N1, first_N1 * 509, row_length=512, most=4)
        assert cuts == [] and filled.example_N.tolist() == rows.example_N.tolist()
        assert filled.first_R1.tolist() == rows.first_R1.tolist()
