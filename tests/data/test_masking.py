"""The masking law: how many tokens, which ones, and what takes their place."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data.masking import mask_tokens

VOCAB = 50
SPECIALS = {"pad": 0, "unk": 1, "cls": 7, "sep": 20, "mask": 49}  # scattered, as in WordPiece vocabularies
SPECIAL = SimpleNamespace(**SPECIALS)
ORDINARY = sorted(set(range(VOCAB)) - set(SPECIALS.values()))


def mask(tokens_n, rng, *, mask_rate=0.15, max_predictions=20):
    return mask_tokens(
        tokens_n, rng, mask_rate=mask_rate, max_predictions=max_predictions, special=SPECIAL, vocab_size=VOCAB
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=80),
    st.floats(0.0, 0.99),
    st.integers(1, 30),
    st.integers(0, 2**32),
)
def test_positions_labels_and_budget(tokens, mask_rate, max_predictions, seed):
    tokens_n = np.array(tokens, np.int32)
    before_n = tokens_n.copy()
    masked = mask(tokens_n, np.random.default_rng(seed), mask_rate=mask_rate, max_predictions=max_predictions)
    candidates = sum(token not in SPECIALS.values() for token in tokens)
    assert len(masked.positions_k) == min(max_predictions, max(1, round(len(tokens) * mask_rate)), candidates)
    assert (np.diff(masked.positions_k) > 0).all()
    np.testing.assert_array_equal(masked.labels_k, before_n[masked.positions_k])
    assert not set(masked.labels_k.tolist()) & set(SPECIALS.values())
    np.testing.assert_array_equal(tokens_n, before_n)  # the input is a view of the data set
    others_n = np.ones(len(tokens), bool)
    others_n[masked.positions_k] = False
    np.testing.assert_array_equal(masked.tokens_n[others_n], before_n[others_n])
    assert masked.tokens_n.dtype == masked.labels_k.dtype == np.int32


def test_80_10_10_and_uniform_replacements():
    rng = np.random.default_rng(0)
    own = ORDINARY[3]
    tokens_n = np.full(40_000, own, np.int32)
    masked = mask(tokens_n, rng, mask_rate=0.9, max_predictions=40_000)
    replaced_k = masked.tokens_n[masked.positions_k]
    counts_V = np.bincount(replaced_k, minlength=VOCAB)
    n = len(replaced_k)
    assert n == 36_000
    random_each = 0.1 * n / len(ORDINARY)  # 80; four standard deviations are 36
    assert abs(counts_V[SPECIAL.mask] / n - 0.8) < 0.01
    assert abs(counts_V[own] / n - 0.1 - 0.1 / len(ORDINARY)) < 0.007
    for token in set(range(VOCAB)) - {SPECIAL.mask, own}:
        assert abs(counts_V[token] - random_each) < 40 if token in ORDINARY else counts_V[token] == 0


def test_every_candidate_is_chosen_equally_often():
    rng = np.random.default_rng(0)
    tokens_n = np.array([SPECIAL.cls, *ORDINARY[:9], SPECIAL.sep], np.int32)
    counts_n = np.zeros(11)
    for _ in range(6_000):
        counts_n[mask(tokens_n, rng, mask_rate=0.27).positions_k] += 1
    assert counts_n[0] == counts_n[10] == 0
    assert (abs(counts_n[1:10] / 6_000 - 3 / 9) < 0.025).all()


def test_same_generator_same_masks():
    tokens_n = np.array(ORDINARY, np.int32)
    one, two = (mask(tokens_n, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.tokens_n, two.tokens_n)
    np.testing.assert_array_equal(one.positions_k, two.positions_k)
