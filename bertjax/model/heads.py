"""What may stand on the encoder, in one table: to add a head, add its module and its line.

Shape letters: B rows, I items of a row (P prediction slots, K examples), H hidden size, E embedding size, V vocabulary,
C classes.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.model.layers import Affine, LayerNorm, linear, weights, zeros
from bertjax.model.ops import ACTIVATIONS, decode


class MlmHead(nn.Module):
    """Vocabulary logits, float32: dense -> activation -> LayerNorm -> decoder tied to the word table, and a bias."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array) -> jax.Array:
        c, k = self.config, self.compute
        dense = Affine(c, k, (c.hidden_size, c.embedding_size), ("hidden", "hidden_out"), name="dense")
        y_BIE = LayerNorm(c, k, name="norm")(ACTIVATIONS[c.activation](linear("BIH,HE->BIE", x_BIH, dense())))
        bias_V = self.param("bias", zeros("vocab"), (c.vocab_size,), jnp.float32)
        return decode(y_BIE, word_VE.astype(k.dtype), bias_V)


class Pooler(nn.Module):
    """dense -> tanh, of the [CLS] of each example."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array) -> jax.Array:
        del word_VE
        size, axes = self.config.hidden_size, ("hidden", "hidden_out")
        kernel_HG = self.param("kernel", weights(self.config, *axes), (size, size))
        bias_G = self.param("bias", zeros("hidden_out"), (size,))
        affine = (kernel_HG.astype(self.compute.dtype), bias_G.astype(self.compute.dtype))
        return jnp.tanh(linear("BIH,HG->BIG", x_BIH, affine))


class PairHead(nn.Module):
    """Two logits of each pooled example, float32, for NSP and SOP alike; no dropout."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array) -> jax.Array:
        del word_VE
        kernel_HC, bias_C = Affine(
            self.config, self.compute, (self.config.hidden_size, 2), ("hidden", "pair"), name="dense"
        )()
        logits_BIC = jnp.einsum("BIH,HC->BIC", x_BIH, kernel_HC, preferred_element_type=jnp.float32)
        return logits_BIC + bias_C.astype(jnp.float32)[None, None, :]


@dataclass(frozen=True)
class Head:
    """A line of the table: `module` reads the output `of`, at the positions in the batch's `at` ("" = as it is), and
    what it gives is the output `gives`."""

    module: type[nn.Module]
    of: str
    at: str
    gives: str


HEADS: dict[str, Head] = {
    "mlm_head": Head(MlmHead, of="hidden", at="mlm_positions", gives="mlm_logits"),
    "pooler": Head(Pooler, of="hidden", at="pair_positions", gives="pooled"),
    "pair_head": Head(PairHead, of="pooled", at="", gives="pair_logits"),
}
"""Name of a head, in `model.heads` and among the parameters -> what it is; one that reads another stands below it."""
