"""Which words fit into the masked places of a text, by a trained model.

Shape letters: B texts, P masks of a text, V vocabulary, T choices.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import ConfigError, NumericError, printable
from bertjax.trained import inference
from bertjax.trained.inference import Loaded
from bertjax.trained.load import word_tokenizer
from bertjax.trained.texts import checked_texts

MASK = "[MASK]"


@dataclass(frozen=True)
class Filled:
    """A text and, for each [MASK] in it, the likeliest pieces with their probabilities, best first."""

    text: str
    choices: list[list[tuple[str, float]]]


def fill_mask(path: str | Path, texts: Iterable[str], *, top: int) -> list[Filled]:
    """Fill the [MASK]s of each text with the `top` likeliest pieces, by the model in a work or Hugging Face directory.

    What a terminal would obey in a piece is shown as an escape. Raises ConfigError for a text without [MASK] or longer
    than the model's positions, CheckpointError for a model without a trained MLM head, DataError for one without a
    tokenizer, and what `inference.load` and `checked_texts` raise.
    """
    loaded = inference.load(path)
    tokenizer = word_tokenizer(path, loaded.heads, loaded.tokenizer)
    texts = checked_texts("fill_mask", texts)
    rows = [masked_ids(tokenizer, text) for text in texts]
    for text, ids in zip(texts, rows, strict=True):
        _check(text, ids, tokenizer.special.mask, loaded.config.max_positions)
    choices: dict[int, list[list[tuple[str, float]]]] = {}
    # Texts with as many masks and of similar length share a batch, so little is spent on padding.
    order = sorted(range(len(rows)), key=lambda i: (rows[i].count(tokenizer.special.mask), len(rows[i])))
    for start in range(0, len(order), inference.ROWS):
        chosen = order[start : start + inference.ROWS]
        for i, logits_PV in zip(chosen, _logits([rows[i] for i in chosen], loaded, tokenizer), strict=True):
            if np.isnan(logits_PV).any():
                fix = "the weights are too large; use another checkpoint"
                raise NumericError(f"{path}: gives no probabilities for {texts[i]!r:.80}: {fix}")
            choices[i] = _best(logits_PV, tokenizer, top)
    return [Filled(text, choices[i]) for i, text in enumerate(texts)]


def masked_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of [CLS] text [SEP], with that of the mask for each [MASK]."""
    special = tokenizer.special
    parts = text.split(MASK)
    ids = [special.cls]
    # Encoded between the masks: a [MASK] inside a text given to the tokenizer is ordinary characters.
    # A word after a mask keeps its space, which is a part of it in byte-level BPE and means nothing in other kinds.
    spaced = [" " * (i > 0 and part[:1].isspace()) + part.strip() for i, part in enumerate(parts)]
    encoded_n, lengths = tokenizer.encode_batch(spaced)
    for i, encoded in enumerate(np.split(encoded_n, np.cumsum(lengths)[:-1])):
        glued = i > 0 and not parts[i][:1].isspace()
        # SentencePiece begins every text with a space: "[MASK]." must not become "[MASK] ." with a piece "\u2581".
        spurious = glued and len(encoded) > 1 and tokenizer.pieces[encoded[0]] == "\u2581"
        ids += ([special.mask] if i else []) + encoded[int(spurious) :].tolist()
    return [*ids, special.sep]


def _check(text: str, ids: list[int], mask: int, most: int) -> None:
    if mask not in ids:
        raise ConfigError(f"{text!r:.80}: has no {MASK}; put one where a word is missing")
    if len(ids) > most:
        raise ConfigError(f"{text!r:.80}: has {len(ids)} tokens; shorten it to {most}, the positions of the model")


def _logits(rows: list[list[int]], loaded: Loaded, tokenizer: Tokenizer) -> list[np.ndarray]:
    """The logits [P, V] of each row at its own masks."""
    places = [np.flatnonzero(np.array(ids) == tokenizer.special.mask) for ids in rows]
    at_BP = np.zeros((len(rows), max(map(len, places))), np.int32)
    for at_P, place in zip(at_BP, places, strict=True):
        at_P[: len(place)] = place
    tokens_BL, mask_BL = inference.padded(rows)
    logits_BPV = loaded(tokens_BL, mask=mask_BL, mlm_positions=at_BP, outputs=("mlm_logits",)).mlm_logits
    assert logits_BPV is not None  # the head is there
    return [logits_PV[: len(place)] for logits_PV, place in zip(logits_BPV, places, strict=True)]


def _best(logits_PV: np.ndarray, tokenizer: Tokenizer, top: int) -> list[list[tuple[str, float]]]:
    probs_PV = np.exp(logits_PV - logits_PV.max(axis=-1, keepdims=True))
    probs_PV /= probs_PV.sum(axis=-1, keepdims=True)
    probs_PV = probs_PV[:, : tokenizer.vocab_size]  # the word table may have rows that stand for no piece
    best_PT = np.argsort(-probs_PV, axis=-1, kind="stable")[:, :top]
    return [
        [(printable(tokenizer.pieces[i]), float(probs_V[i])) for i in best_T]
        for probs_V, best_T in zip(probs_PV, best_PT, strict=True)
    ]
