"""Flash attention for encoders: bidirectional, packed, local or not, with dropout of the probabilities.

Shape letters: B rows, L row length, N heads, D head dimension, C numbers of all heads; I blocks of a row, J blocks of
the other side.

Scores and probabilities, B * N * L * L numbers each, never reach memory: the backward pass computes them again, and the
bits of the dropout too (`counter`). Blocks of positions that can share no segment, or are too far from each other, are
not visited.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.kernels import counter
from bertjax.kernels.case import Case


def flash_attention(
    q_BLND: jax.Array,
    k_BLND: jax.Array,
    v_BLND: jax.Array,
    segments_BL: jax.Array,
    *,
    rate: float,
    keys_BN2: jax.Array | None,
    reach: jax.Array | None,
    platform: str = "gpu",
    interpret: bool = False,
    tilings: Any = None,
) -> jax.Array:
    """Attention within equal segments, [B, L, N, D]; as `bertjax.model.attention.attend` says.

    `keys_BN2` are `counter.head_keys`; None = no dropout. `reach`: scalar, how far a token sees; None = everywhere.
    `platform`: gpu (L a multiple of 64) or tpu (of 128), whose kernels are `triton` and `mosaic`. `interpret` computes
    them anywhere, slowly, for tests. `tilings`: of the GPU's three kernels; None = those of `triton.tilings`. Blocks
    are skipped well where segments ascend along a row, with the padding (0) behind; whatever their order, the result is
    right.
    """
    # Here, since Pallas takes a quarter of a second to import and only some need it.
    Kind: Any = Case
    if platform == "gpu":
        from bertjax.kernels.triton import OnGpu as Kind
    B, length, N, head_dim = q_BLND.shape
    kept = 2**16 if keys_BN2 is None else counter.quantised(rate)
    case = Kind(kept, reach is not None, head_dim, q_BLND.dtype.name, interpret)
    if keys_BN2 is None:
        keys_BN2 = jnp.zeros((B, N, 2), jnp.int32)
    reach_1 = jnp.full([1], length if reach is None else reach, jnp.int32)
    shared = (reach_1, keys_BN2, segments_BL.astype(jnp.int32))
    return _flash(platform, case, tilings, shared, q_BLND, k_BLND, v_BLND)


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


def _forward(platform: str, case: Any, tilings: Any, shared: Any, *qkv: jax.Array) -> tuple[Any, Any]:
    run = _forward_on_tpu if platform == "tpu" else _forward_on_gpu
    out, lse = run(case, tilings, shared, *qkv)
    return out, (shared, *qkv, out, lse)


def _backward(platform: str, case: Any, tilings: Any, residuals: Any, do: jax.Array) -> tuple[Any, ...]:
    run: Any = _backward_on_tpu if platform == "tpu" else _backward_on_gpu
    shared, *arrays = residuals
    return tuple(np.zeros(x.shape, jax.dtypes.float0) for x in shared), *run(case, tilings, shared, *arrays, do)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _flash(platform: str, case: Any, tilings: Any, shared: Any, *qkv: jax.Array) -> jax.Array:
    return _forward(platform, case, tilings, shared, *qkv)[0]


_flash.defvjp(_forward, _backward)


def _forward_on_gpu(case: Any, tilings: Any, shared: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
    from bertjax.kernels import triton

    reach_1, _, segments_BL = shared
    tiling = (tilings or triton.tilings(case))[0].of(q.shape[1])
    span_BI2 = spans(segments_BL, reach_1, tiling.queries, tiling.keys)
    return triton.forward(case, tiling, span_BI2, shared, q, k, v)


def _backward_on_gpu(
    case: Any, tilings: Any, shared: Any, q: jax.Array, k: jax.Array, v: jax.Array, out: Any, lse: Any, do: Any
) -> tuple[jax.Array, ...]:
    from bertjax.kernels import triton

    reach_1, _, segments_BL = shared
    of_queries, of_keys = (tiling.of(q.shape[1]) for tiling in (tilings or triton.tilings(case))[1:])
    span_BI2 = spans(segments_BL, reach_1, of_queries.queries, of_queries.keys)
    dq, delta = triton.query_gradients(case, of_queries, span_BI2, shared, q, k, v, out, do, lse)
    span_BI2 = spans(segments_BL, reach_1, of_keys.keys, of_keys.queries)
    return dq, *triton.key_gradients(case, of_keys, span_BI2, shared, q, k, v, do, lse, delta)


def _forward_on_tpu(case: Any, _: None, shared: Any, *qkv: jax.Array) -> Any:
    from bertjax.kernels import mosaic

    reach_1, keys_BN2, segments_BL = shared
    size = mosaic.block(segments_BL.shape[1])
    shared = (reach_1, _filled_heads(case, keys_BN2, 1), segments_BL)
    span_BI2 = spans(segments_BL, reach_1, size, size)
    out_BLC, lse = mosaic.forward(case, span_BI2, shared, tuple(_grouped(case, x) for x in qkv))
    return _apart(case, out_BLC, qkv[0].shape), lse


def _backward_on_tpu(case: Any, _: None, shared: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, do: Any) -> Any:
    from bertjax.kernels import mosaic

    reach_1, keys_BN2, segments_BL = shared
    size = mosaic.block(segments_BL.shape[1])
    shared = (reach_1, _filled_heads(case, keys_BN2, 1), segments_BL)
    delta_BLN = jnp.sum(out.astype(jnp.float32) * do.astype(jnp.float32), axis=3) * case.share
    delta = jnp.swapaxes(_filled_heads(case, delta_BLN, 2), 1, 2).reshape(lse.shape)
    grouped = tuple(_grouped(case, x) for x in (q, k, v, do))
    found = mosaic.gradients(case, spans(segments_BL, reach_1, size, size), shared, (*grouped, lse, delta))
    return tuple(_apart(case, x_BLC, q.shape) for x_BLC in found)


def _filled_heads(case: Any, x: jax.Array, axis: int) -> jax.Array:
    """With heads of zeros, until the last group is full."""
    from bertjax.kernels.mosaic import group_width

    more = -x.shape[axis] % group_width(case.head_dim)
    return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])


def _grouped(case: Any, x_BLND: jax.Array) -> jax.Array:
    """[B, L, C], as `mosaic` takes it: a view, where heads have 32, 64 or 128 numbers and fill their groups."""
    from bertjax.kernels.mosaic import LANES, group_width

    B, L, _, D = x_BLND.shape
    padded = LANES // group_width(case.head_dim)
    x_BLND = jnp.pad(_filled_heads(case, x_BLND, 2), [(0, 0), (0, 0), (0, 0), (0, padded - D)])
    return x_BLND.reshape(B, L, -1)


def _apart(case: Any, x_BLC: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_grouped`."""
    from bertjax.kernels.mosaic import LANES, group_width

    B, L, N, D = shape
    return x_BLC.reshape(B, L, -1, LANES // group_width(case.head_dim))[:, :, :N, :D]
