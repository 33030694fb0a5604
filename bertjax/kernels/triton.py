"""Flash attention for GPUs: three Pallas kernels for the Triton compiler.

Shape letters: B rows, L row length, N heads, D head dimension (of a block: the next power of two, filled with zeros);
of a block, Q query positions and K key positions; I blocks of a row.

forward   a program has a block of queries, walks over the keys that they may see, and keeps the logarithm of each sum
queries   the same walk again for the gradients of a block of queries
keys      a program has a block of keys and walks over the queries that may see them; everything in it is transposed, so
          that each product takes its left side from where the last one left it

Powers are of two, not of e; the logarithms too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from bertjax.kernels import counter
from bertjax.kernels.case import UNSEEN, Case

LEAST = 16
"""The fewest numbers that the matrix units take along an axis."""


@dataclass(frozen=True)
class Tiling:
    """Of one kernel: positions of a block of queries and of keys, warps, stages of the pipeline of loads."""

    queries: int
    keys: int
    warps: int
    stages: int

    def of(self, length: int) -> "Tiling":
        """With blocks that divide rows of this length."""
        return Tiling(math.gcd(self.queries, length), math.gcd(self.keys, length), self.warps, self.stages)


@dataclass(frozen=True)
class OnGpu(Case):
    """With what this compiler has its own words for."""

    def power(self, scores: jax.Array, less: jax.Array) -> jax.Array:
        """2 ** (scores * scale - less)."""
        if self.interpret:
            return jnp.exp2(scores * self.scale - less)
        # Two instructions. What the compiler makes of the line above is four or more: it fuses no multiplication with
        # an addition, and the library's function takes care of numbers below 2**-126.
        code = f"{{ .reg .f32 x; fma.rn.ftz.f32 x, $1, 0f{_hex(self.scale)}, $2; ex2.approx.ftz.f32 $0, x; }}"
        return _assembly(code, "=f,f,f", [scores, jnp.broadcast_to(-less, scores.shape)])

    def precision(self) -> Any:
        # Three products of the matrix units, which are nearly as precise as one without them.
        preset = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
        return super().precision() if self.interpret else preset

    def load(self, ref: Any) -> jax.Array:
        """A block of positions, [positions, D]."""
        if ref.shape[-1] == self.head_dim:
            return ref[...]
        return plt.load(ref, mask=self._within(ref.shape[-1]), other=0.0)

    def store(self, ref: Any, x: jax.Array) -> None:
        if ref.shape[-1] == self.head_dim:
            ref[...] = x.astype(ref.dtype)
        else:
            plt.store(ref, x.astype(ref.dtype), mask=self._within(ref.shape[-1]))

    def _within(self, padded: int) -> jax.Array:
        return (jnp.arange(padded) < self.head_dim)[None, :]

    def sees(self, reach_ref: Any, queries: tuple[Any, Any], keys: tuple[Any, Any]) -> jax.Array:
        """Whether they do; both as (positions, segments)."""
        same = queries[1] == keys[1]
        return same & (jnp.abs(queries[0] - keys[0]) <= reach_ref[0]) if self.has_window else same

    def drop(self, keys_ref: Any, queries: jax.Array, keys: jax.Array, *tiles: jax.Array) -> tuple[jax.Array, ...]:
        """`tiles` with zeros where the probability is dropped."""
        if not self.drops:
            return tiles
        bits, limit = counter.bits((keys_ref[0], keys_ref[1]), queries, keys), counter.limit(self.kept)
        if self.interpret:
            return tuple(jnp.where(bits < limit, tile, 0.0) for tile in tiles)
        # Or else the compiler selects after the conversion to half precision, which it first has to unpack for that.
        code = f"{{ .reg .pred p; setp.lt.s32 p, $2, {limit}; selp.f32 $0, $1, 0f00000000, p; }}"
        return tuple(_assembly(code, "=f,f,r", [tile, bits]) for tile in tiles)


def tilings(case: Case) -> tuple[Tiling, Tiling, Tiling]:
    """Of the forward kernel, and of those for the gradients of queries and of keys."""
    if case.dtype == "float32":
        return (Tiling(32, 32, 4, 2),) * 3
    if case.head_dim > 64:
        return Tiling(64, 32, 4, 2), Tiling(64, 32, 4, 2), Tiling(32, 64, 4, 2)
    return Tiling(128, 64, 4, 2), Tiling(64, 64, 4, 2), Tiling(64, 64, 4, 2)


def _hex(x: float) -> str:
    """A float32 as the assembler reads it."""
    return f"{np.float32(x).view(np.uint32):08X}"


def _assembly(code: str, constraints: str, args: list[jax.Array]) -> jax.Array:
    """`code` for each element, whose result is float32."""
    shape = jax.ShapeDtypeStruct(args[0].shape, jnp.float32)
    return plt.elementwise_inline_asm(code, args=args, constraints=constraints, pack=1, result_shape_dtypes=[shape])[0]


def _forward(case: OnGpu, tiling: Tiling, *refs: Any) -> None:
    span_ref, reach_ref, keys_ref, segments_ref, q_ref, k_ref, v_ref, out_ref, lse_ref = refs
    first = pl.program_id(0) * tiling.queries
    places_Q = first + jnp.arange(tiling.queries, dtype=jnp.int32)
    q_QD, segments_Q = case.load(q_ref), segments_ref[pl.ds(first, tiling.queries)]

    def walk(block: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        out_QD, top_Q, sum_Q = carry
        here = pl.ds(block * tiling.keys, tiling.keys)
        places_K = block * tiling.keys + jnp.arange(tiling.keys, dtype=jnp.int32)
        scores_QK = case.product(q_QD, case.load(k_ref.at[here, :]), (1, 1))
        queries, keys = (places_Q[:, None], segments_Q[:, None]), (places_K[None, :], segments_ref[here][None, :])
        scores_QK = jnp.where(case.sees(reach_ref, queries, keys), scores_QK, UNSEEN)
        new_Q = jnp.maximum(top_Q, jnp.max(scores_QK, axis=1))
        probs_QK = case.power(scores_QK, (new_Q * case.scale)[:, None])
        shrink_Q = case.power(top_Q, new_Q * case.scale)
        sum_Q = sum_Q * shrink_Q + jnp.sum(probs_QK, axis=1)
        (probs_QK,) = case.drop(keys_ref, queries[0], keys[0], probs_QK)
        v_KD = case.load(v_ref.at[here, :])
        return out_QD * shrink_Q[:, None] + case.product(probs_QK.astype(v_KD.dtype), v_KD, (1, 0)), new_Q, sum_Q

    zeros_Q = jnp.zeros(tiling.queries, jnp.float32)
    start = (jnp.zeros(q_QD.shape, jnp.float32), zeros_Q + UNSEEN, zeros_Q)
    out_QD, top_Q, sum_Q = jax.lax.fori_loop(span_ref[0], span_ref[1], walk, start)
    case.store(out_ref, out_QD * (1.0 / (sum_Q * case.share))[:, None])
    lse_ref[...] = top_Q * case.scale + jnp.log2(sum_Q)


def _queries(case: OnGpu, tiling: Tiling, *refs: Any) -> None:
    """Gradients of queries; and of the sum that each row of the softmax was divided by, for the other kernel."""
    span_ref, reach_ref, keys_ref, segments_ref, q_ref, k_ref, v_ref, out_ref, do_ref, lse_ref, dq_ref, delta_ref = refs
    first = pl.program_id(0) * tiling.queries
    places_Q = first + jnp.arange(tiling.queries, dtype=jnp.int32)
    q_QD, do_QD, segments_Q = case.load(q_ref), case.load(do_ref), segments_ref[pl.ds(first, tiling.queries)]
    out_QD = case.load(out_ref)
    delta_Q = jnp.sum(out_QD.astype(jnp.float32) * do_QD.astype(jnp.float32), axis=1) * case.share
    delta_ref[...] = delta_Q
    lse_Q = lse_ref[...]

    def walk(block: jax.Array, dq_QD: jax.Array) -> jax.Array:
        here = pl.ds(block * tiling.keys, tiling.keys)
        places_K = block * tiling.keys + jnp.arange(tiling.keys, dtype=jnp.int32)
        k_KD = case.load(k_ref.at[here, :])
        scores_QK = case.product(q_QD, k_KD, (1, 1))
        queries, keys = (places_Q[:, None], segments_Q[:, None]), (places_K[None, :], segments_ref[here][None, :])
        scores_QK = jnp.where(case.sees(reach_ref, queries, keys), scores_QK, UNSEEN)
        probs_QK = case.power(scores_QK, lse_Q[:, None])
        dp_QK = case.product(do_QD, case.load(v_ref.at[here, :]), (1, 1))
        (dp_QK,) = case.drop(keys_ref, queries[0], keys[0], dp_QK)
        ds_QK = probs_QK * (dp_QK - delta_Q[:, None])
        return dq_QD + case.product(ds_QK.astype(k_KD.dtype), k_KD, (1, 0))

    dq_QD = jax.lax.fori_loop(span_ref[0], span_ref[1], walk, jnp.zeros(q_QD.shape, jnp.float32))
    case.store(dq_ref, dq_QD * (case.head_dim**-0.5 / case.share))


def _keys(case: OnGpu, tiling: Tiling, *refs: Any) -> None:
    """Gradients of keys and values."""
    span_ref, reach_ref, keys_ref, segments_ref, q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref, dk_ref, dv_ref = refs
    first = pl.program_id(0) * tiling.keys
    places_K = first + jnp.arange(tiling.keys, dtype=jnp.int32)
    k_KD, v_KD, segments_K = case.load(k_ref), case.load(v_ref), segments_ref[pl.ds(first, tiling.keys)]

    def walk(block: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk_KD, dv_KD = carry
        here = pl.ds(block * tiling.queries, tiling.queries)
        places_Q = block * tiling.queries + jnp.arange(tiling.queries, dtype=jnp.int32)
        q_QD, do_QD = case.load(q_ref.at[here, :]), case.load(do_ref.at[here, :])
        scores_KQ = case.product(k_KD, q_QD, (1, 1))
        queries, keys = (places_Q[None, :], segments_ref[here][None, :]), (places_K[:, None], segments_K[:, None])
        scores_KQ = jnp.where(case.sees(reach_ref, queries, keys), scores_KQ, UNSEEN)
        probs_KQ = case.power(scores_KQ, lse_ref[here][None, :])
        dp_KQ = case.product(v_KD, do_QD, (1, 1))
        kept_KQ, dp_KQ = case.drop(keys_ref, queries[0], keys[0], probs_KQ, dp_KQ)
        dv_KD = dv_KD + case.product(kept_KQ.astype(do_QD.dtype), do_QD, (1, 0))
        ds_KQ = probs_KQ * (dp_KQ - delta_ref[here][None, :])
        return dk_KD + case.product(ds_KQ.astype(q_QD.dtype), q_QD, (1, 0)), dv_KD

    zeros_KD = jnp.zeros(k_KD.shape, jnp.float32)
    dk_KD, dv_KD = jax.lax.fori_loop(span_ref[0], span_ref[1], walk, (zeros_KD, zeros_KD))
    case.store(dk_ref, dk_KD * (case.head_dim**-0.5 / case.share))
    case.store(dv_ref, dv_KD / case.share)


def forward(
    case: OnGpu, tiling: Tiling, span_BI2: jax.Array, shared: tuple[jax.Array, ...], q: Any, k: Any, v: Any
) -> tuple[jax.Array, jax.Array]:
    """The output, as `q` [B, L, N, D], and the logarithms of the sums, [B, N, L].

    `span_BI2`: of each block of queries, the first block of keys it may see and the one after the last. `shared`:
    how far a local layer sees [1], the words of heads [B, N, 2], segments [B, L].
    """
    B, L, N, _ = q.shape
    lse = jax.ShapeDtypeStruct((B, N, L), jnp.float32)
    part, whole = _specs(q.shape, tiling.queries)
    inputs = [(q, part), (k, whole), (v, whole)]
    return _call(case, "forward", _forward, tiling, tiling.queries, span_BI2, shared, inputs, [(q, part), (lse, None)])


def query_gradients(
    case: OnGpu, tiling: Tiling, span_BI2: jax.Array, shared: tuple[jax.Array, ...], q: Any, k: Any, v: Any,
    out: Any, do: Any, lse_BNL: Any,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The gradient of `q`, and what `key_gradients` calls delta, [B, N, L]."""
    part, whole = _specs(q.shape, tiling.queries)
    inputs = [(q, part), (k, whole), (v, whole), (out, part), (do, part), (lse_BNL, None)]
    outputs = [(q, part), (lse_BNL, None)]
    return _call(case, "queries", _queries, tiling, tiling.queries, span_BI2, shared, inputs, outputs)


def key_gradients(
    case: OnGpu, tiling: Tiling, span_BI2: jax.Array, shared: tuple[jax.Array, ...], q: Any, k: Any, v: Any,
    do: Any, lse_BNL: Any, delta_BNL: Any,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The gradients of `k` and `v`. `span_BI2`: of each block of keys, the blocks of queries."""
    part, whole = _specs(q.shape, tiling.keys)
    row = pl.BlockSpec((None, None, q.shape[1]), lambda i, n, b: (b, n, 0))
    inputs = [(q, whole), (k, part), (v, part), (do, whole), (lse_BNL, row), (delta_BNL, row)]
    return _call(case, "keys", _keys, tiling, tiling.keys, span_BI2, shared, inputs, [(k, part), (v, part)])


def _specs(shape: tuple[int, ...], block: int) -> tuple[pl.BlockSpec, pl.BlockSpec]:
    """Of [B, L, N, D]: a program's block, and the whole row of its head."""
    _, length, _, head_dim = shape
    padded = max(LEAST, pl.next_power_of_2(head_dim))
    part = pl.BlockSpec((None, block, None, padded), lambda i, n, b: (b, i, n, 0))
    return part, pl.BlockSpec((None, length, None, padded), lambda i, n, b: (b, 0, n, 0))


def _call(
    case: OnGpu, name: str, kernel: Callable[..., None], tiling: Tiling, block: int, span_BI2: jax.Array,
    shared: tuple[jax.Array, ...], inputs: list[tuple[Any, Any]], outputs: list[tuple[Any, Any]],
) -> Any:  # fmt: skip
    """A program for each block, head and row. A spec of None: the block of [B, N, L]."""
    reach_1, keys_BN2, segments_BL = shared
    B, N, L = segments_BL.shape[0], keys_BN2.shape[1], segments_BL.shape[1]
    part = pl.BlockSpec((None, None, block), lambda i, n, b: (b, n, i))
    before = [
        (span_BI2, pl.BlockSpec((None, None, 2), lambda i, n, b: (b, i, 0))),
        (reach_1, pl.BlockSpec((1,), lambda i, n, b: (0,))),
        (keys_BN2, pl.BlockSpec((None, None, 2), lambda i, n, b: (b, n, 0))),
        (segments_BL, pl.BlockSpec((None, L), lambda i, n, b: (b, 0))),
    ]
    arrays, specs = zip(*before, *inputs, strict=True)
    call = pl.pallas_call(
        partial(kernel, case, tiling),
        grid=(L // block, N, B),
        in_specs=[spec or part for spec in specs],
        out_specs=[spec or part for _, spec in outputs],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outputs],
        compiler_params=plt.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=case.interpret,
        name=f"flash_{name}",
    )
    return call(*arrays)
