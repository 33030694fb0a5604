"""Flash attention for TPUs: two Pallas kernels for the Mosaic compiler.

Shape letters: B rows, L row length, N heads, D head dimension; G groups of W heads, whose W * D numbers fill the 128
lanes of a register, C = G * 128; of a block, Q query positions and K key positions.

A program has a group of heads of a row: its keys and values are in fast memory whole. Queries lie along lanes and keys
along sublanes, so that maxima and sums of a row of the softmax are those of whole registers. Heads of a group are told
apart by zeros in the lanes of the others, which the matrix unit multiplies at no cost, since it is 128 wide anyway: so
nothing is transposed or shifted on the way from the layout of the projections, [B, L, N * D], and back.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bertjax.kernels import counter
from bertjax.kernels.case import UNSEEN, Case

LANES = 128


def group_width(head_dim: int) -> int:
    """Heads of a group."""
    return max(1, LANES // max(8, 1 << (head_dim - 1).bit_length()))


def block(length: int) -> int:
    """Positions of a block, of queries and of keys."""
    return math.gcd(length, 256)


class _Tile:
    """What a kernel knows of one block of queries against one of keys, but for the heads."""

    def __init__(self, case: Case, size: int, refs: tuple[Any, ...], queries: Any, keys: Any) -> None:
        reach_ref, rows_ref, columns_ref = refs
        self.case = case
        self.queries = pl.ds(pl.multiple_of(queries * size, size), size)
        self.keys = pl.ds(pl.multiple_of(keys * size, size), size)
        self.first = keys * size
        self.places_1Q = queries * size + jax.lax.broadcasted_iota(jnp.int32, (1, size), 1)
        self.places_K1 = keys * size + jax.lax.broadcasted_iota(jnp.int32, (size, 1), 0)
        self.seen_KQ = columns_ref[0, self.keys, :] == rows_ref[0, :, self.queries]
        if case.has_window:
            self.seen_KQ &= jnp.abs(self.places_K1 - self.places_1Q) <= reach_ref[0]

    def scores(self, k_KC: jax.Array, q_QC: jax.Array) -> jax.Array:
        return jnp.where(self.seen_KQ, self.case.product(k_KC, q_QC, (1, 1)), UNSEEN)

    def kept(self, key: tuple[Any, Any]) -> jax.Array:
        size = self.places_1Q.shape[1]
        return counter.tile_bits(key, self.places_1Q, self.first, size) < counter.limit(self.case.kept)


def _of_head(x_PC: jax.Array, head: int, width: int) -> jax.Array:
    """With zeros in the lanes of the other heads of the group."""
    if width == 1:
        return x_PC
    lanes = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
    return jnp.where(lanes // (LANES // width) == head, x_PC, jnp.zeros_like(x_PC))


def _forward(case: Case, width: int, *refs: Any) -> None:
    spans_ref, reach_ref, words_ref, rows_ref, columns_ref, q_ref, k_ref, v_ref, out_ref, lse_ref = refs
    b, g, i = (pl.program_id(axis) for axis in range(3))
    blocks, size = pl.num_programs(2), q_ref.shape[1]
    first, last = (spans_ref[(b * blocks + i) * 2 + end] for end in (0, 1))
    outs_CQ, per = [], LANES // width
    for head in range(width):
        q_QC = _of_head(q_ref[0], head, width)
        at = ((b * pl.num_programs(1) + g) * width + head) * 2
        key = (words_ref[at], words_ref[at + 1])

        def walk(j: jax.Array, carry: Any, q_QC: jax.Array = q_QC, key: Any = key) -> Any:
            out_CQ, top_1Q, sum_1Q = carry
            tile = _Tile(case, size, (reach_ref, rows_ref, columns_ref), i, j)
            scores_KQ = tile.scores(k_ref[0, tile.keys, :], q_QC)
            new_1Q = jnp.maximum(top_1Q, jnp.max(scores_KQ, axis=0, keepdims=True))
            probs_KQ = jnp.exp2((scores_KQ - new_1Q) * case.scale)
            shrink_1Q = jnp.exp2((top_1Q - new_1Q) * case.scale)
            sum_1Q = sum_1Q * shrink_1Q + jnp.sum(probs_KQ, axis=0, keepdims=True)
            if case.drops:
                probs_KQ = jnp.where(tile.kept(key), probs_KQ, 0.0)
            v_KC = v_ref[0, tile.keys, :]
            out_CQ = out_CQ * shrink_1Q + case.product(v_KC, probs_KQ.astype(v_KC.dtype), (0, 0))
            return out_CQ, new_1Q, sum_1Q

        zeros_1Q = jnp.zeros((1, size), jnp.float32)
        start = (jnp.zeros((LANES, size), jnp.float32), zeros_1Q + UNSEEN, zeros_1Q)
        out_CQ, top_1Q, sum_1Q = jax.lax.fori_loop(first, last, walk, start)
        outs_CQ.append((out_CQ / (sum_1Q * case.share))[head * per : (head + 1) * per])
        lse_ref[0, 0, head : head + 1, :] = top_1Q * case.scale + jnp.log2(sum_1Q)
    out_ref[0] = jnp.concatenate(outs_CQ, axis=0).T.astype(out_ref.dtype)


def _backward(case: Case, width: int, *refs: Any) -> None:
    """All three gradients at once: walks over the blocks of keys, and in each over those of queries."""
    spans_ref, reach_ref, words_ref, rows_ref, columns_ref, q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref = refs[:11]
    dq_ref, dk_ref, dv_ref, sum_ref = refs[11:]
    b, g = pl.program_id(0), pl.program_id(1)
    length = q_ref.shape[1]
    size = block(length)
    blocks = length // size
    sum_ref[...] = jnp.zeros_like(sum_ref)

    def columns(j: jax.Array, _: None) -> None:
        here = pl.ds(pl.multiple_of(j * size, size), size)
        k_KC, v_KC = k_ref[0, here, :], v_ref[0, here, :]

        def walk(i: jax.Array, carry: Any) -> Any:
            dk_KC, dv_KC = carry
            tile = _Tile(case, size, (reach_ref, rows_ref, columns_ref), i, j)
            for head in range(width):
                q_QC, do_QC, mine_KC = (
                    _of_head(x, head, width) for x in (q_ref[0, tile.queries, :], do_ref[0, tile.queries, :], k_KC)
                )
                lse_1Q, delta_1Q = (ref[0, 0, head : head + 1, tile.queries] for ref in (lse_ref, delta_ref))
                probs_KQ = jnp.exp2(tile.scores(k_KC, q_QC) * case.scale - lse_1Q)
                dp_KQ, kept_KQ = case.product(v_KC, do_QC, (1, 1)), probs_KQ
                if case.drops:
                    at = ((b * pl.num_programs(1) + g) * width + head) * 2
                    kept = tile.kept((words_ref[at], words_ref[at + 1]))
                    dp_KQ, kept_KQ = jnp.where(kept, dp_KQ, 0.0), jnp.where(kept, probs_KQ, 0.0)
                dv_KC += case.product(kept_KQ.astype(do_QC.dtype), do_QC, (1, 0))
                ds_KQ = (probs_KQ * (dp_KQ - delta_1Q)).astype(q_QC.dtype)
                dk_KC += case.product(ds_KQ, q_QC, (1, 0))
                sum_ref[tile.queries, :] += case.product(ds_KQ, mine_KC, (0, 0))
            return dk_KC, dv_KC

        zeros_KC = jnp.zeros((size, LANES), jnp.float32)
        first, last = (spans_ref[(b * blocks + j) * 2 + end] for end in (0, 1))
        dk_KC, dv_KC = jax.lax.fori_loop(first, last, walk, (zeros_KC, zeros_KC))
        dk_ref[0, here, :] = (dk_KC * (case.head_dim**-0.5 / case.share)).astype(dk_ref.dtype)
        dv_ref[0, here, :] = (dv_KC / case.share).astype(dv_ref.dtype)

    jax.lax.fori_loop(0, blocks, columns, None)
    dq_ref[0] = (sum_ref[...] * (case.head_dim**-0.5 / case.share)).astype(dq_ref.dtype)


def forward(
    case: Case, span_BI2: jax.Array, shared: tuple[jax.Array, ...], qkv_BLC: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """The output [B, L, C], and the logarithms of the sums, [B, G, W, L].

    `span_BI2`: of each block of queries, the first block of keys it may see and the one after the last. `shared`:
    how far a local layer sees [1], the words of heads [B, N, 2], segments [B, L].
    """
    q = qkv_BLC[0]
    B, L, C = q.shape
    width, size = group_width(case.head_dim), block(L)
    part = pl.BlockSpec((1, size, LANES), lambda b, g, i, *_: (b, i, g))
    whole = pl.BlockSpec((1, L, LANES), lambda b, g, i, *_: (b, 0, g))
    lse = pl.BlockSpec((1, 1, width, size), lambda b, g, i, *_: (b, g, 0, i))
    shapes = [jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((B, C // LANES, width, L), jnp.float32)]
    grid = (B, C // LANES, L // size)
    return _call(case, "forward", partial(_forward, case, width), grid, span_BI2, shared, qkv_BLC,
                 [part, whole, whole], shapes, [part, lse], [])  # fmt: skip


def gradients(
    case: Case, span_BJ2: jax.Array, shared: tuple[jax.Array, ...], inputs: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Those of q, k and v, [B, L, C].

    `span_BJ2`: of each block of keys, the blocks of queries. `inputs`: q, k, v and the gradient of the output,
    [B, L, C]; of the forward pass the logarithms, and the sums of output times its gradient, times the share that is
    kept, both [B, G, W, L].
    """
    q, k, v = inputs[:3]
    B, L, C = q.shape
    width = group_width(case.head_dim)
    whole = pl.BlockSpec((1, L, LANES), lambda b, g, *_: (b, 0, g))
    sums = pl.BlockSpec((1, 1, width, L), lambda b, g, *_: (b, g, 0, 0))
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    scratch = [pltpu.VMEM((L, LANES), jnp.float32)]
    return _call(case, "backward", partial(_backward, case, width), (B, C // LANES), span_BJ2, shared,
                 inputs, [whole] * 4 + [sums] * 2, shapes, [whole] * 3, scratch)  # fmt: skip


def _call(
    case: Case, name: str, kernel: Any, grid: tuple[int, ...], spans: jax.Array, shared: tuple[jax.Array, ...],
    inputs: tuple[jax.Array, ...], in_specs: list[Any], shapes: list[Any], out_specs: list[Any], scratch: list[Any],
) -> Any:  # fmt: skip
    reach_1, words_BN2, segments_BL = shared
    B, L = segments_BL.shape
    row = pl.BlockSpec((1, 1, L), lambda b, *_: (b, 0, 0))
    column = pl.BlockSpec((1, L, 1), lambda b, *_: (b, 0, 0))
    call = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3, grid=grid, in_specs=[row, column, *in_specs], out_specs=out_specs,
            scratch_shapes=scratch,
        ),
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(dimension_semantics=["parallel"] * len(grid)),
        interpret=case.interpret,
        name=f"flash_{name}",
    )  # fmt: skip
    return call(
        spans.reshape(-1), reach_1, words_BN2.reshape(-1), segments_BL[:, None, :], segments_BL[:, :, None], *inputs
    )
