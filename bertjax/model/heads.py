"""What may stand on the encoder, in one table: to add a head, add its module and its line.

Shape letters: B rows, I items of a row (P prediction slots, K examples), H hidden size, E embedding size, V vocabulary,
C classes.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.model.layers import BIASED, Affine, Norm, linear, weights, zeros
from bertjax.model.ops import ACTIVATIONS, decode


class MlmHead(nn.Module):
    """Vocabulary logits, float32: dense -> activation -> norm, unless the model has no such transform, -> decoder, by
    the word table or a table of its own -> bias, if the model has one there.
    """

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array) -> jax.Array:
        c, k = self.config, self.compute
        y_BIE = x_BIH
        if c.mlm_transform:
            shape, axes = (c.hidden_size, c.embedding_size), ("hidden", "hidden_out")
            dense = Affine(c, k, shape, axes, where="heads", name="dense")
            y_BIE = Norm(c, k, name="norm")(ACTIVATIONS[c.activation](linear("BIH,HE->BIE", x_BIH, dense())))
        if not c.tie_words:
            word_VE = self.param("word", weights(c, "vocab", "hidden"), (c.vocab_size, c.embedding_size))
        bias_V = jnp.zeros(c.vocab_size)
        if c.biases != "none":
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
        kernel_HG = self.param("kernel", weights(self.config, *axes), (size, size)).astype(self.compute.dtype)
        bias_G = None
        if self.config.biases in BIASED["heads"]:
            bias_G = self.param("bias", zeros("hidden_out"), (size,)).astype(self.compute.dtype)
        return jnp.tanh(linear("BIH,HG->BIG", x_BIH, (kernel_HG, bias_G)))


class PairHead(nn.Module):
    """Two logits of each pooled example, float32, for NSP and SOP alike; no dropout."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array) -> jax.Array:
        del word_VE
        shape, axes = (self.config.hidden_size, 2), ("hidden", "pair")
        kernel_HC, bias_C = Affine(self.config, self.compute, shape, axes, where="heads", name="dense")()
        logits_BIC = jnp.einsum("BIH,HC->BIC", x_BIH, kernel_HC, preferred_element_type=jnp.float32)
        return logits_BIC if bias_C is None else logits_BIC + bias_C.astype(jnp.float32)[None, None, :]


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
