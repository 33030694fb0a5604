"""`bertjax.kernels.triton`: what the blocks are, and how its constants are written. What it computes: test_flash.py."""

import numpy as np
import pytest

from bertjax.kernels import triton
from bertjax.kernels.triton import OnGpu, Tiling


@pytest.mark.parametrize(("length", "queries", "keys"), [(512, 128, 64), (192, 64, 64), (320, 64, 64), (1024, 128, 64)])
def test_blocks_divide_the_row(length, queries, keys):
    assert Tiling(128, 64, 8, 3).of(length) == Tiling(queries, keys, 8, 3)


def test_scores_become_powers_of_two():
    case = OnGpu(kept=2**16, has_window=False, head_dim=64, dtype="bfloat16", interpret=True)
    assert 2.0**case.scale == pytest.approx(np.exp(64**-0.5))


def test_what_is_not_seen_has_a_probability_of_zero_even_where_nothing_else_was_seen():
    """The scale times the mask must be exact: fused with a subtraction, a rounding error of 2**76 would remain."""
    case = OnGpu(kept=2**16, has_window=False, head_dim=40, dtype="bfloat16", interpret=True)
    scaled = np.float32(triton.UNSEEN) * np.float32(case.scale)
    assert float(scaled) == triton.UNSEEN * float(np.float32(case.scale))


def test_the_assembler_reads_the_number_that_is_meant():
    assert triton._hex(1.0) == "3F800000"
    assert triton._hex(0.18033688) == "3E38AA3B"
