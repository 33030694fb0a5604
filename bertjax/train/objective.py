"""Losses as data: a term maps (outputs, batch) to per-item losses, shaped like its weights.

How items are summed is decided once, in `weighted_sums`: the denominator of a term is the sum of its weights over the
whole global batch, known before the forward pass. A loss is then a plain sum, so the gradients of microbatches, shards
and packed rows just add. (A mean of per-device means is wrong as soon as rows carry different numbers of masks.)

Shape letters: B rows, I items of a row (prediction slots, examples, tokens), C classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Arrays = dict[str, jax.Array]
Values = dict[str, Arrays]
"""By term and by kind: {"mlm": {"loss": .., "accuracy": ..}}."""


@dataclass(frozen=True)
class Term:
    """A loss: `weights(batch)` weighs its items, and `items(outputs, batch)` gives them by kind, among them "loss"."""

    weights: Callable[[Arrays], jax.Array]
    items: Callable[[Arrays, Arrays], Arrays]


Terms = Mapping[str, tuple[float, Term]]
"""What is minimised: name -> coefficient and term."""


@jax.custom_vjp
def cross_entropy(logits_BIC: jax.Array, labels_BI: jax.Array) -> jax.Array:
    """-log softmax(logits)[label] per item, [B, I]; logits in float32.

    Its gradient, softmax - one_hot, is written out so that it is one pass over the logits: autodiff keeps a second
    array of their size and scatters into a third.
    """
    return _cross_entropy_forward(logits_BIC, labels_BI)[0]


def _cross_entropy_forward(logits_BIC: jax.Array, labels_BI: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    log_sum_BI = jax.nn.logsumexp(logits_BIC, axis=-1)
    return log_sum_BI - pick(logits_BIC, labels_BI), (logits_BIC, labels_BI, log_sum_BI)


def _cross_entropy_backward(kept: tuple[jax.Array, ...], g_BI: jax.Array) -> tuple[jax.Array, None]:
    logits_BIC, labels_BI, log_sum_BI = kept
    one_hot_BIC = _is_label(logits_BIC, labels_BI).astype(jnp.float32)
    return (jnp.exp(logits_BIC - log_sum_BI[:, :, None]) - one_hot_BIC) * g_BI[:, :, None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def pick(logits_BIC: jax.Array, labels_BI: jax.Array) -> jax.Array:
    """The logit of each label, [B, I]; 0.0 for a label that is no class."""
    # A sum of one number: XLA dies of a gather from classes that are split over a mesh axis where another is manual.
    return jnp.sum(jnp.where(_is_label(logits_BIC, labels_BI), logits_BIC, 0.0), axis=-1)


def _is_label(logits_BIC: jax.Array, labels_BI: jax.Array) -> jax.Array:
    return labels_BI[:, :, None] == jnp.arange(logits_BIC.shape[-1])[None, None, :]


def classification(logits: str, labels: str, weights: str) -> Term:
    """Cross-entropy and accuracy of the named logits against the named labels, weighed by the named weights."""

    def items(outputs: Arrays, batch: Arrays) -> Arrays:
        logits_BIC, labels_BI = outputs[logits], batch[labels]
        # The label is the argmax where its logit is the largest; cheaper on CPU than an argmax, which keeps indices.
        correct_BI = pick(logits_BIC, labels_BI) >= jnp.max(logits_BIC, axis=-1)
        return {"loss": cross_entropy(logits_BIC, labels_BI), "accuracy": correct_BI.astype(jnp.float32)}

    return Term(lambda batch: batch[weights], items)


def log_partition(logits: str, weights: str) -> Term:
    """The square of logsumexp(logits), which a softmax does not feel: it keeps logits from drifting away together.

    Chowdhery et al. (arXiv 2204.02311), section 5.
    """

    def items(outputs: Arrays, batch: Arrays) -> Arrays:
        return {"loss": jnp.square(jax.nn.logsumexp(outputs[logits], axis=-1))}

    return Term(lambda batch: batch[weights], items)


def total_weights(terms: Terms, batch: Arrays) -> Arrays:
    """Sum of the weights of each term over the batch."""
    return {name: jnp.sum(term.weights(batch)) for name, (_, term) in terms.items()}


def weighted_sums(terms: Terms, outputs: Arrays, batch: Arrays) -> Values:
    """Weighted sums of the items of each term, by kind (to be divided by the totals)."""
    sums = {}
    for name, (_, term) in terms.items():
        weights = term.weights(batch)
        sums[name] = {kind: jnp.sum(weights * items) for kind, items in term.items(outputs, batch).items()}
    return sums


def normalise(sums: Values, totals: Arrays) -> Values:
    """Divide the sums of each term by its total weight; a term with no item is 0."""
    return {
        name: {kind: value / jnp.maximum(totals[name], 1.0) for kind, value in kinds.items()}
        for name, kinds in sums.items()
    }


def total_loss(terms: Terms, values: Values) -> jax.Array:
    """The scalar to minimise: coefficients times normalised losses."""
    return sum((weight * values[name]["loss"] for name, (weight, _) in terms.items()), jnp.float32(0.0))
