"""`bertjax.kernels.counter`: how many values are dropped, that no two depend on each other, and where bits come from.

Shape letters: B rows, N heads, Q query positions, K key positions, L positions, F features, S seeds.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels import counter

LENGTH = 512


def keys_of(rows, heads, seed=(5, -7)):
    return counter.head_keys(jnp.array(seed, jnp.int32), jnp.asarray(rows, jnp.int32), jnp.asarray(heads, jnp.int32))


@pytest.fixture(scope="module")
def masks_BNQK():
    """12.6 million decisions at a rate of 0.1."""
    return np.asarray(counter.plain_mask(keys_of(range(4), range(12)), LENGTH, counter.quantised(0.1)))


def deviation(values, variance):
    """How many standard deviations the sum of independent `values` of mean 0 is from 0."""
    return values.sum(dtype=np.float64) / np.sqrt(values.size * variance)


@pytest.mark.parametrize("rate", [0.0001, 0.1, 0.25, 0.5, 0.9, 0.9999])
def test_the_share_that_is_kept(rate):
    kept = counter.quantised(rate)
    assert kept / 2**16 == pytest.approx(1 - rate, abs=2**-17)
    mask = np.asarray(counter.plain_mask(keys_of(range(2), range(4)), LENGTH, kept))
    share = kept / 2**16
    assert abs(deviation(mask - share, share * (1 - share))) < 4


def test_some_are_kept_at_any_rate():
    assert counter.quantised(0.0) == 2**16
    assert counter.quantised(1 - 1e-9) == 1


def test_neighbours_in_no_direction_agree_more_often_than_chance(masks_BNQK):
    share = counter.quantised(0.1) / 2**16
    unit = ((masks_BNQK - share) / np.sqrt(share * (1 - share))).astype(np.float32)
    found = {}
    for lag in (1, 2, 3, 4, 5, 7, 8, 16, 64, 256):
        for axis, name in enumerate("BNQK"):
            size = unit.shape[axis]
            if lag < size:
                ahead, behind = (np.take(unit, range(*at), axis) for at in ((lag, size), (0, size - lag)))
                found[f"{name} {lag}"] = deviation(ahead * behind, 1)
    for q, k in [(1, 1), (1, 2), (2, 1), (8, 1), (8, 8), (16, 1)]:
        corners = unit[:, :, q:, k:], unit[:, :, :-q, :-k], unit[:, :, q:, :-k], unit[:, :, :-q, k:]
        found[f"down {q}, {k}"] = deviation(corners[0] * corners[1], 1)
        found[f"up {q}, {k}"] = deviation(corners[2] * corners[3], 1)
        found[f"corners {q}, {k}"] = deviation(corners[0] * corners[1] * corners[2] * corners[3], 1)
    assert len(found) > 40 and max(map(abs, found.values())) < 4, sorted(found.items(), key=lambda f: -abs(f[1]))[:5]


@pytest.mark.parametrize("axis", [2, 3])
def test_patterns_are_as_frequent_as_they_should_be(masks_BNQK, axis):
    """Chi-square of the 256 patterns of 8 neighbours."""
    share = counter.quantised(0.1) / 2**16
    eights = np.moveaxis(masks_BNQK, axis, 3).reshape(-1, 8)
    counts = np.bincount(eights @ (1 << np.arange(8)), minlength=256)
    ones = np.array([bin(i).count("1") for i in range(256)])
    expected = len(eights) * share**ones * (1 - share) ** (8 - ones)
    often = expected > 5
    square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum() - 1
    assert abs(square - freedom) / np.sqrt(2 * freedom) < 4


def test_every_query_and_every_key_keeps_its_share(masks_BNQK):
    """The variance of counts along a row, a column and a head is binomial: none is stuck, none is evened out."""
    share = counter.quantised(0.1) / 2**16
    for axes, number in [((3,), LENGTH), ((2,), LENGTH), ((2, 3), LENGTH**2)]:
        counts = masks_BNQK.sum(axis=axes).ravel()
        ratio = counts.var() / (number * share * (1 - share))
        assert abs(ratio - 1) * np.sqrt(counts.size / 2) < 4


def values_kept(shape, rate, seeds=((5, -7),), rows=None):
    """Of hidden states of this shape, by seed: [S, B, .., F]."""
    rows = np.arange(shape[0]) if rows is None else rows
    keys = [counter.row_keys(jnp.array(seed, jnp.int32), jnp.asarray(rows, jnp.int32)) for seed in seeds]
    return np.stack([np.asarray(counter.value_mask(key, shape, counter.quantised(rate))) for key in keys])


def test_values_are_dropped_independently_of_their_neighbours():
    """Along seeds (of layers and steps, which count up in the worst case), rows, positions and features: 2 million."""
    shape = (8, 64, 256)
    kept = values_kept(shape, 0.1, seeds=[(word, other) for word in (0, 1, 2, 3) for other in (0, 1, 2, 3)])
    share = counter.quantised(0.1) / 2**16
    assert abs(deviation(kept - share, share * (1 - share))) < 4
    unit, found = ((kept - share) / np.sqrt(share * (1 - share))).astype(np.float32), {}
    for lag in (1, 2, 3, 4, 8, 64):
        for axis, name in enumerate("SBLF"):
            length = unit.shape[axis]
            if lag < length:
                ahead, behind = (np.take(unit, range(*at), axis) for at in ((lag, length), (0, length - lag)))
                found[f"{name} {lag}"] = deviation(ahead * behind, 1)
    for at, f in [(1, 1), (2, 1), (1, 8), (8, 8)]:
        corners = unit[:, :, at:, f:], unit[:, :, :-at, :-f], unit[:, :, at:, :-f], unit[:, :, :-at, f:]
        found[f"corners {at}, {f}"] = deviation(corners[0] * corners[1] * corners[2] * corners[3], 1)
    assert len(found) > 20 and max(map(abs, found.values())) < 4, sorted(found.items(), key=lambda f: -abs(f[1]))[:5]
    for axes in [(0, 1, 2), (0, 1, 3), (2, 3)]:  # of a feature, a position, a row of a seed
        counts = kept.sum(axis=axes).ravel()
        ratio = counts.var() / (kept.size / counts.size * share * (1 - share))
        assert abs(ratio - 1) * np.sqrt(counts.size / 2) < 4


@pytest.mark.parametrize("rate", [0.0001, 0.25, 0.5, 0.9])
def test_the_share_of_values_that_is_kept(rate):
    share = counter.quantised(rate) / 2**16
    assert abs(deviation(values_kept((16, 64, 512), rate) - share, share * (1 - share))) < 4


def test_a_row_of_values_has_its_bits_whoever_computes_it():
    """Whatever the rank: the places of a row are numbered through all axes but the last."""
    whole = values_kept((6, 4, 5, 32), 0.5)
    np.testing.assert_array_equal(whole[:, 2:4], values_kept((2, 4, 5, 32), 0.5, rows=[2, 3]))
    np.testing.assert_array_equal(whole.reshape(1, 6, 20, 32), values_kept((6, 20, 32), 0.5))
    np.testing.assert_array_equal(whole[:, :, 0, 0], values_kept((6, 32), 0.5))
    assert len(np.unique(whole.reshape(-1, 32), axis=0)) == 120


def test_seed_row_and_head_each_change_all():
    kept = counter.quantised(0.5)
    base = np.asarray(counter.plain_mask(keys_of([3], [2]), 256, kept))
    others = [
        keys_of([4], [2]),
        keys_of([3], [3]),
        keys_of([2], [3]),
        keys_of([3], [2], (5, -8)),
        keys_of([3], [2], (-7, 5)),
    ]
    for keys in others:
        other = np.asarray(counter.plain_mask(keys, 256, kept))
        assert abs((base == other).mean() - 0.5) < 0.01


def test_a_row_or_a_head_has_its_bits_whoever_computes_it():
    every = keys_of(range(6), range(8))
    np.testing.assert_array_equal(every[2:4, 5:], keys_of([2, 3], [5, 6, 7]))
    assert len(np.unique(np.asarray(every).reshape(-1, 2), axis=0)) == 48


def test_a_longer_row_begins_with_the_same_bits(masks_BNQK):
    mask = counter.plain_mask(keys_of(range(4), range(12)), 128, counter.quantised(0.1))
    np.testing.assert_array_equal(mask, masks_BNQK[:, :, :128, :128])


def test_the_bits_stay_what_they_are():
    """A resumed run would drop others."""
    mask = np.asarray(counter.plain_mask(keys_of([1], [0]), 32, counter.quantised(0.5)))[0, 0]
    rows = [int("".join(map(str, mask[q].astype(int))), 2) for q in (0, 8, 9, 31)]
    assert rows == [0x195DEA01, 0xC6996A8C, 0x303837DD, 0x88156094]
    values = values_kept((2, 3, 32), 0.5)[0, 1]
    assert [int("".join(map(str, row.astype(int))), 2) for row in values] == [0x19EA5BE0, 0x4FE44719, 0x0FD2194C]
