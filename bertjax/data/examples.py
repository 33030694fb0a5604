"""Examples: what a plan says, read from the split, as `[CLS] A [SEP] B [SEP]` or `[CLS] A [SEP]`.

A pair that is too long loses tokens of a random part of its front and back, drawn at each build.

Shape letters: n tokens of one example without special tokens, k documents that begin within it, L its tokens with them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertjax.data.planning import Plan, Sentences
from bertjax.data.tokenizer import Special


@dataclass(frozen=True)
class Example:
    """One unpadded example of L tokens, special tokens included, before masking."""

    tokens_L: np.ndarray  # int32 [L]
    token_types_L: np.ndarray  # int32 [L] 0 up to and including the first [SEP], then 1; all 0 if there is no B
    pair_label: int  # nsp: 1 = random next; sop: 1 = swapped
    pair_weight: float  # 0.0 where there is no B, so nothing to tell


class Stream(Protocol):
    """What tokens are read from: a split of a prepared data set, or a part of one."""

    def tokens(self, start: int, end: int) -> np.ndarray:
        """int32 [end - start]"""
        ...


def build(plan: Plan, index: int, stream: Stream, rng: np.random.Generator, *, special: Special) -> Example:
    """Example `index`, of at most plan.lengths_N[index] tokens, read from `stream` and with random choices from `rng`.

    One read of the stream, and one more for a random B. About 30 microseconds besides.
    """
    if isinstance(plan, Sentences):
        return _one_segment(_across_documents(plan, index, stream, special), special)
    a, a_end, b, b_end, label = plan.segments(index, rng)
    if a_end == b:
        tokens_n = stream.tokens(a, b_end)
        a_n, b_n = tokens_n[: a_end - a], tokens_n[a_end - a :]
    elif b_end == a:
        tokens_n = stream.tokens(b, a_end)
        a_n, b_n = tokens_n[b_end - b :], tokens_n[: b_end - b]
    else:
        a_n, b_n = stream.tokens(a, a_end), stream.tokens(b, b_end)
    if not len(b_n):
        return _one_segment(a_n, special)
    a_n, b_n = truncate(a_n, b_n, plan.longest, rng)
    return _two_segments(a_n, b_n, label, special)


def _across_documents(plan: Sentences, index: int, stream: Stream, special: Special) -> np.ndarray:
    """The tokens of an example, with a [SEP] in front of each document that begins within it; int32 [n + k]."""
    begin, end = int(plan.first_N1[index]), int(plan.first_N1[index + 1])
    low, high = plan.document_tokens_D1.searchsorted((begin + 1, end))
    tokens_n = stream.tokens(begin, end)
    if low == high:
        return tokens_n
    return np.insert(tokens_n, plan.document_tokens_D1[low:high] - begin, special.sep)


def truncate(a: np.ndarray, b: np.ndarray, longest: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both shortened to `longest` tokens together, as by removing one at a time from the longer (B if equal).

    Each removed token is the front or the back one with equal probability, so the front's share is binomial.
    """
    if len(a) + len(b) <= longest:
        return a, b
    keep_a = min(len(a), max((longest + 1) // 2, longest - len(b)))
    keep_b = longest - keep_a
    front_a, front_b = (int(rng.binomial(n, 0.5)) for n in (len(a) - keep_a, len(b) - keep_b))
    return a[front_a : front_a + keep_a], b[front_b : front_b + keep_b]


def _one_segment(a: np.ndarray, special: Special) -> Example:
    """[CLS] A [SEP]"""
    tokens_L = np.empty(len(a) + 2, np.int32)
    tokens_L[0], tokens_L[1:-1], tokens_L[-1] = special.cls, a, special.sep
    return Example(tokens_L, np.zeros(len(tokens_L), np.int32), 0, 0.0)


def _two_segments(a: np.ndarray, b: np.ndarray, label: int, special: Special) -> Example:
    """[CLS] A [SEP] B [SEP]"""
    middle = len(a) + 2  # where B begins
    tokens_L = np.empty(middle + len(b) + 1, np.int32)
    tokens_L[0], tokens_L[middle - 1], tokens_L[-1] = special.cls, special.sep, special.sep
    tokens_L[1 : middle - 1], tokens_L[middle:-1] = a, b
    token_types_L = np.ones(len(tokens_L), np.int32)
    token_types_L[:middle] = 0
    return Example(tokens_L, token_types_L, label, 1.0)
