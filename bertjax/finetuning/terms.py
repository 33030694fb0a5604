"""What fine-tuning learns, as terms of a loss; a batch is that of `bertjax.batch.labelled`.

Shape letters: B rows, L positions of a row, K examples of a row, C classes.
"""

import jax
import jax.numpy as jnp

from bertjax.train.objective import Arrays, Term, classification, cross_entropy

NONE = -1e30
"""A logit of what cannot be chosen. Finite, so that an example that is not there has no loss that is not a number."""


def in_example(batch: Arrays) -> jax.Array:
    """Whether each position is one of each example of its row, [B, K, L]."""
    examples = batch["pair_positions"].shape[1]
    return batch["segments"][:, None, :] == 1 + jnp.arange(examples)[None, :, None]


def span_logits(outputs: Arrays, batch: Arrays) -> tuple[jax.Array, jax.Array]:
    """Of each example [B, K, L], for the first and the last token of its answer, over the positions of the row; `NONE`
    outside the example.
    """
    mine_BKL, logits_BL2 = in_example(batch), outputs["span_logits"]
    first, last = (jnp.where(mine_BKL, logits_BL2[:, None, :, i], NONE) for i in range(2))
    return first, last


def choice_logits(outputs: Arrays, batch: Arrays) -> jax.Array:
    """Of the examples of each row, one against the others [B, 1, K]; `NONE` for those that are not there."""
    there_BK = jnp.any(in_example(batch), axis=-1)
    return jnp.where(there_BK, outputs["class_logits"][:, :, 0], NONE)[:, None, :]


def _weights(batch: Arrays) -> jax.Array:
    return batch["label_weights"]


def _regress(outputs: Arrays, batch: Arrays) -> Arrays:
    # What has no label may be no number, and must not be one times zero.
    labels_BK = jnp.where(batch["label_weights"] > 0.0, batch["labels"], 0.0)
    return {"loss": jnp.square(outputs["class_logits"][:, :, 0] - labels_BK)}


def _span(outputs: Arrays, batch: Arrays) -> Arrays:
    """The mean of the two cross-entropies; right are both or none."""
    losses, right = [], []
    for i, logits_BKL in enumerate(span_logits(outputs, batch)):
        losses.append(cross_entropy(logits_BKL, batch["labels"][:, :, i]))
        right.append(jnp.argmax(logits_BKL, axis=-1) == batch["labels"][:, :, i])
    return {"loss": (losses[0] + losses[1]) / 2.0, "accuracy": (right[0] & right[1]).astype(jnp.float32)}


def _choice(outputs: Arrays, batch: Arrays) -> Arrays:
    logits_B1K = choice_logits(outputs, batch)
    right_B1 = jnp.argmax(logits_B1K, axis=-1) == batch["labels"]
    return {"loss": cross_entropy(logits_B1K, batch["labels"]), "accuracy": right_B1.astype(jnp.float32)}


TERMS: dict[str, Term] = {
    "classify": classification("class_logits", "labels", "label_weights"),
    "regress": Term(_weights, _regress),
    "tag": classification("tag_logits", "labels", "label_weights"),
    "span": Term(_weights, _span),
    "choice": Term(_weights, _choice),
}
"""`task.kind` -> the term. The loss of regress is the squared error."""
