"""`bertjax.kernels.case`: the numbers that all kernels take from it. What they compute: test_flash.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels.case import UNSEEN, Case


def case_of(head_dim=64, kept=2**16, dtype="bfloat16"):
    return Case(kept=kept, has_window=False, head_dim=head_dim, dtype=dtype, interpret=True)


def test_scores_become_powers_of_two():
    assert 2.0 ** case_of().scale == pytest.approx(np.exp(64**-0.5))


@pytest.mark.parametrize("head_dim", [40, 64, 96, 128])
def test_what_is_not_seen_has_an_exact_product_with_the_scale(head_dim):
    """Fused with a subtraction of itself, where nothing was seen, a rounding error of 2**76 would remain."""
    scale = np.float32(case_of(head_dim).scale)
    assert float(np.float32(UNSEEN) * scale) == UNSEEN * float(scale)


def test_all_are_kept_without_dropout():
    assert not case_of().drops and case_of().share == 1.0
    assert case_of(kept=2**15).drops and case_of(kept=2**15).share == 0.5


def test_a_product_is_float32_over_the_axes_that_are_named():
    a, b = jnp.arange(6.0).reshape(2, 3), jnp.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(case_of().product(a, b, (1, 1)), a @ b.T)
    half = case_of().product(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16).T, (1, 0))
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(half, a @ b.T)
