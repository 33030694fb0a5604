"""`bertjax.data.context_free`: the best that can be done without context, by enumeration and by masking examples."""

from types import SimpleNamespace

import numpy as np
import pytest

from bertjax.config.schema import DataConfig
from bertjax.data import context_free
from bertjax.data.masking import mask, scheme
from bertjax.data.tokenizer import Special

# [PAD] [UNK] [CLS] [SEP] [MASK] and five pieces, of which two do not begin a word.
TOKENIZER = SimpleNamespace(
    vocab_size=10,
    special=Special(pad=0, unk=1, cls=2, sep=3, mask=4),
    starts_word=np.array([True] * 8 + [False] * 2),
)
COUNTS = np.array([0, 3, 9, 9, 0, 50, 20, 10, 5, 1])
SCHEMES = {
    "token": {},
    "whole_word": {"masking": "whole_word"},
    "ngram": {"masking": "ngram"},
    "mask_together": {"masking": "ngram", "mask_together": True},
    "smoothed": {"mask_smoothing": 0.7},
    "all_mask": {"mask_shares": (1.0, 0.0, 0.0)},
    "none_random": {"mask_shares": (0.7, 0.0, 0.3)},
    "none_kept": {"mask_shares": (0.8, 0.2, 0.0)},
}


def scheme_of(kind):
    return scheme(DataConfig(**SCHEMES[kind]), TOKENIZER, COUNTS)


def oracle(kind):
    """p(label | shown), float64 [label, shown], from the joint table of all labels and all that can be shown."""
    fields = SCHEMES[kind]
    as_mask, as_random, kept = fields.get("mask_shares", (0.8, 0.1, 0.1))
    prior = {v: (COUNTS[v] + 1) / max(COUNTS[v], 1) ** fields.get("mask_smoothing", 0.0) for v in range(5, 10)}
    joint = np.zeros((10, 10))
    for label, weight in prior.items():
        joint[label, 4] += weight * as_mask
        for piece in range(5, 10):
            joint[label, piece] += weight * as_random / 5
        joint[label, label] += weight * kept
    with np.errstate(invalid="ignore"):
        return joint / joint.sum(axis=0, keepdims=True), joint / joint.sum()


@pytest.mark.parametrize("kind", SCHEMES)
def test_losses_equal_an_enumeration(kind):
    posterior, joint = oracle(kind)
    found = scheme_of(kind)
    labels, shown = np.nonzero(joint)
    losses = context_free.losses(found, context_free.label_probs(found, COUNTS), shown, labels)
    np.testing.assert_allclose(losses, -np.log(posterior[labels, shown]), atol=1e-6)


@pytest.mark.parametrize("kind", SCHEMES)
def test_masked_examples_are_predicted_as_well_as_they_can_be(kind):
    """On text without any context, drawn piece by piece: the loss is the entropy of the labels given what is shown."""
    rng = np.random.default_rng(0)
    found = scheme_of(kind)
    text = np.array([0.0] * 5 + [0.5, 0.25, 0.15, 0.07, 0.03])
    counts = 1e6 * text
    found = scheme(DataConfig(**SCHEMES[kind]), TOKENIZER, counts)
    table = np.zeros((10, 10))
    for _ in range(3000):
        tokens = np.concatenate(([2], rng.choice(10, 98, p=text), [3])).astype(np.int32)
        masked = mask(tokens, rng, found, 10)
        np.add.at(table, (masked.labels_k, masked.tokens_n[masked.positions_k]), 1)
    labels, shown = np.nonzero(table)
    weights = table[labels, shown] / table.sum()
    losses = context_free.losses(found, context_free.label_probs(found, counts), shown, labels)
    entropy = -np.log((table / np.maximum(table.sum(axis=0, keepdims=True), 1))[labels, shown])
    # Which words are chosen depends a little on their lengths, which the predictor does not know.
    np.testing.assert_allclose((weights * losses).sum(), (weights * entropy).sum(), atol=0.01)
    # A predictor that knows the frequencies alone does worse wherever a slot may show its own label.
    frequency = -(weights * np.log(context_free.label_probs(found, counts)[labels])).sum()
    if found.shares[2] > 0:
        assert frequency > (weights * losses).sum() + 0.05
    else:
        np.testing.assert_allclose(frequency, (weights * losses).sum(), atol=1e-9)
