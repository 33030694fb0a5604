"""Batches from rows: the arrays of `bertjax.batch`, and all that is random in them.

What is drawn for an example comes from a generator keyed by (seed, source, epoch, example), so that batch k is the same
whoever makes it, and whenever.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bertjax import batch
from bertjax.config.schema import DataConfig
from bertjax.data import dataset
from bertjax.data.dataset import Prepared, Split
from bertjax.data.examples import Example, Stream, build
from bertjax.data.masking import Scheme, budgets, mask, scheme
from bertjax.data.order import Order, epoch_rows
from bertjax.data.tokenizer import Special, Tokenizer

Batch = dict[str, np.ndarray]

STAGES = _READING, _MAKING, _MASKING, _LAYING_OUT = "reading records", "making examples", "masking", "laying out rows"
"""What the time of a batch goes into."""

Timer = Callable[[str], None]
"""Told the name of a stage as it begins: the time until the next call is spent in it."""

# The two kinds of random numbers of an example: a change to one leaves the draws of the other as they are.
_PAIR, _MASK = 0, 1


@dataclass(frozen=True)
class Share:
    """Which rows a process makes: those numbers of each batch (None = all) from row `start` on; from row `end` on
    padding.
    """

    start: int = 0
    end: int = sys.maxsize
    rows: tuple[int, ...] | None = None


ALL_ROWS = Share()


@dataclass(frozen=True)
class Course:
    """The rows over which the mask rate changes: `rows` in all, `before` of them before row 0."""

    before: int = 0
    rows: int = sys.maxsize

    def done(self, row: int) -> float:
        """The share of the course that is over at a row, from 0 to 1."""
        return min((self.before + row) / self.rows, 1.0)


NO_COURSE = Course()


def train_maker(
    data: DataConfig,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    seed: int,
    course: Course = NO_COURSE,
    share: Share = ALL_ROWS,
    timer: Timer | None = None,
) -> Callable[[int], Batch]:
    """The function from k to batch k of the training rows of `share`: safe for threads, unless it has a `timer`.

    Over the `course`, `data.mask_rate` becomes `data.final_mask_rate`.

    It can be sent to another process, which opens the data set for itself and has no timer. It raises whatever reading
    a document raises. Raises DataError itself if the tokenizer or the training split cannot be used.
    """
    return _maker(data, prepared, prepared.train, tokenizer, seed, course, share, timer)


def eval_maker(
    data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, rows: int
) -> tuple[Callable[[int], Batch], int]:
    """The function from k to batch k of the first `rows` held-out rows, or of all, and how many batches they are.

    The rows are those of the first epoch, so that order and masks never change; the last batch is filled with rows of
    padding. Raises as `train_maker`.
    """
    # Of all held-out documents, and always masked as the last rows of a run are.
    data = replace(data, mix=(), mask_rate=data.last_mask_rate)
    rows = min(rows, epoch_rows(data, prepared.validation, seed=seed))
    make = _maker(data, prepared, prepared.validation, tokenizer, seed, NO_COURSE, Share(end=rows))
    return make, -(-rows // data.batch_size)


class Draws:
    """The generators of a run: one for each kind of choice, source, epoch and example. Safe for threads."""

    def __init__(self, key: list[int]) -> None:
        """`key` is two words of 32 bits: numpy rounds lists of integers above 2^63 to floating point."""
        self._key, self._local = key, threading.local()

    def generator(self, kind: int, source: int, epoch: int, example: int) -> np.random.Generator:
        """The generator of these numbers, valid until this thread asks for the next.

        One object a thread, set anew, which takes an eighth of the time of a new one. Philox enciphers a counter, so
        that the numbers under one key never meet; the first word of the counter counts draws.
        """
        local = self._local
        if not hasattr(local, "philox"):
            local.philox = np.random.Philox(key=self._key)
            local.state, local.generator = local.philox.state, np.random.Generator(local.philox)
        local.state["state"]["counter"][:] = (0, 2 * source + kind, epoch, example)
        local.philox.state = local.state
        return local.generator


@dataclass(frozen=True)
class _Recipe:
    """All that decides what the batches hold; another process makes the same ones from it."""

    data: DataConfig
    directory: Path
    split: str
    masking: Scheme
    special: Special
    seed: int
    course: Course
    share: Share


def _maker(
    data: DataConfig,
    prepared: Prepared,
    split: Split,
    tokenizer: Tokenizer,
    seed: int,
    course: Course,
    share: Share,
    timer: Timer | None = None,
) -> "_Maker":
    dataset.check_tokenizer(prepared, tokenizer)
    masking = scheme(data, tokenizer, prepared.token_counts)
    recipe = _Recipe(data, prepared.directory, split.name, masking, tokenizer.special, seed, course, share)
    return _Maker(recipe, split, timer)


class _Maker:
    """Batch k of a process. Without a `split` it opens the data set when it is first called."""

    def __init__(self, recipe: _Recipe, split: Split | None = None, timer: Timer | None = None) -> None:
        self._recipe, self._timer, self._begin = recipe, timer, timer or _untimed
        self._opening = threading.Lock()
        # At once where that can be done, so that a split without examples is refused before the first batch.
        self._opened = self._planned(split) if split else None
        self._arange = np.arange(recipe.data.seq_len, dtype=np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Maker, (self._recipe,)

    def _planned(self, split: Split) -> tuple[Order, Draws]:
        order = Order(self._recipe.data, split, self._recipe.seed)
        return order, Draws(order.key)

    def _open(self) -> tuple[Order, Draws]:
        with self._opening:
            if self._opened is None:
                prepared = dataset.load(self._recipe.directory)
                self._opened = self._planned(getattr(prepared, self._recipe.split))
            return self._opened

    def __call__(self, number: int) -> Batch:
        self._begin(_LAYING_OUT)
        data, share, (order, draws) = self._recipe.data, self._recipe.share, self._open()
        B = data.batch_size
        first, own = share.start + number * B, range(B) if share.rows is None else share.rows
        L = order.length(first)
        fields = batch.spec(data, rows=len(own), length=L)
        arrays: Batch = {name: np.zeros(field.shape, field.dtype) for name, field in fields.items()}
        arrays["tokens"].fill(self._recipe.special.pad)
        for i, at in enumerate(own):
            if first + at < share.end:
                self._fill(arrays, i, order, draws, first + at)
        return arrays

    def _fill(self, arrays: Batch, i: int, order: Order, draws: Draws, row: int) -> None:
        """Write the examples of a row into row i, one behind the other."""
        source, epoch, examples = order.row(row)
        numbers, chosen, recipe = examples.tolist(), order.sources[source], self._recipe
        stream = _TimedStream(chosen, self._timer) if self._timer else chosen
        self._begin(_MAKING)
        built: list[Example] = [
            build(chosen.plan, e, stream, draws.generator(_PAIR, source, epoch, e), special=recipe.special)
            for e in numbers
        ]
        self._begin(_MASKING)
        lengths, done = [len(example.tokens_L) for example in built], recipe.course.done(row)
        counts = budgets(recipe.masking, lengths, recipe.data.max_predictions, done)
        masked = [
            mask(example.tokens_L, draws.generator(_MASK, source, epoch, e), recipe.masking, count)
            for e, example, count in zip(numbers, built, counts, strict=True)
        ]
        self._begin(_LAYING_OUT)
        start = slot = 0
        for k, (example, shown) in enumerate(zip(built, masked, strict=True)):
            end, after = start + len(shown.tokens_n), slot + len(shown.positions_k)
            arrays["tokens"][i, start:end] = shown.tokens_n
            arrays["segments"][i, start:end] = k + 1
            arrays["positions"][i, start:end] = self._arange[: end - start]
            arrays["token_types"][i, start:end] = example.token_types_L
            arrays["mlm_positions"][i, slot:after] = shown.positions_k + start
            arrays["mlm_labels"][i, slot:after] = shown.labels_k
            arrays["mlm_weights"][i, slot:after] = 1.0
            arrays["pair_positions"][i, k] = start
            arrays["pair_labels"][i, k] = example.pair_label
            arrays["pair_weights"][i, k] = example.pair_weight
            start, slot = end, after


class _TimedStream:
    """A stream whose reads are told to the timer."""

    def __init__(self, stream: Stream, timer: Timer) -> None:
        self._stream, self._timer = stream, timer

    def tokens(self, start: int, end: int) -> np.ndarray:
        self._timer(_READING)
        tokens = self._stream.tokens(start, end)
        self._timer(_MAKING)
        return tokens


def _untimed(stage: str) -> None:
    pass
