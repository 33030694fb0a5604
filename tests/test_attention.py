"""`bertjax.attention` against plain loops, on packed rows."""

import jax
import numpy as np

from bertjax.attention import attend


def test_equals_a_loop_over_the_tokens_of_each_example():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 9, 3, 4)).astype(np.float32) for _ in range(3))
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    out = np.asarray(jax.jit(lambda: attend(q, k, v, segments, dropout_rate=0.0, key=None))())
    for b, i, n in np.ndindex(2, 9, 3):
        seen = np.flatnonzero(segments[b] == segments[b, i])
        weight = np.exp(k[b, seen, n] @ q[b, i, n] / 2.0)
        np.testing.assert_allclose(out[b, i, n], weight @ v[b, seen, n] / weight.sum(), atol=1e-6, rtol=0)


def test_dropout_is_on_the_probabilities():
    """With equal scores and values of 1, an output is the share of the probabilities that was kept."""
    ones, segments = np.ones((1, 64, 1, 4), np.float32), np.ones((1, 64), np.int32)
    out = np.asarray(attend(ones, ones, ones, segments, dropout_rate=0.5, key=jax.random.key(0)))
    np.testing.assert_allclose(out.mean(), 1.0, atol=0.1)
    kept = out[0, :, 0, 0] * 32
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    assert out.std() > 0.05
