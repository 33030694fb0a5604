"""Ask a trained encoder: which words fit into the masked places of a text.

Shape letters: L positions of the row, P prediction slots, V vocabulary.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax import batch
from bertjax.config.schema import Config
from bertjax.data import tokenizer
from bertjax.errors import ConfigError
from bertjax.model.network import abstract_params, apply
from bertjax.tasks.inputs import check_vocabulary
from bertjax.tasks.pretrain import check_restored
from bertjax.train import checkpoint, workdir

MASK = "[MASK]"


@dataclass(frozen=True)
class Filled:
    """A text and, for each [MASK] in it, the likeliest pieces with their probabilities, best first."""

    text: str
    choices: list[list[tuple[str, float]]]


def fill_mask(config: Config, directory: Path, texts: list[str], *, top: int) -> list[Filled]:
    """Fill the [MASK]s of each text by the newest checkpoint in `directory`.

    Raises ConfigError for a text without [MASK], with more than `data.max_predictions` of them, or longer than a row.
    """
    tokens = tokenizer.load(workdir.tokenizer_path(directory, config.data), lower_case=config.data.lower_case)
    check_vocabulary(config, tokens)
    rows = [_row(config, tokens, text) for text in texts]
    restored = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model))
    check_restored(config, directory, restored, tokens)

    shape = replace(config.model, attention="auto")  # whatever platform it was trained on

    @jax.jit
    def log_probs(params: Any, row: dict[str, jax.Array]) -> jax.Array:
        return jax.nn.log_softmax(apply(shape, params, row)["mlm_logits"][0])

    filled = []
    for text, row in zip(texts, rows, strict=True):
        log_probs_PV = np.asarray(log_probs(restored.state, row))
        filled.append(Filled(text, _best(log_probs_PV[row["mlm_weights"][0] > 0], tokens, top)))
    return filled


def _row(config: Config, tokens: tokenizer.Tokenizer, text: str) -> dict[str, np.ndarray]:
    """A batch of one row that holds [CLS] text [SEP], with a prediction slot for each [MASK]."""
    special = tokens.special
    parts = text.split(MASK)
    ids = [special.cls]
    # Encoded between the masks: a [MASK] inside a text given to the tokenizer is ordinary characters.
    # A word after a mask keeps its space, which is a part of it in byte-level BPE and means nothing in other kinds.
    spaced = [" " * (i > 0 and part[:1].isspace()) + part.strip() for i, part in enumerate(parts)]
    encoded_n, lengths = tokens.encode_batch(spaced)
    for i, encoded in enumerate(np.split(encoded_n, np.cumsum(lengths)[:-1])):
        glued = i > 0 and not parts[i][:1].isspace()
        # SentencePiece begins every text with a space: "[MASK]." must not become "[MASK] ." with a piece "\u2581".
        spurious = glued and len(encoded) > 1 and tokens.pieces[encoded[0]] == "\u2581"
        ids += ([special.mask] if i else []) + encoded[int(spurious) :].tolist()
    ids.append(special.sep)
    masks = len(parts) - 1
    if not 1 <= masks <= config.data.max_predictions:
        most = config.data.max_predictions
        raise ConfigError(f"{text!r}: has {masks} {MASK}; put 1 to {most} where words are missing")
    if len(ids) > config.data.seq_len:
        raise ConfigError(f"{text!r}: has {len(ids)} tokens; shorten it to data.seq_len = {config.data.seq_len}")
    row: dict[str, np.ndarray] = {
        name: np.zeros(field.shape, field.dtype) for name, field in batch.spec(config.data, rows=1).items()
    }
    row["tokens"][:] = special.pad
    row["tokens"][0, : len(ids)] = ids
    row["segments"][0, : len(ids)] = 1
    row["positions"][0, : len(ids)] = np.arange(len(ids))
    row["mlm_positions"][0, :masks] = np.flatnonzero(row["tokens"][0] == special.mask)
    row["mlm_weights"][0, :masks] = 1.0
    return row


def _best(log_probs_PV: np.ndarray, tokens: tokenizer.Tokenizer, top: int) -> list[list[tuple[str, float]]]:
    log_probs_PV = log_probs_PV[:, : tokens.vocab_size]  # the table may have rows that stand for no piece
    best_PT = np.argsort(-log_probs_PV, axis=-1, kind="stable")[:, :top]
    return [
        [(tokens.pieces[i], float(np.exp(row_V[i]))) for i in best_T]
        for row_V, best_T in zip(log_probs_PV, best_PT, strict=True)
    ]
