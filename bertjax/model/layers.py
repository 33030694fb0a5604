"""What layers are made of: initialisers, linear maps and LayerNorm, in the compute dtype over float32 parameters.

Shape letters: B rows, L positions of a row, P some positions of a row, H hidden size.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig


def weights(config: ModelConfig, *names: str) -> Any:
    """BERT's initialiser (truncated normal, not rescaled) for a parameter with these logical axes."""
    # Cut at two standard deviations, as in TensorFlow; the std of what is left is 0.88 of the number given.
    return nn.with_logical_partitioning(jax.nn.initializers.truncated_normal(config.initializer_range), names)


def zeros(*names: str) -> Any:
    """Zeros for a parameter with these logical axes."""
    return nn.with_logical_partitioning(jax.nn.initializers.zeros, names)


class Affine(nn.Module):
    """The parameters of a linear map in the compute dtype: a kernel, and a bias for its last `bias_ndim` axes."""

    config: ModelConfig
    compute: ComputeConfig
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    bias_ndim: int = 1

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", weights(self.config, *self.axes), self.shape)
        bias = self.param("bias", zeros(*self.axes[-self.bias_ndim :]), self.shape[-self.bias_ndim :])
        return kernel.astype(self.compute.dtype), bias.astype(self.compute.dtype)


def linear(equation: str, x: jax.Array, affine: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`einsum(equation, x, kernel) + bias`; the equation says which axes are contracted and made."""
    kernel, bias = affine
    y = jnp.einsum(equation, x.astype(kernel.dtype), kernel)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics; the epsilon of 1e-12 would vanish in half precision."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones: Any = nn.with_logical_partitioning(jax.nn.initializers.ones, ("hidden_out",))
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros("hidden_out"), (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.config.layer_norm_eps)
        broadcast = (1,) * (x.ndim - 1) + scale.shape
        return (y * scale.reshape(broadcast) + bias.reshape(broadcast)).astype(self.compute.dtype)


def gather(x_BLH: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """The states at `positions_BP` of each row: [B, P, H]."""
    return jnp.take_along_axis(x_BLH, positions_BP[:, :, None], axis=1, mode="clip")
