"""What pretraining learns, as terms of a loss.

Shape letters: B rows, P prediction slots.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from bertjax.config.schema import ObjectiveConfig
from bertjax.train.objective import Arrays, Term, Terms, classification, log_partition

TERMS = {
    "mlm": classification("mlm_logits", "mlm_labels", "mlm_weights"),
    "pair": classification("pair_logits", "pair_labels", "pair_weights"),
    "z": log_partition("mlm_logits", "mlm_weights"),
}
"""Name, as in `ObjectiveConfig` -> the term."""


def shows(term: Term, token: int) -> Term:
    """The term on those of its slots that show this token: [MASK] never shows what is asked for."""

    def weights(batch: Arrays) -> jax.Array:
        shown_BP = jnp.take_along_axis(batch["tokens"], batch["mlm_positions"], axis=1, mode="clip")
        return term.weights(batch) * (shown_BP == token)

    return Term(weights, term.items)


def terms(objective: ObjectiveConfig) -> Terms:
    """The terms with a coefficient above 0, without those that compare with a teacher (`bertjax.tasks.distill`)."""
    return {name: (getattr(objective, name), term) for name, term in TERMS.items() if getattr(objective, name) > 0.0}


def held_out_terms(objective: ObjectiveConfig) -> Terms:
    """What is measured on held-out text: always the masked words, and nothing but losses of the text itself."""
    return terms(replace(objective, mlm=objective.mlm or 1.0, z=0.0))
