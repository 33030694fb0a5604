"""The loader: batches made ahead of their use, in threads by grain, or in processes that do the same."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import grain

from bertjax.config.schema import DataConfig
from bertjax.data.batches import NO_COURSE, Batch, Course, Share, eval_maker, train_maker
from bertjax.data.dataset import Prepared
from bertjax.data.processes import Processes
from bertjax.data.tokenizer import Tokenizer


class Batches(Protocol):
    """An iterator of batches, whose threads and processes end when it is closed or dropped."""

    def __iter__(self) -> "Batches": ...

    def __next__(self) -> Batch: ...

    def close(self) -> None:
        """End what makes the batches."""


def train_batches(
    data: DataConfig,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    seed: int,
    course: Course = NO_COURSE,
    start_row: int = 0,
    rows: tuple[int, ...] | None = None,
) -> Batches:
    """Endless training batches from row `start_row` of the run on, which costs the same wherever that is; over
    the `course`, `data.mask_rate` becomes `data.final_mask_rate`.

    With `rows`, only those of each batch, by their numbers in it: the share of one of several processes. `close()` the
    iterator, or drop it, to stop its threads and processes. An epoch has `order.epoch_rows` rows; batches cross its
    end.

    Raises DataError if the tokenizer or the training split cannot be used, and whatever reading a document raises;
    WorkerError if one of its processes has died, or takes longer than `data.loader_timeout` for a batch.
    """
    share = Share(start_row, rows=rows)
    make = train_maker(data, prepared, tokenizer, seed=seed, course=course, share=share)
    return _iterate(data, make, sys.maxsize)


def eval_batches(data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, rows: int) -> Batches:
    """Batches of the first `rows` held-out rows, or of all, in one shuffled order with masks that never change.

    The last batch is filled with rows of padding, whose weights are 0.

    Raises DataError if the tokenizer or the validation split cannot be used, and whatever reading a document raises.
    """
    data = replace(data, loader_workers=0)  # too short to be worth starting processes
    return _iterate(data, *eval_maker(data, prepared, tokenizer, seed=seed, rows=rows))


def _iterate(data: DataConfig, make: Callable[[int], Batch], count: int) -> Batches:
    """Batches 0 to `count` in order, made ahead; `count` is not reached where processes make them."""
    ahead = partial(_ahead, make, data.loader_threads, count)
    if not data.loader_workers:
        return ahead(0, 1)
    return Processes(ahead, count=data.loader_workers, patience=data.loader_timeout)


def _ahead(make: Callable[[int], Batch], threads: int, count: int, first: int, every: int) -> Batches:
    """Batches `first`, `first + every`, ... below `count`. Threads make whole ones, and so rarely hand one over."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(grain.MapDataset.range(first, count, every).map(make).to_iter_dataset(options))
