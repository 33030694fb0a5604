"""`bertjax.kernels.mosaic`: groups of heads and blocks.

What it computes: test_flash.py. For a TPU it is compiled by tests/model/test_attention.py.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels import counter, mosaic


@pytest.mark.parametrize(("head_dim", "width"), [(128, 1), (96, 1), (64, 2), (40, 2), (32, 4), (24, 4)])
def test_a_group_fills_the_lanes(head_dim, width):
    assert mosaic.group_width(head_dim) == width
    assert width * head_dim <= mosaic.LANES


@pytest.mark.parametrize(("length", "size"), [(128, 128), (384, 128), (512, 256), (640, 128)])
def test_blocks_divide_the_row_and_fill_the_lanes(length, size):
    assert mosaic.block(length) == size and size % mosaic.LANES == 0


@pytest.mark.parametrize("head", range(4))
def test_a_head_has_its_own_lanes(head):
    alone = mosaic._of_head(jnp.ones((2, 128)), head, 4)
    expected = np.zeros((2, 128))
    expected[:, 32 * head : 32 * (head + 1)] = 1
    np.testing.assert_array_equal(alone, expected)


def test_a_hash_for_a_pair_gives_the_bits_of_both():
    key = (jnp.int32(12345), jnp.int32(-678))
    queries_1Q, first = jnp.arange(256, 384, dtype=jnp.int32)[None, :], 512
    keys_K1 = first + jnp.arange(128, dtype=jnp.int32)[:, None]
    expected = counter.bits(key, queries_1Q, keys_K1)
    np.testing.assert_array_equal(counter.tile_bits(key, queries_1Q, first, 128), expected)
