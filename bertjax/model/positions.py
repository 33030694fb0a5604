"""Rotary positions: queries and keys are turned by their place, so that scores depend on distances alone.

Su et al. 2021 (arXiv 2104.09864). Of a head of D numbers, pair i is turned by the angle position / base^(2i/D). A pair
is i and i + D/2 ("halves": GPT-NeoX, ModernBERT, nomic-bert) or 2i and 2i + 1 ("neighbours": the paper, NeoBERT).

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


def rotate(x_BLND: jax.Array, by: Rotation, pairs: str = "halves") -> jax.Array:
    """Turn the two numbers of each pair of each head; computed in float32, returned in the dtype of `x_BLND`.

    `pairs` is a value of `model.rotary_pairs`.
    """
    *outer, size = x_BLND.shape
    # The two numbers of a pair on an axis of their own: the last but one for halves, the last for neighbours.
    split, axis = ((2, size // 2), -2) if pairs == "halves" else ((size // 2, 2), -1)
    y = x_BLND.astype(jnp.float32).reshape(*outer, *split)
    first, second = jnp.take(y, 0, axis=axis), jnp.take(y, 1, axis=axis)
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=axis)
    return turned.reshape(x_BLND.shape).astype(x_BLND.dtype)
