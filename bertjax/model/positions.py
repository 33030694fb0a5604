"""Rotary positions: queries and keys are turned by their place, so that scores depend on distances alone.

Su et al. 2021 (arXiv 2104.09864). Of a head of D numbers, numbers i and i + D/2 are turned as a pair, by the angle
position / base^(2i/D), as in GPT-NeoX, ModernBERT and nomic-bert.

Shape letters: B rows, L positions of a row, N heads, D head dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rotation(NamedTuple):
    """Cosine and sine of each angle, float32 [B, L, D/2]."""

    cos: jax.Array
    sin: jax.Array


def rotation(positions_BL: jax.Array, head_dim: int, base: float) -> Rotation:
    """The rotation of each place, once for all layers; in float32, as half precision cannot tell far places apart."""
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions_BL[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x_BLND: jax.Array, by: Rotation) -> jax.Array:
    """Turn the two halves of each head against each other; computed in float32, returned in the dtype of `x_BLND`."""
    first, second = jnp.split(x_BLND.astype(jnp.float32), 2, axis=-1)
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_BLND.dtype)
