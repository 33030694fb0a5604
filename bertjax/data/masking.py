"""Masking: which tokens of an example the model must predict, and what it sees in their place.

Drawn while the batch is built, so that an example has other masks in every epoch. After BERT's and ALBERT's
`create_masked_lm_predictions`, except that a random replacement is never a special token, that an unknown word ([UNK])
is never to be predicted, and that overlaps do not change how long n-grams are.

Shape letters: n tokens of one example, u units (words and special tokens) of it, c words chosen, k tokens chosen,
V vocabulary, O ordinary pieces of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertjax.config.schema import DataConfig

if TYPE_CHECKING:
    from bertjax.data.tokenizer import Tokenizer


FREE, FIRST, INSIDE = 1, 2, 3
"""Marks of words: not chosen, the first word or a further word of an n-gram. A special token has 0."""


@dataclass(frozen=True)
class Masked:
    """An example as the model sees it, and what it is to predict."""

    tokens_n: np.ndarray  # int32 [n]
    positions_k: np.ndarray  # int64 [k], ascending
    labels_k: np.ndarray  # int32 [k] the original tokens at the positions


@dataclass(frozen=True, eq=False)
class Scheme:
    """What masking needs to know: made once by `scheme`, the same for every example."""

    masking: str  # token, whole_word, ngram
    mask_rate: float  # as a run begins
    last_mask_rate: float  # as it ends
    mask_count: int
    shares: tuple[float, ...]  # shown as [MASK], as a random piece, as it is
    together: bool
    mask_id: int
    special_V: np.ndarray  # bool [V]
    begins_V: np.ndarray  # bool [V] the piece begins a unit: a word, or a special token
    ordinary_O: np.ndarray  # int32 [O] the ids that are not special
    ngram_cdf: np.ndarray  # float64 [max_ngram - 1] probabilities of at most 1, 2, .. words; the last, 1, left out
    rarity_V: np.ndarray | None  # float64 [V] max(count, 1)^mask_smoothing; None = all tokens are as likely


def scheme(data: DataConfig, tokenizer: Tokenizer, token_counts_V: np.ndarray) -> Scheme:
    """The masking that `data` asks for.

    `token_counts_V` int [V] is how often each id occurs in the data set; only `data.mask_smoothing` > 0 reads it.
    """
    special_V = np.zeros(tokenizer.vocab_size, bool)
    ids = tokenizer.special
    special_V[[ids.pad, ids.unk, ids.cls, ids.sep, ids.mask]] = True
    ngram_p = 1.0 / np.arange(1, data.max_ngram + 1)
    smoothing = data.mask_smoothing
    return Scheme(
        masking=data.masking,
        mask_rate=data.mask_rate,
        last_mask_rate=data.last_mask_rate,
        mask_count=data.mask_count,
        shares=data.mask_shares,
        together=data.mask_together,
        mask_id=ids.mask,
        special_V=special_V,
        begins_V=tokenizer.starts_word | special_V,
        ordinary_O=np.flatnonzero(~special_V).astype(np.int32),
        ngram_cdf=(np.cumsum(ngram_p) / ngram_p.sum())[:-1],
        rarity_V=np.maximum(token_counts_V, 1.0) ** smoothing if smoothing > 0.0 else None,
    )


def budget(scheme: Scheme, length: int, done: float = 0.0) -> int:
    """How many tokens to predict of an example of `length` tokens, [CLS] and [SEP] included as in BERT, when the share
    `done` of the run, from 0 to 1, has passed.
    """
    rate = scheme.mask_rate + done * (scheme.last_mask_rate - scheme.mask_rate)
    return scheme.mask_count or max(1, round(length * rate))


def budgets(scheme: Scheme, lengths: list[int], slots: int, done: float = 0.0) -> list[int]:
    """The budgets of the examples of one row, which share `slots` prediction slots; their sum is at most `slots`.

    If they do not all fit, each example has one slot while there are any, and the others are shared in proportion.
    """
    wanted = [budget(scheme, length, done) for length in lengths]
    total, rows = sum(wanted), len(wanted)
    if total <= slots:
        return wanted
    if rows >= slots:
        return [1] * slots + [0] * (rows - slots)
    # Rounding the running sum instead of each share hands out every slot, and no example gets more than its budget.
    ends = np.cumsum([0, *wanted]) - np.arange(rows + 1)
    return (1 + np.diff(ends * (slots - rows) // (total - rows))).tolist()


def mask(tokens_n: np.ndarray, rng: np.random.Generator, scheme: Scheme, count: int) -> Masked:
    """Choose at most `count` tokens, never a special one; each becomes [MASK], a random token or stays, by the shares.

    `tokens_n` int32 [n], not changed. A word is a piece that starts one and the following pieces that do not; special
    tokens end words and n-grams. k is below `count` only if nothing that is left fits.
    """
    if scheme.masking == "token":
        positions_k = _choose_tokens(tokens_n, rng, scheme, count)
        share_k = rng.random(len(positions_k))
    else:
        bounds, word_u = units(tokens_n, scheme)
        choose = choose_words if scheme.masking == "whole_word" else choose_ngrams
        marks_u = choose(bounds, word_u, rng, scheme, count)
        sizes_u = bounds[1:] - bounds[:-1]
        positions_k = (marks_u > FREE).repeat(sizes_u).nonzero()[0]
        if scheme.together:
            chosen_c = (marks_u > FREE).nonzero()[0]
            span_c = (marks_u[chosen_c] == FIRST).cumsum()
            share_k = rng.random(len(span_c) + 1)[span_c].repeat(sizes_u[chosen_c])
        else:
            share_k = rng.random(len(positions_k))
    labels_k = tokens_n[positions_k]
    # Faster than rng.integers; a product of less than 2^53 is never rounded up to O.
    random_k = (rng.random(len(positions_k)) * len(scheme.ordinary_O)).astype(np.int64)
    shown_k = scheme.ordinary_O[random_k]
    as_mask, as_random, _ = scheme.shares
    shown_k[share_k < as_mask] = scheme.mask_id
    np.copyto(shown_k, labels_k, where=share_k >= as_mask + as_random)
    masked_n = tokens_n.copy()
    masked_n[positions_k] = shown_k
    return Masked(masked_n, positions_k, labels_k)


def _choose_tokens(tokens_n: np.ndarray, rng: np.random.Generator, scheme: Scheme, count: int) -> np.ndarray:
    """Ascending positions [k]: uniformly without replacement, or in proportion to 1 / rarity.

    The smallest of the keys Exp(1) * rarity are a sample without replacement with probabilities in proportion to
    1 / rarity (Efraimidis and Spirakis 2006): DistilBERT's multinomial over a batch, here over one example.
    """
    at_c = np.flatnonzero(~scheme.special_V.take(tokens_n))
    if count < at_c.size:
        key_c = rng.random(at_c.size)
        if scheme.rarity_V is not None:
            key_c = rng.standard_exponential(at_c.size) * scheme.rarity_V[tokens_n[at_c]]
        at_c = at_c[key_c.argpartition(count)[:count]]
        at_c.sort()
    return at_c


def units(tokens_n: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Where each word or special token begins, and at last n: int64 [u + 1]; whether it is a word: bool [u]."""
    special_n = scheme.special_V.take(tokens_n)
    begins = np.ones(len(tokens_n) + 1, bool)
    begins[1:-1] = scheme.begins_V.take(tokens_n[1:])
    begins[1:-1] |= special_n[:-1]  # the rest of a word that was cut off counts as a word
    bounds = begins.nonzero()[0]
    return bounds, ~special_n[bounds[:-1]]


def choose_words(
    bounds: np.ndarray, word_u: np.ndarray, rng: np.random.Generator, scheme: Scheme, count: int
) -> np.ndarray:
    """Marks uint8 [u]: FIRST at the chosen words."""
    marks_u = word_u.astype(np.uint8)
    _fill(marks_u, bounds[1:] - bounds[:-1], rng, count)
    return marks_u


def _fill(marks_u: np.ndarray, sizes_u: np.ndarray, rng: np.random.Generator, left: int) -> None:
    """Mark free words in random order. BERT's rule: one that does not fit into what is left is skipped."""
    order_w = rng.permutation((marks_u == FREE).nonzero()[0])
    while left and len(order_w):
        ends_w = sizes_u[order_w].cumsum()
        fit = int(ends_w.searchsorted(left, side="right"))
        if fit:
            marks_u[order_w[:fit]] = FIRST
            left -= int(ends_w[fit - 1])
        order_w = order_w[fit:]
        order_w = order_w[sizes_u[order_w] <= left]


def choose_ngrams(
    bounds: np.ndarray, word_u: np.ndarray, rng: np.random.Generator, scheme: Scheme, count: int
) -> np.ndarray:
    """Marks uint8 [u]: FIRST and INSIDE at the words of the chosen n-grams.

    A length is drawn once, and then a place, uniformly among those that are free: a collision moves the n-gram and
    does not shorten it as in ALBERT. The drawing stops when the budget is reached, so that the lengths as drawn follow
    p exactly (Wald's identity); only the last is cut to what is left, 0.007 more single words at a budget of 77. A word
    beside a special token is chosen about 2/3 as often as others, because fewer n-grams reach it.
    """
    first = bounds.tolist()
    lengths = iter((scheme.ngram_cdf.searchsorted(rng.random(count + 1), side="right") + 1).tolist())
    # Three tries or more for each n-gram: enough up to 60 % of the tokens; above, single words take what is left.
    places = (rng.random(2 * count + 32) * len(word_u)).astype(np.int64).tolist()
    marks = bytearray(word_u) + b"\0"  # the end is not free, so that no n-gram runs over it
    longest = len(scheme.ngram_cdf) + 1
    free, chosen = bytes([FREE] * longest), bytes([FIRST] + [INSIDE] * (longest - 1))
    left = count
    words = min(next(lengths), left)
    for place in places:
        if marks.startswith(free[:words], place) and (tokens := first[place + words] - first[place]) <= left:
            marks[place : place + words] = chosen[:words]
            left -= tokens
            if left == 0:
                break
            words = min(next(lengths), left)
    marks_u = np.frombuffer(marks, np.uint8)[:-1]
    if left:
        _fill(marks_u, bounds[1:] - bounds[:-1], rng, left)
    return marks_u
