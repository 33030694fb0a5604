"""`bertjax.kernels.flash`, interpreted: outputs and gradients against the plain form, and which blocks are visited.

Shape letters: B rows, L row length, N heads, D head dimension.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels import counter
from bertjax.kernels.flash import flash_attention, spans
from bertjax.kernels.triton import Tiling

SMALL = (Tiling(64, 32, 4, 2), Tiling(32, 64, 4, 2), Tiling(32, 32, 4, 2))
"""Blocks that differ from kernel to kernel."""


def make_rows(shape, dtype="float32", seed=0):
    """q, k, v, a cotangent; and segments that ascend, with padding behind in all rows but one."""
    rng = np.random.default_rng(seed)
    B, L, _, _ = shape
    arrays = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
    segments = np.zeros((B, L), np.int32)
    for b in range(B):
        ends = np.sort(rng.choice(np.arange(1, L), rng.integers(1, 6), replace=False))
        if b == 0:
            ends[-1] = L
        for number, end in reversed(list(enumerate(ends, start=1))):
            segments[b, :end] = number
    return arrays, segments


def words(B, N, seed=3):
    rows, heads = jnp.arange(B, dtype=jnp.int32), jnp.arange(N, dtype=jnp.int32)
    return counter.head_keys(jnp.array([seed, -9], jnp.int32), rows, heads)


def plain(q, k, v, segments, *, rate, keys_BN2, reach):
    """The same in float32, with every score in memory."""
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    L = q.shape[1]
    seen = (segments[:, :, None] == segments[:, None, :])[:, None]
    if reach is not None:
        seen &= (jnp.abs(jnp.arange(L)[:, None] - jnp.arange(L)[None, :]) <= reach)[None, None]
    scores = jnp.einsum("bqnd,bknd->bnqk", q, k) * q.shape[-1] ** -0.5
    probs = jax.nn.softmax(jnp.where(seen, scores, -1e30), -1)
    if keys_BN2 is not None:
        kept = counter.quantised(rate)
        probs = jnp.where(counter.plain_mask(keys_BN2, L, kept), probs * 2**16 / kept, 0.0)
    return jnp.einsum("bnqk,bknd->bqnd", probs, v)


def outputs_and_gradients(function, q, k, v, cotangent, segments, **more):
    out, pull = jax.vjp(lambda q, k, v: function(q, k, v, segments, **more), q, k, v)
    return out, *pull(cotangent.astype(out.dtype))


def run(function, shape, dtype="float32", seed=0, rate=0.0, reach=None, **static):
    (*arrays, cotangent), segments = make_rows(shape, dtype, seed)
    keys_BN2 = words(shape[0], shape[2]) if rate else None
    call = functools.partial(function, rate=rate, **static)
    return jax.jit(functools.partial(outputs_and_gradients, call))(
        *arrays, cotangent, segments, keys_BN2=keys_BN2, reach=reach
    )


interpreted = functools.partial(flash_attention, interpret=True)


def assert_close(actual, expected, tolerance):
    for a, b in zip(actual, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.isfinite(a).all()
        assert np.linalg.norm(a - b) < tolerance * np.linalg.norm(b)
        np.testing.assert_allclose(a, b, atol=20 * tolerance, rtol=20 * tolerance)


CASES = [
    ((2, 128, 2, 64), {"rate": 0.1, "platform": "gpu"}),
    ((3, 192, 1, 40), {"rate": 0.3, "reach": 25, "platform": "gpu"}),
    ((1, 128, 2, 128), {"platform": "gpu"}),
    ((2, 320, 1, 32), {"reach": 3, "rate": 0.5, "tilings": SMALL, "platform": "gpu"}),
    ((2, 384, 2, 64), {"rate": 0.1, "platform": "tpu"}),
    ((2, 512, 3, 40), {"rate": 0.3, "reach": 25, "platform": "tpu"}),
    ((1, 128, 2, 128), {"platform": "tpu"}),
    ((2, 256, 5, 32), {"reach": 3, "rate": 0.5, "platform": "tpu"}),
]
PLAIN = {"tilings", "platform"}
"""Of a case, what the plain form has not."""


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_equals_the_plain_form(shape, options):
    actual = run(interpreted, shape, **options)
    expected = run(plain, shape, **{name: value for name, value in options.items() if name not in PLAIN})
    assert_close(actual, expected, 2e-6)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_half_precision_equals_the_plain_form_of_the_same_numbers(platform):
    actual = run(interpreted, (2, 128, 2, 64), "bfloat16", rate=0.1, platform=platform)
    assert all(x.dtype == jnp.bfloat16 for x in actual)
    assert_close(actual, run(plain, (2, 128, 2, 64), "bfloat16", rate=0.1), 5e-3)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(24))
def test_equals_the_plain_form_of_random_cases(seed):
    rng = np.random.default_rng(seed)
    shape = (
        int(rng.integers(1, 4)),
        64 * int(rng.integers(1, 9)),
        int(rng.integers(1, 4)),
        int(rng.integers(2, 17)) * 8,
    )
    sizes = [Tiling(*(2 ** rng.integers(5, 8, 2)).tolist(), 4, 2) for _ in range(3)]
    options = {
        "rate": float(rng.choice([0.0, 0.1, 0.6])),
        "reach": None if rng.random() < 0.5 else int(rng.integers(0, shape[1])),
    }
    dtype, tolerance = ("float32", 2e-6) if rng.random() < 0.6 else ("bfloat16", 6e-3)
    actual = run(interpreted, shape, dtype, seed, tilings=tuple(sizes), **options)
    assert_close(actual, run(plain, shape, dtype, seed, **options), tolerance)


def test_the_same_is_dropped_whatever_the_blocks():
    """With equal scores, the output of ones is the share that was kept, and no rounding hides a bit that differs."""
    shape = (1, 128, 2, 16)
    ones, segments = jnp.ones(shape), jnp.ones((1, 128), jnp.int32)
    outs = [
        interpreted(ones, ones, ones, segments, rate=0.5, keys_BN2=words(1, 2), reach=None, tilings=sizes)
        for sizes in (SMALL, (Tiling(128, 128, 4, 2),) * 3)
    ]
    kept = counter.plain_mask(words(1, 2), 128, counter.quantised(0.5)).sum(-1)
    for out in outs:
        np.testing.assert_allclose(out[0, :, :, 0].T * 64, kept[0], rtol=1e-5)


@pytest.mark.parametrize("sorted_", [True, False])
@pytest.mark.parametrize("reach", [10_000, 40])
def test_spans_hold_every_block_that_is_seen(reach, sorted_):
    """And, where segments ascend, no other: the blocks beside an example are not visited."""
    length, block, other = 256, 32, 64
    segments = make_rows((6, length, 1, 8), seed=2)[1]
    if not sorted_:
        segments = np.random.default_rng(0).permuted(segments, axis=1)
    span = np.asarray(spans(jnp.asarray(segments), jnp.array([reach]), block, other))
    places = np.arange(length)
    seen = segments[:, :, None] == segments[:, None, :]
    seen &= np.abs(places[:, None] - places[None, :]) <= reach
    seen = seen.reshape(6, length // block, block, length // other, other).any((2, 4))
    first, last = seen.argmax(2), length // other - seen[:, :, ::-1].argmax(2)
    assert (span[..., 0] <= first).all() and (span[..., 1] >= last).all()
    if sorted_ and reach > length:
        np.testing.assert_array_equal(span, np.stack([first, last], -1))
        assert (last - first).mean() < 0.8 * length / other, "too few blocks are skipped to show it"


def test_blocks_outside_the_span_are_not_read():
    """What is not visited may even be NaN, which a masked product would spread."""
    shape = (1, 256, 1, 16)
    (q, k, v, _), _ = make_rows(shape)
    segments = jnp.repeat(jnp.array([[1, 2]], jnp.int32), 128, axis=1)
    v = v.at[:, 128:].set(jnp.nan)
    out = interpreted(q, k, v, segments, rate=0.0, keys_BN2=None, reach=None, tilings=SMALL)
    assert np.isfinite(out[:, :128]).all() and np.isnan(out[:, 128:]).all()
