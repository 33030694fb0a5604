"""Pretraining losses as data: each term maps (outputs, batch) to per-item losses, shaped like its weights.

How items are summed is decided once, in `weighted_sums`: the denominator of a term is the sum of its weights over the
whole global batch, known before the forward pass. A loss is then a plain sum, so the gradients of microbatches, shards
and packed rows just add. (A mean of per-device means is wrong as soon as rows carry different numbers of masks.)

Shape letters: B rows, P prediction slots, K examples of a row, V vocabulary, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from bertjax.config.schema import ObjectiveConfig

Arrays = dict[str, jax.Array]


@dataclass(frozen=True)
class Term:
    """A loss: `items(outputs, batch)` gives its per-item values, `weights` names their weights in the batch."""

    weights: str
    items: Callable[[Arrays, Arrays], Arrays]


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
    classes_11C = jnp.arange(logits_BIC.shape[-1])[None, None, :]
    one_hot_BIC = (labels_BI[:, :, None] == classes_11C).astype(jnp.float32)
    return (jnp.exp(logits_BIC - log_sum_BI[:, :, None]) - one_hot_BIC) * g_BI[:, :, None], None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def pick(logits_BIC: jax.Array, labels_BI: jax.Array) -> jax.Array:
    """The logit of each label, [B, I]."""
    return jnp.take_along_axis(logits_BIC, labels_BI[:, :, None], axis=-1, mode="clip")[:, :, 0]


def classification(logits: str, labels: str) -> Callable[[Arrays, Arrays], Arrays]:
    """Cross-entropy and accuracy of the named logits against the named labels."""

    def items(outputs: Arrays, batch: Arrays) -> Arrays:
        logits_BIC, labels_BI = outputs[logits], batch[labels]
        # The label is the argmax where its logit is the largest; cheaper on CPU than an argmax, which keeps indices.
        correct_BI = pick(logits_BIC, labels_BI) >= jnp.max(logits_BIC, axis=-1)
        return {"loss": cross_entropy(logits_BIC, labels_BI), "accuracy": correct_BI.astype(jnp.float32)}

    return items


def given(name: str) -> Callable[[Arrays, Arrays], Arrays]:
    """Losses that are computed where the teacher is (`bertjax.tasks.distill`)."""
    return lambda outputs, batch: {"loss": outputs[f"{name}_items"]}


TERMS: dict[str, Term] = {
    "mlm": Term("mlm_weights", classification("mlm_logits", "mlm_labels")),
    "pair": Term("pair_weights", classification("pair_logits", "pair_labels")),
    "soft": Term("soft_weights", given("soft")),
    "logit_mse": Term("soft_weights", given("logit_mse")),
    "cosine": Term("token_weights", given("cosine")),
    "hidden_mse": Term("token_weights", given("hidden_mse")),
}
"""Term name, as in `ObjectiveConfig` -> how it is computed."""

TAUGHT = ("soft", "logit_mse", "cosine", "hidden_mse")
"""The terms that need a teacher."""


def held_out(config: ObjectiveConfig) -> ObjectiveConfig:
    """What is measured on held-out text: always the masked words, and nothing that needs a teacher."""
    return replace(config, mlm=config.mlm or 1.0, **dict.fromkeys(TAUGHT, 0.0))


def active_terms(config: ObjectiveConfig) -> dict[str, float]:
    """The terms with a coefficient above 0, and the coefficients."""
    return {name: getattr(config, name) for name in TERMS if getattr(config, name) > 0.0}


def total_weights(config: ObjectiveConfig, batch: Arrays) -> Arrays:
    """Sum of the weights of each active term over the batch."""
    return {name: jnp.sum(batch[TERMS[name].weights]) for name in active_terms(config)}


def weighted_sums(config: ObjectiveConfig, outputs: Arrays, batch: Arrays) -> Arrays:
    """Weighted sums of the items of each active term: `mlm_loss`, `mlm_accuracy`, ... (to be divided by the totals)."""
    sums = {}
    for name in active_terms(config):
        term = TERMS[name]
        for kind, items in term.items(outputs, batch).items():
            sums[f"{name}_{kind}"] = jnp.sum(batch[term.weights] * items)
    return sums


def normalise(sums: Arrays, totals: Arrays) -> Arrays:
    """Divide the sums of each term by its total weight; a term with no item is 0."""
    return {key: value / jnp.maximum(totals[key.rsplit("_", 1)[0]], 1.0) for key, value in sums.items()}


def total_loss(config: ObjectiveConfig, metrics: Arrays) -> jax.Array:
    """The scalar to minimise: coefficients times normalised losses."""
    return sum((c * metrics[f"{name}_loss"] for name, c in active_terms(config).items()), jnp.float32(0.0))
