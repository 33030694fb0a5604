"""What may stand on the encoder, in one table: to add a head, add its module and its line.

Shape letters: B rows, L positions of a row, I items of a row (P prediction slots, K examples, or L), H hidden size, E
embedding size, V vocabulary, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.model.layers import BIASED, Affine, Norm, gather, linear, logits, means, weights, zeros
from bertjax.model.ops import ACTIVATIONS, decode, dropout

Batch = dict[str, jax.Array]


class MlmHead(nn.Module):
    """Vocabulary logits, float32: dense -> activation -> norm, unless the model has no such transform, -> decoder, by
    the word table or a table of its own -> bias, if the model has one there.
    """

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        del key
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
    """dense -> activation -> norm, if it has one, of what stands for each example."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array | None = None, key: jax.Array | None = None) -> jax.Array:
        del word_VE, key
        c, k = self.config, self.compute
        size, axes = c.hidden_size, ("hidden", "hidden_out")
        kernel_HG = self.param("kernel", weights(c, *axes), (size, size)).astype(k.dtype)
        bias_G = None
        if c.biases in BIASED["heads"]:
            bias_G = self.param("bias", zeros("hidden_out"), (size,)).astype(k.dtype)
        y_BIG = ACTIVATIONS[c.pooler_activation](linear("BIH,HG->BIG", x_BIH, (kernel_HG, bias_G)))
        return Norm(c, k, name="norm")(y_BIG) if c.pooler_norm else y_BIG


class PairHead(nn.Module):
    """Two logits of each pooled example, float32, for NSP and SOP alike; no dropout."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        del word_VE, key
        shape, axes = (self.config.hidden_size, 2), ("hidden", "pair")
        return logits(x_BIH, Affine(self.config, self.compute, shape, axes, where="heads", name="dense")())


class Classifier(nn.Module):
    """Logits of each pooled example, float32: dropout -> dense, to the labels, or to one number if there are fewer."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        del word_VE
        return _classes(self.config, self.compute, x_BIH, max(len(self.config.labels), 1), key)


class Tagger(nn.Module):
    """Logits of each token, float32: a transform as the pooler, if the model has one -> dropout -> dense, to the
    labels.
    """

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        del word_VE
        c, k = self.config, self.compute
        y_BIH = Pooler(c, k, name="transform")(x_BIH) if c.token_transform else x_BIH
        return _classes(c, k, y_BIH, max(len(c.labels), 1), key)


class SpanHead(nn.Module):
    """Logits of each token, float32, for being the first of an answer and for being its last; else as the `Tagger`."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BIH: jax.Array, word_VE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        del word_VE
        c, k = self.config, self.compute
        y_BIH = Pooler(c, k, name="transform")(x_BIH) if c.token_transform else x_BIH
        return _classes(c, k, y_BIH, 2, key)


def _classes(
    config: ModelConfig, compute: ComputeConfig, x_BIH: jax.Array, classes: int, key: jax.Array | None
) -> jax.Array:
    shape, axes = (config.hidden_size, classes), ("hidden", "labels")
    affine = Affine(config, compute, shape, axes, where="logits", name="dense")()
    return logits(dropout(x_BIH, config.classifier_dropout, key), affine)


Read = Callable[[ModelConfig, jax.Array, Batch], jax.Array]
"""(model, states [B, L, H] or [B, K, H], batch) -> what a head is given of them, [B, I, H]."""


def _as_it_is(config: ModelConfig, x: jax.Array, batch: Batch) -> jax.Array:
    del config, batch
    return x


def _masked(config: ModelConfig, x_BLH: jax.Array, batch: Batch) -> jax.Array:
    del config
    return gather(x_BLH, batch["mlm_positions"])


def _examples(config: ModelConfig, x_BLH: jax.Array, batch: Batch) -> jax.Array:
    at_BK = batch["pair_positions"]
    return means(x_BLH, batch["segments"], at_BK.shape[1]) if config.pooling == "mean" else gather(x_BLH, at_BK)


@dataclass(frozen=True)
class Head:
    """A line of the table: `module` is given what `read` takes of the output `of`, and what it makes is the output
    `gives`."""

    module: type[nn.Module]
    of: str
    read: Read
    gives: str


HEADS: dict[str, Head] = {
    "mlm_head": Head(MlmHead, of="hidden", read=_masked, gives="mlm_logits"),
    "pooler": Head(Pooler, of="hidden", read=_examples, gives="pooled"),
    "pair_head": Head(PairHead, of="pooled", read=_as_it_is, gives="pair_logits"),
    "classifier": Head(Classifier, of="pooled", read=_as_it_is, gives="class_logits"),
    "tagger": Head(Tagger, of="hidden", read=_as_it_is, gives="tag_logits"),
    "span_head": Head(SpanHead, of="hidden", read=_as_it_is, gives="span_logits"),
}
"""Name of a head, in `model.heads` and among the parameters -> what it is; one that reads another stands below it."""
