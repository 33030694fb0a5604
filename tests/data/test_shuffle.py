"""A shuffled order has everything in it once, and stays what it is: the order of every run depends on it."""

import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data.shuffle import ROUNDS, shuffled


@pytest.mark.parametrize("count", [1, 2, 3, 100, 2**12 + 1, 2**16, 2**16 + 1, 2**16 + 2])
def test_everything_has_a_place_of_its_own(count):
    for seed in (0, 2**32 - 1):
        assert sorted(shuffled(i, count, seed) for i in range(count)) == list(range(count))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2**60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), st.integers(0, 2**32 - 1))
def test_the_order_is_that_of_grain(place, seed):
    """Where grain has one: it repeats an index where the last one is a power of 4 from 2^16 on."""
    index, count = place
    last = count - 1
    if last < 2**16 or last & (last - 1) or last.bit_length() % 2 == 0:
        assert shuffled(index, count, seed) == index_shuffle(index, max_index=last, seed=seed, rounds=ROUNDS)


def test_seeds_give_orders_that_have_nothing_to_do_with_each_other():
    orders = np.array([[shuffled(i, 1000, seed) for i in range(1000)] for seed in (0, 1, 2, 2**31)])
    for one in range(4):
        assert np.mean(orders[one] == np.arange(1000)) < 0.01
        assert abs(np.corrcoef(orders[one], np.arange(1000))[0, 1]) < 0.15
        for other in range(one):
            assert np.mean(orders[one] == orders[other]) < 0.01
            assert abs(np.corrcoef(orders[one], orders[other])[0, 1]) < 0.15
