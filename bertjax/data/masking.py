"""Masking: which tokens of an example the model must predict, and what it sees in their place.

Drawn while the batch is built, so that an example has other masks in every epoch. After BERT's
`create_masked_lm_predictions`, except that a random replacement is never a special token, and that an unknown word
([UNK]) is not asked for.

Shape letters: n tokens of one example, k of them chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bertjax.data.tokenizer import Special


@dataclass(frozen=True)
class Masked:
    """An example as the model sees it, and what it is to predict."""

    tokens_n: np.ndarray  # int32 [n]
    positions_k: np.ndarray  # int64 [k], ascending
    labels_k: np.ndarray  # int32 [k] the original tokens at the positions


def mask_tokens(
    tokens_n: np.ndarray,
    rng: np.random.Generator,
    *,
    mask_rate: float,
    max_predictions: int,
    special: Special,
    vocab_size: int,
) -> Masked:
    """Choose tokens uniformly, never a special one, and replace each: 80 % [MASK], 10 % a random token, 10 % kept.

    As in BERT, `mask_rate` is of all n tokens, [CLS] and [SEP] included, and at least one token is chosen. k is below
    that only if there are fewer candidates or `max_predictions`.
    """
    special_5 = np.array(sorted({special.pad, special.unk, special.cls, special.sep, special.mask}))
    candidates = np.flatnonzero((tokens_n != special_5[:, None]).all(axis=0))
    budget = min(max_predictions, max(1, round(len(tokens_n) * mask_rate)))
    positions_k = np.sort(rng.permutation(candidates)[:budget])
    labels_k = tokens_n[positions_k]
    return Masked(_corrupt(tokens_n, positions_k, rng, special.mask, special_5, vocab_size), positions_k, labels_k)


def _corrupt(
    tokens_n: np.ndarray,
    positions_k: np.ndarray,
    rng: np.random.Generator,
    mask: int,
    special_5: np.ndarray,
    vocab_size: int,
) -> np.ndarray:
    """A copy of the tokens [n] with each chosen position replaced or kept, independently of the others."""
    random_k = rng.integers(vocab_size - len(special_5), size=len(positions_k))
    for special_id in special_5:  # ascending: each shift opens the gap at one special id
        random_k += random_k >= special_id
    share_k = rng.random(len(positions_k))
    corrupted_n = tokens_n.copy()
    corrupted_n[positions_k] = np.where(share_k < 0.8, mask, np.where(share_k < 0.9, random_k, tokens_n[positions_k]))
    return corrupted_n
