"""The masking law: how many tokens, which ones together, and what takes their place.

Statistics are compared with the exact law within 4 standard errors, at fixed seeds.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.schema import DataConfig
from bertjax.data import masking
from bertjax.data.masking import FIRST, FREE, INSIDE, budget, budgets, mask

VOCAB = 50
SPECIAL = SimpleNamespace(pad=0, unk=1, cls=7, sep=20, mask=49)  # scattered, as in WordPiece vocabularies
SPECIALS = set(vars(SPECIAL).values())
ORDINARY = sorted(set(range(VOCAB)) - SPECIALS)
STARTS = [token for token in ORDINARY if token % 3]  # a multiple of three continues a word
INNER = [token for token in ORDINARY if token % 3 == 0]
A, B, C = STARTS[3], STARTS[4], INNER[3]
P = np.array([6, 3, 2]) / 11  # of n-grams of one, two and three words


def make(counts=None, **data):
    starts_V = np.isin(np.arange(VOCAB), STARTS)
    tokenizer = SimpleNamespace(vocab_size=VOCAB, special=SPECIAL, starts_word=starts_V)
    return masking.scheme(DataConfig(**data), tokenizer, np.ones(VOCAB, int) if counts is None else counts)


def array(tokens):
    return np.array(tokens, np.int32)


def words_of(tokens):
    """Plain Python: the positions of each word."""
    words, before = [], SPECIAL.cls
    for position, token in enumerate(tokens):
        if token not in SPECIALS:
            if token in STARTS or before in SPECIALS:
                words.append([])
            words[-1].append(position)
        before = token
    return words


def spans_of(tokens_n, rng, scheme, count):
    """The words of each chosen span, as lists of unit numbers, ascending, and the tokens in each unit."""
    bounds, word_u = masking.units(tokens_n, scheme)
    choose = masking.choose_words if scheme.masking == "whole_word" else masking.choose_ngrams
    marks_u = choose(bounds, word_u, rng, scheme, count)
    assert ((marks_u > 0) == word_u).all()
    spans = []
    for unit in np.flatnonzero(marks_u > FREE).tolist():
        if marks_u[unit] == FIRST:
            spans.append([])
        assert marks_u[unit] == FIRST or marks_u[unit - 1] in (FIRST, INSIDE)
        spans[-1].append(unit)
    return spans, np.diff(bounds)


def near(share, expected, n, errors=4.0):
    """Whether a share of n independent draws is within so many standard errors of what is expected."""
    return abs(share - expected) <= errors * np.sqrt(expected * (1 - expected) / n)


def uniform(counts, errors=4.0):
    """Pearson's chi-squared against equal counts, within so many of its standard deviations."""
    chi2, freedom = ((counts - counts.mean()) ** 2).sum() / counts.mean(), counts.size - 1
    return chi2 <= freedom + errors * np.sqrt(2 * freedom)


# How many -----------------------------------------------------------------------------------------------------------


def test_budget_is_berts():
    scheme = make(mask_rate=0.15)
    assert [budget(scheme, length) for length in (1, 5, 10, 30, 50, 128, 512)] == [1, 1, 2, 4, 8, 19, 77]
    assert budget(make(mask_rate=0.0), 512) == 1
    assert budget(make(mask_rate=0.5, mask_count=20), 512) == 20


def test_the_rate_goes_evenly_from_the_first_to_the_last():
    falling, rising = make(mask_rate=0.3, final_mask_rate=0.15), make(mask_rate=0.05, final_mask_rate=0.45)
    assert [budget(falling, 200, done) for done in (0.0, 0.25, 0.5, 1.0)] == [60, 52, 45, 30]
    assert budgets(rising, [100, 40], 90, 0.5) == [25, 10]
    assert budgets(make(mask_rate=0.3), [100, 40], 90, 0.5) == [30, 12]


@given(st.lists(st.integers(3, 512), min_size=1, max_size=12), st.integers(1, 90), st.sampled_from([0, 7]))
def test_budgets_share_the_slots(lengths, slots, mask_count):
    scheme = make(mask_count=mask_count)
    wishes = np.array([budget(scheme, length) for length in lengths])
    shared = np.array(budgets(scheme, lengths, slots))
    assert shared.sum() == min(slots, wishes.sum())
    assert (shared <= wishes).all() and (shared >= 0).all()
    if wishes.sum() <= slots:
        assert (shared == wishes).all()
    elif len(lengths) < slots:
        share = (slots - len(lengths)) / (wishes.sum() - len(lengths))
        assert (shared >= 1).all() and (abs(shared - 1 - (wishes - 1) * share) < 1).all()
    else:
        assert shared.max() == 1


# Which ones ---------------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=80),
    st.sampled_from(["token", "whole_word", "ngram"]),
    st.booleans(),
    st.integers(1, 5),
    st.integers(0, 90),
    st.integers(0, 2**32),
)
def test_positions_labels_and_budget(tokens, kind, together, max_ngram, count, seed):
    scheme = make(masking=kind, mask_together=together, max_ngram=max_ngram)
    tokens_n, before_n = array(tokens), array(tokens)
    masked = mask(tokens_n, np.random.default_rng(seed), scheme, count)
    chosen = set(masked.positions_k.tolist())
    assert len(chosen) <= count and (np.diff(masked.positions_k) > 0).all()
    np.testing.assert_array_equal(masked.labels_k, before_n[masked.positions_k])
    assert not set(masked.labels_k.tolist()) & SPECIALS
    assert not set(masked.tokens_n[masked.positions_k].tolist()) & (SPECIALS - {SPECIAL.mask})
    np.testing.assert_array_equal(tokens_n, before_n)  # the input is a view of the data set
    others = [position for position in range(len(tokens)) if position not in chosen]
    np.testing.assert_array_equal(masked.tokens_n[others], before_n[others])
    assert masked.tokens_n.dtype == masked.labels_k.dtype == np.int32 and masked.positions_k.dtype == np.int64
    units = words_of(tokens) if kind != "token" else [[p] for p, token in enumerate(tokens) if token not in SPECIALS]
    for unit in units:
        assert len(chosen & set(unit)) in (0, len(unit))  # words are whole
        assert chosen & set(unit) or len(unit) > count - len(chosen)  # nothing that is left would fit


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=80),
    st.integers(1, 5),
    st.integers(0, 90),
    st.integers(0, 2**32),
)
def test_ngrams_are_consecutive_words_between_specials(tokens, max_ngram, count, seed):
    scheme = make(masking="ngram", max_ngram=max_ngram)
    spans, sizes_u = spans_of(array(tokens), np.random.default_rng(seed), scheme, count)
    first_u = np.cumsum(sizes_u) - sizes_u
    assert all(len(span) <= max_ngram and np.ptp(span) == len(span) - 1 for span in spans)
    assert all(tokens[first_u[unit]] not in SPECIALS for span in spans for unit in span)
    masked = mask(array(tokens), np.random.default_rng(seed), scheme, count)
    assert sum(sizes_u[unit] for span in spans for unit in span) == len(masked.positions_k) <= count


def test_words_begin_where_the_tokenizer_says_and_after_specials():
    tokens = [SPECIAL.cls, C, C, A, C, A, SPECIAL.unk, C, A, SPECIAL.sep]
    bounds, word_u = masking.units(array(tokens), make(masking="whole_word"))
    assert bounds.tolist() == [0, 1, 3, 5, 6, 7, 8, 9, 10]
    assert word_u.tolist() == [False, True, True, True, False, True, True, False]
    bounds, word_u = masking.units(array([C, A]), make(masking="whole_word"))
    assert bounds.tolist() == [0, 1, 2] and word_u.all()


def test_a_word_that_does_not_fit_is_skipped_for_smaller_ones():
    tokens_n = array([SPECIAL.cls, *[A, C, C] * 3, A, SPECIAL.sep])
    for seed in range(50):
        for kind in ("whole_word", "ngram"):
            for count, k in ((1, 1), (2, 1), (3, 3), (4, 4), (5, 4), (7, 7), (20, 10)):
                masked = mask(tokens_n, np.random.default_rng(seed), make(masking=kind), count)
                # At 3, the single token may come first; then nothing else fits.
                assert len(masked.positions_k) == k or (count in (3, 6) and len(masked.positions_k) == k - 2)


@pytest.mark.parametrize("kind", ["token", "whole_word"])
def test_every_candidate_is_chosen_equally_often(kind):
    """Of 9 words of one size; counts of k of 9 without replacement vary less than Poisson, so the bound is generous."""
    size = 2 if kind == "whole_word" else 1
    tokens_n = array([SPECIAL.cls, *([A, C][:size] * 9), SPECIAL.sep])
    rng, scheme = np.random.default_rng(0), make(masking=kind)
    counts_n = np.zeros(len(tokens_n))
    for _ in range(20_000):
        counts_n[mask(tokens_n, rng, scheme, 3 * size).positions_k] += 1
    assert counts_n[0] == counts_n[-1] == 0 and counts_n.sum() == 60_000 * size
    assert uniform(counts_n[1:-1:size])


def test_ngrams_cover_all_words_alike_except_beside_specials():
    tokens_n = array([SPECIAL.cls, *[A] * 60, SPECIAL.sep, *[A] * 60, SPECIAL.sep])
    rng, scheme = np.random.default_rng(0), make(masking="ngram")
    n, counts_n = 15_000, np.zeros(len(tokens_n))
    for _ in range(n):
        counts_n[mask(tokens_n, rng, scheme, 18).positions_k] += 1
    inner = np.concatenate([counts_n[5:57], counts_n[66:118]])
    assert uniform(inner)
    edges = counts_n[[1, 60, 62, 121]]
    assert uniform(edges) and 0.6 < edges.mean() / inner.mean() < 0.7


@pytest.mark.parametrize("kind", ["token", "whole_word", "ngram"])
def test_mask_rate(kind):
    """Words of one to three pieces: the budget is used up but for a word that does not fit, rarely."""
    rng, scheme = np.random.default_rng(0), make(masking=kind)
    count = budget(scheme, 128)
    k = []
    for _ in range(2_000):
        tokens_n = array([SPECIAL.cls, *rng.choice([A, B, C], 126, p=[0.4, 0.4, 0.2]), SPECIAL.sep])
        k.append(len(mask(tokens_n, rng, scheme, count).positions_k))
    assert max(k) == count == 19 and np.mean(k) > 18.99


# N-grams ------------------------------------------------------------------------------------------------------------


def lengths_of(texts, scheme, count, seed=0):
    """How many n-grams of each length are chosen in all texts."""
    rng = np.random.default_rng(seed)
    lengths = [len(span) for tokens_n in texts for span in spans_of(tokens_n, rng, scheme, count)[0]]
    return np.bincount(lengths, minlength=scheme.ngram_cdf.size + 2)[1:]


def expected_lengths(p, count):
    """Exact: lengths drawn from p until `count` words are reached, the last cut. Mean number of each length."""
    reached = np.zeros(count)  # probability that a drawing begins when so many words are chosen
    reached[0], expected = 1.0, np.zeros(len(p))
    for begun in range(count):
        for length, share in enumerate(p, start=1):
            expected[min(length, count - begun) - 1] += reached[begun] * share
            if begun + length < count:
                reached[begun + length] += reached[begun] * share
    return expected


@pytest.mark.parametrize("max_ngram", [1, 3, 4])
def test_ngram_lengths_follow_the_law_exactly(max_ngram):
    """Words of one token: the number of n-grams of each length, within 4 standard errors of the renewal process."""
    n, count = 1_500, 40
    tokens_n = array([SPECIAL.cls, *[A] * 127, SPECIAL.sep, *[A] * 127, SPECIAL.sep])
    found = lengths_of([tokens_n] * n, make(masking="ngram", max_ngram=max_ngram), count) / n
    p = 1 / np.arange(1, max_ngram + 1) / sum(1 / np.arange(1, max_ngram + 1))
    expected = expected_lengths(p, count)
    assert expected @ np.arange(1, max_ngram + 1) == pytest.approx(count)
    # The variance of each number is below that of as many independent draws.
    assert (abs(found - expected) <= 4 * np.sqrt(expected / n) * (max_ngram > 1)).all(), (found, expected)


@pytest.mark.parametrize(("unknown", "count", "n"), [(0.0, 77, 3_000), (0.1, 77, 3_000), (0.0, 256, 300)])
def test_realised_ngram_lengths(unknown, count, n):
    """At 512 tokens, words of one to three pieces, with [UNK] among them: within 0.01 of 6/11, 3/11, 2/11.

    The cut of the last n-gram and the single words that fill up are 0.007 of it at a budget of 77.
    """
    rng = np.random.default_rng(0)
    shares = [0.4 * (1 - unknown), 0.4 * (1 - unknown), 0.2 * (1 - unknown), unknown]
    texts = rng.choice([A, B, C, SPECIAL.unk], (n, 512), p=shares).astype(np.int32)
    texts[:, 0], texts[:, 250], texts[:, -1] = SPECIAL.cls, SPECIAL.sep, SPECIAL.sep
    found = lengths_of(texts, make(masking="ngram"), count)
    assert (abs(found / found.sum() - P) < 0.01).all(), found / found.sum()


# What takes their place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["token", "whole_word", "ngram"])
@pytest.mark.parametrize("together", [False, True])
def test_80_10_10_and_uniform_replacements(kind, together):
    rng = np.random.default_rng(0)
    tokens_n = array([*[A, C] * 9, SPECIAL.sep] * 5_000)
    masked = mask(tokens_n, rng, make(masking=kind, mask_together=together), 30_000)
    replaced_k = masked.tokens_n[masked.positions_k]
    counts_V = np.bincount(replaced_k, minlength=VOCAB)
    n = len(replaced_k)
    assert n == 30_000
    # Independent draws: one for each word of two tokens, or for each n-gram of three words at most.
    draws = n // {"token": 1, "whole_word": 2, "ngram": 6}[kind] if together else n
    assert near(counts_V[SPECIAL.mask] / n, 0.8, draws)
    assert near((replaced_k == masked.labels_k).mean(), 0.1 + 0.1 / len(ORDINARY), draws)
    assert counts_V.sum() == counts_V[[*ORDINARY, SPECIAL.mask]].sum()
    assert uniform(counts_V[sorted(set(ORDINARY) - {A, C})])


def test_replacements_are_independent_or_together():
    """Words of two tokens: how many are [MASK] as a whole is 0.64 or 0.8."""
    tokens_n = array([SPECIAL.cls, *[A, C] * 10_000, SPECIAL.sep])
    for together, both in ((False, 0.64), (True, 0.8)):
        masked = mask(tokens_n, np.random.default_rng(0), make(masking="whole_word", mask_together=together), 10_000)
        hidden = (masked.tokens_n[masked.positions_k] == SPECIAL.mask).reshape(-1, 2)
        assert near(hidden.all(axis=1).mean(), both, 5_000)
        assert (hidden[:, 0] == hidden[:, 1]).all() == together


def test_an_ngram_is_replaced_as_a_whole_with_random_tokens_each():
    tokens_n = array([SPECIAL.cls, *[A, B, B, C] * 20_000, SPECIAL.sep])
    scheme = make(masking="ngram", mask_together=True)
    spans, sizes_u = spans_of(tokens_n, np.random.default_rng(3), scheme, 16_000)
    masked = mask(tokens_n, np.random.default_rng(3), scheme, 16_000)  # the same generator, hence the same spans
    first_u = np.cumsum(sizes_u) - sizes_u
    kinds, same, two = np.zeros(3), 0, 0
    for span in spans:
        at = slice(first_u[span[0]], first_u[span[-1]] + sizes_u[span[-1]])
        shown, own = masked.tokens_n[at], tokens_n[at]
        hidden, kept = (shown == SPECIAL.mask), (shown == own)
        assert hidden.all() or not hidden.any()
        kinds += hidden.all(), kept.all(), not hidden.any() and not kept.all()
        if not hidden.any() and not kept.all() and len(shown) > 1:
            two += 1
            same += len(set(shown.tolist())) == 1
    n = len(spans)
    assert near(kinds[0] / n, 0.8, n) and near(kinds[1] / n, 0.1, n, 5) and near(kinds[2] / n, 0.1, n, 5)
    assert two > 300 and same < 0.1 * two


# Smoothing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_smoothing_prefers_rare_tokens_exactly(smoothing):
    """One and two tokens of five without replacement: the share of each within 4 standard errors of the exact law."""
    n, own = 8_000, ORDINARY[:5]
    counts_V = np.zeros(VOCAB, int)
    counts_V[own] = [0, 1, 5, 40, 1_000]
    w = np.maximum(counts_V[own], 1) ** -smoothing
    p = w / w.sum()
    first_two = p + [sum(p[j] * p[i] / (1 - p[j]) for j in range(5) if j != i) for i in range(5)]
    tokens_n = array([SPECIAL.cls, *own, SPECIAL.sep])
    scheme, rng = make(counts_V, mask_smoothing=smoothing), np.random.default_rng(0)
    for count, expected in ((1, p), (2, first_two)):
        chosen = np.zeros(5)
        for _ in range(n):
            chosen[mask(tokens_n, rng, scheme, count).positions_k - 1] += 1
        assert chosen.sum() == n * count
        assert all(near(share, e, n) for share, e in zip(chosen / n, expected, strict=True)), (chosen / n, expected)


# Randomness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [{}, {"mask_smoothing": 0.7}, {"masking": "whole_word"}, {"masking": "ngram"}])
def test_same_generator_same_masks(data):
    tokens_n, scheme = array([SPECIAL.cls, *ORDINARY, SPECIAL.sep]), make(**data)
    one, two, other = (mask(tokens_n, np.random.default_rng(seed), scheme, 12) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.tokens_n, two.tokens_n)
    np.testing.assert_array_equal(one.positions_k, two.positions_k)
    assert one.positions_k.tolist() != other.positions_k.tolist()
