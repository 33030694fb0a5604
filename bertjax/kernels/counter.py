"""What dropout drops: a hash of seed, row and position; of attention probabilities also of head, query and key.

Shape letters: B rows, N heads, Q query positions, K key positions.

No mask is drawn and none is kept. Whoever needs the bit of a value computes it from where the value stands, so the
forward and the backward pass agree, and so do a mesh of any shape, blocks of any size, and the plain form of the
attention. All numbers are int32, which wraps around: TPU kernels compare no unsigned ones.
"""

from typing import Any

import jax
import jax.numpy as jnp

# Multipliers of the finaliser of MurmurHash3, and the golden ratio: the products of the latter with 0, 1, 2, ... keep
# further apart than any length of a row.
_FIRST, _SECOND, _GOLDEN = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32, 0x9E3779B9 - 2**32

PAIR = 8
"""Keys k and k + 8 of each 16 share a hash, of which each takes one half. In the layouts that the matrix units of GPUs
and TPUs leave their results in, both are in the same place, so that hashing costs half.
"""


def quantised(rate: float) -> int:
    """Of 65536 values, how many are kept at this rate of dropout; at least one."""
    return max(1, round((1.0 - rate) * 2**16))


def seed(key: jax.Array) -> jax.Array:
    """The two int32 words [2] of a step, and of a layer and its part, that stand for a key of JAX."""
    return jax.lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)


def row_keys(seed_2: jax.Array, rows_B: jax.Array) -> jax.Array:
    """Two words for each row, [B, 2]; the arguments are those of `head_keys`."""
    return head_keys(seed_2, rows_B, jnp.zeros([1], jnp.int32))[:, 0]


def head_keys(seed_2: jax.Array, rows_B: jax.Array, heads_N: jax.Array) -> jax.Array:
    """Two words for each head of each row, [B, N, 2].

    `seed_2`: as `seed` gives it; `rows_B`, `heads_N`: int32, which rows and heads these are, in the whole batch and the
    whole model, so that a device that holds some of them finds the same words.
    """
    by_row = [_mix(_mix(seed_2[i] ^ rows_B * _GOLDEN) + seed_2[1 - i]) for i in (0, 1)]
    return jnp.stack([_mix(row_B[:, None] + _mix(heads_N * _FIRST + i)[None, :]) for i, row_B in enumerate(by_row)], -1)


def bits(key: tuple[Any, Any], queries: jax.Array, keys: jax.Array) -> jax.Array:
    """A number for each probability that `queries` give to `keys`, in the shape that those two broadcast to.

    `key`: the two words of the head. `queries`, `keys`: int32 positions in the row. The probability is kept where its
    number is below `limit`; the lower 16 bits have no say.
    """
    return _words(key, queries, ((keys >> 4) * PAIR) | (keys & (PAIR - 1))) << ((keys & PAIR) * 2)


def tile_bits(key: tuple[Any, Any], queries_1Q: jax.Array, first: Any, size: int) -> jax.Array:
    """`bits` of `size` keys from `first` on, both multiples of 16: [size, Q], with a hash for each pair and no more."""
    pairs = first // 2 + jax.lax.broadcasted_iota(jnp.int32, (size // 2, 1), 0)
    words = _words(key, queries_1Q, pairs).reshape(size // 16, 1, PAIR, queries_1Q.shape[1])
    return jnp.concatenate([words, words << 16], axis=1).reshape(size, queries_1Q.shape[1])


def _words(key: tuple[Any, Any], queries: jax.Array, pairs: jax.Array) -> jax.Array:
    word = ((queries * _GOLDEN + key[0]) ^ pairs) * _FIRST
    word = (word ^ _shifted(word, 13) ^ key[1]) * _SECOND
    return word ^ _shifted(word, 16)


def limit(kept: int) -> int:
    """Of `bits`, for `kept` of 65536."""
    return (kept - 2**15) * 2**16


def plain_mask(keys_BN2: jax.Array, length: int, kept: int) -> jax.Array:
    """Of all probabilities of these heads, whether they are kept: [B, N, Q, K], as written out for tests and the plain
    form.
    """
    places = jnp.arange(length, dtype=jnp.int32)
    words = (keys_BN2[:, :, 0, None, None], keys_BN2[:, :, 1, None, None])
    return bits(words, places[None, None, :, None], places[None, None, None, :]) < limit(kept)


def value_mask(keys_B2: jax.Array, shape: tuple[int, ...], kept: int) -> jax.Array:
    """Of all values of an array [B, ..] of this shape, whether they are kept."""
    *outer, last = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in range(1, len(shape)))
    position = jnp.zeros([], jnp.int32)
    for size, index in zip(shape[1:], outer, strict=False):
        position = position * size + index
    first, second = (keys_B2[:, i].reshape(-1, *(1 for _ in shape[1:])) for i in (0, 1))
    return _words((first, second), position, last) < limit(kept)


def _shifted(word: jax.Array, places: int) -> jax.Array:
    return jax.lax.shift_right_logical(word, jnp.int32(places))


def _mix(word: jax.Array) -> jax.Array:
    word = (word ^ _shifted(word, 16)) * _FIRST
    word = (word ^ _shifted(word, 13)) * _SECOND
    return word ^ _shifted(word, 16)
