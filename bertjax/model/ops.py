"""Operations of the model whose form is chosen for speed: dropout, activations, the tied decoder.

Shape letters: B rows, P prediction slots, E embedding size, V vocabulary; F is any last axis.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bertjax.kernels import counter
from bertjax.parallel.sharding import row_numbers


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero each value of `x` [B, .., F] with probability `rate`, rounded to 1/65536, and scale the rest to keep the
    mean; `key` None = identity.

    No key is stored anywhere: the step folds them from (seed, step), so a resumed run drops the same values, and a
    mesh of another shape does too: what is dropped is a function of the row in the whole batch and the place in it.
    """
    kept = counter.quantised(rate)
    if key is None or kept == 2**16:
        return x
    return _dropped(kept, x, counter.row_keys(counter.seed(key), row_numbers(x.shape[0])))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dropped(kept: int, x: jax.Array, keys_B2: jax.Array) -> jax.Array:
    """The backward pass finds the mask again: hashing is cheaper than a mask of the size of `x` written and read."""
    is_kept = counter.value_mask(keys_B2, x.shape, kept)
    return jnp.where(is_kept, x * jnp.asarray(2**16 / kept, x.dtype), jnp.zeros_like(x))


def _dropped_backward(kept: int, keys_B2: jax.Array, g: jax.Array) -> tuple[jax.Array, np.ndarray]:
    return _dropped(kept, g, keys_B2), np.zeros(keys_B2.shape, jax.dtypes.float0)


_dropped.defvjp(lambda kept, x, keys_B2: (_dropped(kept, x, keys_B2), keys_B2), _dropped_backward)


def _from_input(activation: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The same function, whose backward pass needs the input alone.

    Autodiff keeps every intermediate value of a GELU, six arrays of [B, L, F] a layer: on CPU, writing and reading them
    was a tenth of a BERT-base step.
    """
    function = jax.custom_vjp(activation)
    function.defvjp(lambda x: (activation(x), x), lambda x, g: jax.vjp(activation, x)[1](g))
    return function


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": _from_input(lambda x: nn.gelu(x, approximate=True)),
    "gelu_erf": _from_input(lambda x: nn.gelu(x, approximate=False)),
    "relu": nn.relu,
    "silu": _from_input(nn.silu),
    "tanh": jnp.tanh,
}
"""`model.activation`, `model.pooler_activation` -> the function."""


@jax.custom_vjp
def decode(y_BPE: jax.Array, word_VE: jax.Array, bias_V: jax.Array) -> jax.Array:
    """Float32 logits [B, P, V] of the tied decoder.

    Its backward pass is written out for the largest arrays of a small model: the gradient of the table is formed as
    [E, V], so that `y` is transposed and not the gradient of the logits, and that of the bias is a matrix product too.
    """
    return jnp.einsum("BPE,VE->BPV", y_BPE, word_VE, preferred_element_type=jnp.float32) + bias_V[None, None, :]


def _decode_backward(kept: tuple[jax.Array, jax.Array], g_BPV: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    y_BPE, word_VE = kept
    g_BPV = g_BPV.astype(word_VE.dtype)
    # A column of ones makes the bias a row of the table.
    ones_BPE = jnp.concatenate([y_BPE, jnp.ones((*y_BPE.shape[:2], 1), y_BPE.dtype)], axis=-1)
    table_EV = jnp.einsum("BPE,BPV->EV", ones_BPE, g_BPV, preferred_element_type=jnp.float32)
    return jnp.einsum("BPV,VE->BPE", g_BPV, word_VE), table_EV[:-1].T.astype(word_VE.dtype), table_EV[-1]


decode.defvjp(lambda y_BPE, word_VE, bias_V: (decode(y_BPE, word_VE, bias_V), (y_BPE, word_VE)), _decode_backward)
