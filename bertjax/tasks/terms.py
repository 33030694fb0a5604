"""What pretraining learns, as terms of a loss."""

from dataclasses import replace

from bertjax.config.schema import ObjectiveConfig
from bertjax.train.objective import Terms, classification

TERMS = {
    "mlm": classification("mlm_logits", "mlm_labels", "mlm_weights"),
    "pair": classification("pair_logits", "pair_labels", "pair_weights"),
}
"""Name, as in `ObjectiveConfig` -> the term."""


def terms(objective: ObjectiveConfig) -> Terms:
    """The terms with a coefficient above 0, without those that compare with a teacher (`bertjax.tasks.distill`)."""
    return {name: (getattr(objective, name), term) for name, term in TERMS.items() if getattr(objective, name) > 0.0}


def held_out_terms(objective: ObjectiveConfig) -> Terms:
    """What is measured on held-out text: always the masked words, and nothing that needs a teacher."""
    return terms(replace(objective, mlm=objective.mlm or 1.0))
