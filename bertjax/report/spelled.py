"""Examples of a batch spelled out, for people to see what training will see.

Shape letters, beside those of `bertjax.batch`: n tokens of one example.
"""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data.batches import Batch
from bertjax.data.tokenizer import Tokenizer

_LABELS = {"nsp": ("true next", "random next"), "sop": ("in order", "swapped")}


def examples(batch: Batch, first_row: int, data: DataConfig, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Each example of a batch: {"row", "label", "text", "parts"}; the text is made of the `parts`."""
    for b, segments_L in enumerate(batch["segments"]):
        labels_L = np.full(len(segments_L), -1)
        used = batch["mlm_weights"][b] > 0
        labels_L[batch["mlm_positions"][b][used]] = batch["mlm_labels"][b][used]
        for k in range(segments_L.max()):
            label = "no label"
            if batch["pair_weights"][b, k] > 0:
                label = _LABELS[data.examples][batch["pair_labels"][b, k]]
            inside = segments_L == k + 1
            found = list(parts(batch["tokens"][b][inside], labels_L[inside], tokenizer))
            text = "".join(before if after is None else f"{{{before}→{after}}}" for before, after in found)
            yield {"row": first_row + b, "label": label, "text": text, "parts": found}


def parts(tokens_n: np.ndarray, labels_n: np.ndarray, tokenizer: Tokenizer) -> Iterator[tuple[str, str | None]]:
    """An example in parts, as (what it was, what is shown).

    A predicted token (`labels_n` >= 0) is a part with what stands in its place; stretches of other tokens have None.
    """
    special = list(astuple(tokenizer.special))

    def spelled(ids: np.ndarray) -> str:  # SentencePiece decodes special pieces, and a space alone, to nothing
        return (ids[0] not in special and tokenizer.decode(ids).strip()) or tokenizer.pieces[ids[0]]

    original_n = np.where(labels_n >= 0, labels_n, tokens_n)
    special_n, predicted_n = np.isin(original_n, special), labels_n >= 0
    alone_n = special_n | predicted_n
    begins_n = tokenizer.starts_word[original_n] | special_n
    begins_n[1:] |= special_n[:-1]
    for stretch in np.split(np.arange(len(tokens_n)), np.flatnonzero(alone_n[1:] | alone_n[:-1]) + 1):
        at, before = stretch[0], spelled(original_n[stretch])
        if not begins_n[at]:
            before = before.removeprefix("##")
        elif at:
            yield " ", None
        same = tokens_n[at] == original_n[at]
        yield before, None if not predicted_n[at] else before if same else spelled(tokens_n[stretch])
