"""Flash attention for encoders: bidirectional, packed, local or not, with dropout of the probabilities.

Shape letters: B rows, L row length, N heads, D head dimension; I blocks of a row, J blocks of the other side.

Scores and probabilities, B * N * L * L numbers each, never reach memory: the backward pass computes them again, and the
bits of the dropout too (`counter`). Blocks of positions that can share no segment, or are too far from each other, are
not visited.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.kernels import counter

if TYPE_CHECKING:
    from bertjax.kernels.triton import Case, Tiling


def flash_attention(
    q_BLND: jax.Array,
    k_BLND: jax.Array,
    v_BLND: jax.Array,
    segments_BL: jax.Array,
    *,
    rate: float,
    keys_BN2: jax.Array | None,
    reach: jax.Array | None,
    interpret: bool = False,
    tilings: "tuple[Tiling, Tiling, Tiling] | None" = None,
) -> jax.Array:
    """Attention within equal segments, [B, L, N, D]; as `bertjax.model.attention.attend` says, on a GPU.

    `keys_BN2` are `counter.head_keys`; None = no dropout. `reach`: scalar, how far a token sees; None = everywhere.
    `interpret` computes it anywhere, slowly, for tests. `tilings`: of the kernels in the order of `triton`; None =
    those of `tilings_for`. L must be a multiple of 64. Blocks are skipped well where segments ascend along a row, with
    the padding (0) behind; whatever their order, the result is right.
    """
    from bertjax.kernels.triton import Case

    B, length, N, head_dim = q_BLND.shape
    kept = 2**16 if keys_BN2 is None else counter.quantised(rate)
    case = Case(kept, reach is not None, head_dim, q_BLND.dtype.name, interpret)
    if keys_BN2 is None:
        keys_BN2 = jnp.zeros((B, N, 2), jnp.int32)
    reach_1 = jnp.full([1], length if reach is None else reach, jnp.int32)
    sizes = tuple(tiling.of(length) for tiling in tilings or tilings_for(case))
    return _flash(case, sizes, (reach_1, keys_BN2, segments_BL.astype(jnp.int32)), q_BLND, k_BLND, v_BLND)


def tilings_for(case: "Case") -> "tuple[Tiling, Tiling, Tiling]":
    """Of the forward kernel, and of those for the gradients of queries and of keys."""
    from bertjax.kernels.triton import Tiling

    if case.dtype == "float32" or case.head_dim > 64:
        return Tiling(64, 32, 4, 2), Tiling(64, 32, 4, 2), Tiling(32, 64, 4, 2)
    return Tiling(128, 64, 4, 2), Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)


def spans(segments_BL: jax.Array, reach_1: jax.Array, block: int, other: int) -> jax.Array:
    """For each block of `block` positions, the first of the blocks of `other` that it may see, and the one after the
    last: [B, I, 2].
    """
    B, length = segments_BL.shape
    # Padding stands behind everything.
    order_BL = jnp.where(segments_BL == 0, jnp.iinfo(jnp.int32).max, segments_BL)
    mine_BIi, theirs_BJj = order_BL.reshape(B, -1, block), order_BL.reshape(B, -1, other)
    below_BIJ = mine_BIi.max(2)[:, :, None] < theirs_BJj.min(2)[:, None, :]
    above_BIJ = mine_BIi.min(2)[:, :, None] > theirs_BJj.max(2)[:, None, :]
    first_I, first_J = jnp.arange(0, length, block)[:, None], jnp.arange(0, length, other)[None, :]
    near_IJ = (first_J <= first_I + block - 1 + reach_1[0]) & (first_J + other - 1 >= first_I - reach_1[0])
    seen_BIJ = near_IJ[None] & ~below_BIJ & ~above_BIJ
    number_J = jnp.arange(length // other, dtype=jnp.int32)
    first_BI = jnp.where(seen_BIJ, number_J[None, None], length // other).min(2)
    return jnp.stack([first_BI, jnp.where(seen_BIJ, number_J[None, None] + 1, 0).max(2)], axis=-1)


def _forward(case: Any, sizes: Any, shared: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[Any, Any]:
    from bertjax.kernels import triton

    reach_1, _, segments_BL = shared
    span_BI2 = spans(segments_BL, reach_1, sizes[0].queries, sizes[0].keys)
    out, lse_BNL = triton.forward(case, sizes[0], span_BI2, shared, q, k, v)
    return out, (shared, q, k, v, out, lse_BNL)


def _backward(case: Any, sizes: Any, kept: Any, do: jax.Array) -> tuple[Any, ...]:
    from bertjax.kernels import triton

    shared, q, k, v, out, lse_BNL = kept
    reach_1, _, segments_BL = shared
    by_query = spans(segments_BL, reach_1, sizes[1].queries, sizes[1].keys)
    dq, delta_BNL = triton.query_gradients(case, sizes[1], by_query, shared, q, k, v, out, do, lse_BNL)
    by_key = spans(segments_BL, reach_1, sizes[2].keys, sizes[2].queries)
    dk, dv = triton.key_gradients(case, sizes[2], by_key, shared, q, k, v, do, lse_BNL, delta_BNL)
    return tuple(np.zeros(x.shape, jax.dtypes.float0) for x in shared), dq, dk, dv


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _flash(case: Any, sizes: Any, shared: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _forward(case, sizes, shared, q, k, v)[0]


_flash.defvjp(_forward, _backward)
