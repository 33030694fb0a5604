"""`bertjax.kernels.triton`: what the blocks are, and how its constants are written. What it computes: test_flash.py."""

import numpy as np
import pytest

from bertjax.kernels import triton
from bertjax.kernels.triton import OnGpu, Tiling


@pytest.mark.parametrize(("length", "queries", "keys"), [(512, 128, 64), (192, 64, 64), (320, 64, 64), (1024, 128, 64)])
def test_blocks_divide_the_row(length, queries, keys):
    assert Tiling(128, 64, 8, 3).of(length) == Tiling(queries, keys, 8, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_blocks_are_powers_of_two_in_which_pairs_of_keys_stay_together(head_dim, dtype):
    for tiling in triton.tilings(OnGpu(2**16, False, head_dim, dtype, False)):
        assert all(size >= 16 and size & (size - 1) == 0 for size in (tiling.queries, tiling.keys))


def test_the_assembler_reads_the_number_that_is_meant():
    assert triton._hex(1.0) == "3F800000"
    assert triton._hex(np.float32(0.18033688)) == "3E38AA3B"
