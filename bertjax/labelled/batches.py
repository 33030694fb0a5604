"""Examples to batches, to the contract of `bertjax.batch.labelled`.

Rows are numbered from 0 to the end of a run. What row r holds is a function of (examples, config, seed, r), so the
state of training data is one integer, the next row. An epoch holds each example once and has an order of its own.

Shape letters: N examples, R rows of an epoch, B rows of a batch, L positions of a row, K examples of a row.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bertjax import batch
from bertjax.config.schema import DataConfig
from bertjax.data.packing import Rows, pack
from bertjax.labelled.example import Example

Batch = dict[str, np.ndarray]

_SORTED = 64
"""Batches whose rows are sorted by length together: more would make them more alike, and the order less random."""


def train_batches(
    kind: str,
    examples: Sequence[Example],
    data: DataConfig,
    *,
    seed: int,
    start_row: int,
    pad: int,
    own: tuple[int, ...] | None = None,
) -> Iterator[Batch]:
    """The batches of a run from row `start_row` on, without end, unless there are no examples.

    An epoch is a permutation of rows: of single examples, of packed ones, or of the endings of a question. With
    `data.buckets` the rows of a batch have about the same length, and its length is the least that holds them. A batch
    crosses the end of an epoch. With `own`, only those rows of each batch, by their numbers in it: the share of one of
    several processes.
    """
    order = _Order(kind, examples, data, seed)
    row, B = start_row, data.batch_size
    while order.rows:
        made = _made(kind, examples, data, [order.row(number) for number in range(row, row + B)], pad)
        yield made if own is None else {name: array[list(own)] for name, array in made.items()}
        row += B


def eval_batches(kind: str, examples: Sequence[Example], data: DataConfig, *, pad: int) -> Iterator[Batch]:
    """Batches with each example once, in order of length; the last is filled with rows of padding."""
    lengths_N = _lengths(examples)
    rows = _rows(kind, lengths_N, data, 0)
    numbers_R = np.argsort(_row_lengths(rows, lengths_N), kind="stable")
    B = data.batch_size
    for first in range(0, len(rows), B):
        held = [_held(rows, number) for number in numbers_R[first : first + B]]
        yield _made(kind, examples, data, held + [_NO_EXAMPLES] * (B - len(held)), pad)


def epoch_rows(kind: str, examples: Sequence[Example], data: DataConfig, *, seed: int) -> int:
    """Rows of each epoch: which examples share a row depends on the seed, but not how many rows there are."""
    return len(_rows(kind, _lengths(examples), data, seed))


def eval_rows(kind: str, examples: Sequence[Example], data: DataConfig) -> int:
    """Rows of an evaluation, without those of padding."""
    return epoch_rows(kind, examples, data, seed=0)


# Which examples a row holds -----------------------------------------------------------------------------------------

_NO_EXAMPLES = np.zeros(0, np.int64)


def _lengths(examples: Sequence[Example]) -> np.ndarray:
    return np.array([len(example.tokens) for example in examples], np.int64)


def _rows(kind: str, lengths_N: np.ndarray, data: DataConfig, seed: int) -> Rows:
    if kind == "choice":
        N = len(lengths_N)
        return Rows(np.arange(0, N + 1, data.packing), np.arange(N))
    return pack(lengths_N, row_length=data.seq_len, most=data.packing, seed=seed)


def _row_lengths(rows: Rows, lengths_N: np.ndarray) -> np.ndarray:
    return np.add.reduceat(lengths_N[rows.example_N], rows.first_R1[:-1]) if len(rows) else _NO_EXAMPLES


def _held(rows: Rows, number: int) -> np.ndarray:
    return rows.example_N[rows.first_R1[number] : rows.first_R1[number + 1]]


class _Order:
    """The examples of each row of a run."""

    def __init__(self, kind: str, examples: Sequence[Example], data: DataConfig, seed: int) -> None:
        self._kind, self._data, self._seed = kind, data, seed
        self._lengths_N = _lengths(examples)
        self.rows = epoch_rows(kind, examples, data, seed=seed)
        self._epoch = -1

    def row(self, number: int) -> np.ndarray:
        """int64 [k] the examples of row `number` of the run."""
        epoch, at = divmod(number, self.rows)
        if epoch != self._epoch:
            self._planned, self._order_R = self._plan(epoch)
            self._epoch = epoch
        return _held(self._planned, self._order_R[at])

    def _plan(self, epoch: int) -> tuple[Rows, np.ndarray]:
        """The rows of an epoch and their order, int64 [R]."""
        # Philox enciphers its key, so that no two pairs of seed and epoch have anything in common.
        rng = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], np.uint64)))
        rows = _rows(self._kind, self._lengths_N, self._data, int(rng.integers(2**32)))
        order_R = rng.permutation(len(rows))
        if not self._data.buckets:
            return rows, order_R
        # The batch in which the last epoch ends and this one begins, and the one in which this one ends, are left as
        # they are.
        B = self._data.batch_size
        start = -epoch * len(rows) % B
        end = start + (len(rows) - start) // B * B if start < len(rows) else start
        length_R = _row_lengths(rows, self._lengths_N)
        for first in range(start, end, _SORTED * B):
            chunk = order_R[first : min(first + _SORTED * B, end)]
            chunk[:] = chunk[np.argsort(length_R[chunk], kind="stable")]
        order_R[start:end] = rng.permutation(order_R[start:end].reshape(-1, B)).ravel()
        return rows, order_R


# What is in it ------------------------------------------------------------------------------------------------------


def _made(kind: str, examples: Sequence[Example], data: DataConfig, held: list[np.ndarray], pad: int) -> Batch:
    """The batch of rows with these examples."""
    longest = max((sum(len(examples[e].tokens) for e in row) for row in held), default=0)
    length = next(length for length in data.row_lengths if length >= longest)
    fields = batch.labelled(kind, data, rows=len(held), length=length)
    arrays: Batch = {name: np.zeros(field.shape, field.dtype) for name, field in fields.items()}
    arrays["tokens"].fill(pad)
    arrays["numbers"].fill(-1)
    for i, row in enumerate(held):
        start = 0
        for k, number in enumerate(row.tolist()):
            example = examples[number]
            end = start + len(example.tokens)
            arrays["tokens"][i, start:end] = example.tokens
            arrays["segments"][i, start:end] = k + 1
            arrays["positions"][i, start:end] = np.arange(end - start)
            arrays["token_types"][i, start:end] = example.token_types
            arrays["pair_positions"][i, k] = start
            _write_label(kind, arrays, i, k, start, number, example)
            start = end
    return arrays


def _write_label(kind: str, arrays: Batch, i: int, k: int, start: int, number: int, example: Example) -> None:
    labels, weights = arrays["labels"], arrays["label_weights"]
    if kind == "tag":
        told = example.labels >= 0
        within = slice(start, start + len(told))
        labels[i, within], weights[i, within] = np.where(told, example.labels, 0), told
    elif kind == "span" and example.span is not None:
        labels[i, k], weights[i, k] = (start + example.span[0], start + example.span[1]), 1.0
    elif kind == "regress" and not np.isnan(example.label):
        labels[i, k], weights[i, k] = example.label, 1.0
    elif kind in ("classify", "choice") and example.label >= 0:
        k = 0 if kind == "choice" else k
        labels[i, k], weights[i, k] = example.label, 1.0
    if kind == "choice":
        arrays["numbers"][i, 0] = example.record
    else:
        arrays["numbers"][i, k] = number
