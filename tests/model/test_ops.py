"""`bertjax.model.ops`: rate, mean and independence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.ops import dropout


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("last", [64, 37])
def test_rate_mean_and_independence(rate, last):
    x = jnp.full((4000, last), 2.0)
    y = np.asarray(dropout(x, rate, jax.random.key(0)))
    dropped = y == 0.0
    n = dropped.size
    assert abs(dropped.mean() - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    np.testing.assert_allclose(y[~dropped], 2.0 / (1.0 - rate), rtol=1e-4)
    both = (dropped[:, 0::2][:, : last // 2] & dropped[:, 1::2]).mean()
    assert abs(both - rate**2) < 6 * (rate**2 / (n / 2)) ** 0.5


def test_the_backward_pass_drops_what_the_forward_pass_drops():
    x = jnp.ones((8, 16, 32))
    y, pull = jax.vjp(lambda x: dropout(x, 0.3, jax.random.key(1)), x)
    np.testing.assert_array_equal(pull(x)[0], y)
    other = np.asarray(dropout(x, 0.3, jax.random.key(2)))
    assert abs((np.asarray(y) == other).mean() - (0.3**2 + 0.7**2)) < 0.03


def test_no_key_or_no_rate_is_identity():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
