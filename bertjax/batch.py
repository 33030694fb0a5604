"""The batch contract: what one global batch holds, by name, shape, dtype and meaning.

A row is one sequence of static length L that holds up to K examples; K = 1 is the classic, unpacked row. The host
builds batches to this contract, the model and the objectives read nothing else, and benchmarks make synthetic ones.

Shape letters: B rows, L positions of a row, P prediction slots of a row, K examples of a row.
"""

from dataclasses import dataclass

import numpy as np

from bertjax.config.schema import Config, DataConfig


@dataclass(frozen=True)
class Field:
    """One entry of a batch: its `shape`, its numpy `dtype` and what it means."""

    shape: tuple[int, ...]
    dtype: type
    meaning: str


def spec(data: DataConfig, *, rows: int | None = None, length: int | None = None) -> dict[str, Field]:
    """The fields of a batch of `rows` rows (default: `data.batch_size`) of `length` (default: `data.seq_len`)."""
    B = data.batch_size if rows is None else rows
    L = data.seq_len if length is None else length
    P, K = data.max_predictions, data.packing
    return {
        "tokens": Field((B, L), np.int32, "token ids after masking; the padding id in unused positions"),
        "segments": Field((B, L), np.int32, "which example of the row, 1..K; 0 is padding"),
        "positions": Field((B, L), np.int32, "position inside the example, from 0"),
        "token_types": Field((B, L), np.int32, "0 for segment A, 1 for segment B"),
        "mlm_positions": Field((B, P), np.int32, "row positions whose token is to be predicted"),
        "mlm_labels": Field((B, P), np.int32, "the original token at each of them"),
        "mlm_weights": Field((B, P), np.float32, "1 for a predicted slot, 0 for an unused one"),
        "pair_positions": Field((B, K), np.int32, "row position of the [CLS] of each example"),
        "pair_labels": Field((B, K), np.int32, "NSP: 1 = random next; SOP: 1 = swapped"),
        "pair_weights": Field((B, K), np.float32, "1 where the example has a pair label, else 0"),
    }


def labelled(kind: str, data: DataConfig, *, rows: int | None = None, length: int | None = None) -> dict[str, Field]:
    """The fields of a batch of labelled examples, as `spec` for pretraining; `kind` is `task.kind`.

    A question with K endings (choice) is a row with K examples, of which one is right.
    """
    whole = spec(data, rows=rows, length=length)
    (B, L), K = whole["tokens"].shape, data.packing
    items = {"tag": (B, L), "choice": (B, 1), "span": (B, K)}.get(kind, (B, K))
    meanings = {
        "classify": "index of the label, in model.labels",
        "regress": "the number",
        "tag": "at the first piece of each word, the index of its label",
        "span": "row positions of the first and the last token of the answer; of [CLS] where there is none",
        "choice": "which of the examples of the row is right, from 0",
    }
    shape = (*items, 2) if kind == "span" else items
    return {name: whole[name] for name in ("tokens", "segments", "positions", "token_types", "pair_positions")} | {
        "labels": Field(shape, np.float32 if kind == "regress" else np.int32, meanings[kind]),
        "label_weights": Field(items, np.float32, "1 for an item with a label, else 0"),
        "numbers": Field((B, 1 if kind == "choice" else K), np.int32, "which example it is, from 0; -1 where unused"),
    }


def fields(config: Config, *, rows: int | None = None) -> dict[str, Field]:
    """The fields of a batch of this run, whatever it learns."""
    kind, data = config.task.kind, config.data
    return labelled(kind, data, rows=rows) if kind else spec(data, rows=rows)


def synthetic(config: Config, *, rows: int | None = None) -> dict[str, np.ndarray]:
    """Full rows of random tokens for benchmarks, `rows` of them (default: `data.batch_size`): every slot is predicted,
    every example has a label.
    """
    data, model, rng = config.data, config.model, np.random.default_rng(config.run.seed)
    named = fields(config, rows=rows)
    made: dict[str, np.ndarray] = {name: np.zeros(field.shape, field.dtype) for name, field in named.items()}
    (B, L), P, K = made["tokens"].shape, data.max_predictions, data.packing
    size = -(-L // K)  # of each example of a row
    made["tokens"][:] = rng.integers(5, model.vocab_size, size=(B, L))
    made["segments"][:] = 1 + np.arange(L) // size
    made["positions"][:] = np.arange(L) % size
    made["token_types"][:] = (np.arange(L) % size >= size // 2) if model.token_types > 1 else 0
    made["pair_positions"][:] = np.arange(K) * size
    if config.task.kind:
        return made | _labels(config, made, rng)
    made["mlm_positions"][:] = np.sort(rng.permuted(np.tile(np.arange(L), (B, 1)), axis=1)[:, :P], axis=1)
    made["mlm_labels"][:] = rng.integers(5, model.vocab_size, size=(B, P))
    made["mlm_weights"][:] = 1.0
    made["pair_labels"][:] = rng.integers(0, 2, size=(B, K))
    made["pair_weights"][:] = 1.0
    return made


def _labels(config: Config, made: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random ones for all items of the rows that are made: an answer is the second half of its example."""
    labels, kind = made["labels"], config.task.kind
    weights, numbers = np.ones_like(made["label_weights"]), np.arange(made["numbers"].size, dtype=np.int32)
    if kind == "span":
        size = made["tokens"].shape[1] // config.data.packing
        labels = made["pair_positions"][:, :, None] + np.array([size // 2, size - 1], labels.dtype)
    elif kind == "regress":
        labels = rng.random(labels.shape, labels.dtype)
    else:
        classes = config.data.packing if kind == "choice" else max(1, len(config.model.labels))
        labels = rng.integers(0, classes, size=labels.shape, dtype=labels.dtype)
    return {"labels": labels, "label_weights": weights, "numbers": numbers.reshape(made["numbers"].shape)}
