"""`bertjax.model.positions`: scores depend on distances, in each example from its own beginning."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import make, run

from bertjax.model.positions import rotate, rotation


def scores(positions, *, dtype=jnp.float32, base=10_000.0):
    """Products [L, L] of one query and one key, the same at each place, turned by the places."""
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(np.broadcast_to(rng.normal(size=8), (1, len(positions), 1, 8)), dtype) for _ in range(2))
    by = rotation(jnp.asarray(positions)[None, :], 8, base)
    return np.einsum("BLND,BMND->LM", *(np.asarray(rotate(x, by), np.float64) for x in (q, k)))


def test_scores_depend_on_the_distance_alone():
    near, far = scores(np.arange(20)), scores(np.arange(1000, 1020))
    np.testing.assert_allclose(near, far, atol=2e-4)
    for distance in range(1, 20):
        diagonal = np.diagonal(near, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-5)
    # Before and after are not the same, nor are two distances.
    assert abs(near[0, 3] - near[3, 0]) > 0.02 and abs(near[0, 1] - near[0, 2]) > 0.02


def test_far_places_stay_apart_in_half_precision():
    """In bfloat16 the angles of place 4,000 and 4,001 would be one; heads in bfloat16 are turned as in float32."""
    by = rotation(jnp.array([[4000, 4001]]), 8, 10_000.0)
    assert by.cos.dtype == by.sin.dtype == jnp.float32
    assert np.abs(by.sin[0, 0] - by.sin[0, 1]).max() > 0.1
    half, full = (scores(np.array([4000, 4001]), dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32))
    np.testing.assert_allclose(half, full, atol=0.1)


def test_the_place_zero_is_not_turned():
    x = jnp.arange(16.0).reshape(1, 2, 1, 8)
    by = rotation(jnp.array([[0, 3]]), 8, 100.0)
    np.testing.assert_array_equal(rotate(x, by)[:, 0], x[:, 0])
    assert not np.array_equal(rotate(x, by)[:, 1], x[:, 1])


@pytest.mark.parametrize("kind", ["rotary", "bert"])
def test_each_example_of_a_row_counts_from_its_own_beginning(kind):
    """The second example of a packed row equals the same example alone in a row."""
    config, batch, params = make(kind)
    L = config.data.seq_len
    half = L // 2
    places = np.tile(np.arange(half), 2)[None, :]
    packed = batch | {
        "tokens": np.tile(batch["tokens"][:, half:], 2),
        "segments": np.repeat([[1, 2]], half, axis=1) + np.zeros_like(batch["segments"]),
        "positions": places + np.zeros_like(batch["positions"]),
        "token_types": np.zeros_like(batch["token_types"]),
    }
    hidden = run(config.model)(params, packed)["hidden"]
    np.testing.assert_allclose(hidden[:, :half], hidden[:, half:], atol=2e-6)
    other = run(config.model)(params, packed | {"positions": np.arange(L)[None, :] % 7 + 0 * packed["positions"]})
    assert np.abs(other["hidden"] - hidden).max() > 1e-3
