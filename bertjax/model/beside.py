"""An initialiser for learned positions: heads that begin with an eye on the words beside.

A learned table must find out what "the word before" is once for each of its rows, and a small model on little text
never does. Here the table begins as waves, position[m] = s sqrt(2) (cos w_k m, sin w_k m), whose frequencies are spread
evenly over (0, pi), so that places nearer to each other than the width of the table are all but orthogonal. A rotation
R(d) then takes the row of m to that of m + d, and the keys of a head begin as its queries behind that rotation: its
scores are largest d places away, for d = -1, +1, -2, +2 and so on by head. (Trockman and Kolter 2023, arXiv 2305.09828,
begin keys as queries, without the rotation.)

Factorised embeddings, of a size E below H, go through the kernel T [E, H] first. Then the keys begin as
pinv(T) R T queries, for which T keys = R (T queries), and T has the range that keeps a hidden state the size of an
embedding.

Shape letters: M positions of the table, E embedding size, H hidden size, W waves (E / 2), N heads, D head dimension; a
leading dot is the axes that stack layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config.schema import ModelConfig

SHARPNESS = 2.0
"""Range of the queries' kernels times sqrt(H). At 2 the expected score d places away is 12 for heads of 64, with words
and positions of one size; at 1 it is 3, and a small model stays where it is."""


def beside(config: ModelConfig, params: Any) -> Any:
    """Fresh parameters (`bertjax.model.network.init`) with the position table, the size of the other tables, queries
    and keys changed as above. Needs E <= H and an even E.
    """
    flat, size = flatten_dict(params, sep="/"), config.embedding_size
    tables = "encoder/embeddings"
    for name in ("word", "token_type", "to_hidden/kernel"):
        if f"{tables}/{name}" in flat:
            flat[f"{tables}/{name}"] *= size**-0.5 / config.initializer_range
    flat[f"{tables}/position"] = waves(config.max_positions, size)
    turned = rotations(config.num_heads, size)
    if config.hidden_size != size:
        to_hidden_EH = flat[f"{tables}/to_hidden/kernel"]
        turned = jnp.einsum("FG,NFE,HE->NGH", to_hidden_EH, turned, jnp.linalg.pinv(to_hidden_EH))
    for path in [path for path in flat if path.endswith("attention/query/kernel")]:
        query = flat[path] * (SHARPNESS * config.hidden_size**-0.5 / config.initializer_range)
        of_heads = query.reshape(*query.shape[:-1], config.num_heads, -1)  # [..., H, N, D]
        flat[path] = query
        flat[path.replace("query", "key")] = jnp.einsum("NGH,...GND->...HND", turned, of_heads).reshape(query.shape)
    return unflatten_dict(flat, sep="/")


def frequencies(size: int) -> jax.Array:
    """Of the waves [W], evenly spread over (0, pi)."""
    return jnp.pi * (jnp.arange(size // 2) + 0.5) / (size // 2)


def waves(positions: int, size: int) -> jax.Array:
    """The table [M, E], each number of the mean square that a word's has: 0.774 / E, as of a normal cut at two."""
    angles_MW = jnp.arange(positions)[:, None] * frequencies(size)[None, :]
    return jnp.concatenate([jnp.cos(angles_MW), jnp.sin(angles_MW)], axis=-1) * (2 * 0.774 / size) ** 0.5


def rotations(heads: int, size: int) -> jax.Array:
    """For each head [N, E, E] what takes the row of a position, from the left, to that d places on."""
    nth = jnp.arange(heads) // 2 + 1
    places_N = jnp.where(jnp.arange(heads) % 2 == 0, -nth, nth)
    angles_NW = places_N[:, None] * frequencies(size)[None, :]
    cos_NWW, sin_NWW = (jax.vmap(jnp.diag)(f(angles_NW)) for f in (jnp.cos, jnp.sin))
    return jnp.block([[cos_NWW, sin_NWW], [-sin_NWW, cos_NWW]])
