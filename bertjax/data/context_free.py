"""What can be predicted of a masked token without a look at any other: the level that only context gets below.

A chosen token is shown as [MASK], as a random piece or as it is. A predictor that sees its own slot alone knows how
often each piece is a label and, where it sees a piece, how likely that is the label itself. The best such predictor is
Bayes' rule; a model that copies what it sees comes near it, and has learnt nothing of the text around.

Shape letters: V vocabulary, k slots.
"""

from __future__ import annotations

import numpy as np

from bertjax.data.masking import Scheme


def label_probs(scheme: Scheme, counts_V: np.ndarray) -> np.ndarray:
    """Probability [V] of each piece to be a label, by its count in the training documents plus one.

    Special pieces are never chosen; `mask_smoothing` makes frequent ones rarer among the labels than in the text.
    """
    weights_V = np.where(scheme.special_V, 0.0, counts_V + 1.0)
    if scheme.rarity_V is not None:
        weights_V = weights_V / scheme.rarity_V
    return weights_V / weights_V.sum()


def losses(scheme: Scheme, probs_V: np.ndarray, shown_k: np.ndarray, labels_k: np.ndarray) -> np.ndarray:
    """-log p(label | what its slot shows), float64 [k], by the best predictor that sees nothing else.

    It is infinite for what cannot be.

    `probs_V` is `label_probs`. Whole words and n-grams that are drawn together show no more of a label in its own slot.
    """
    _, as_random, kept = scheme.shares
    each = as_random / len(scheme.ordinary_O)
    prior_k = probs_V[labels_k]
    # Of a piece that is shown: p(label) (each + kept [label = shown]), over its sum for all labels.
    joint_k = prior_k * (each + kept * (labels_k == shown_k))
    seen_k = each + kept * probs_V[shown_k]
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(np.where(shown_k == scheme.mask_id, prior_k, joint_k / seen_k))
