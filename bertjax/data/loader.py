"""The loader: batches made ahead of their use, in threads or processes, by grain."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import grain
from absl import flags

from bertjax.config.schema import DataConfig
from bertjax.data import workers
from bertjax.data.batches import Batch, Share, eval_maker, train_maker
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer


def train_batches(
    data: DataConfig,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    seed: int,
    run_rows: int = sys.maxsize,
    start_row: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator[Batch]:
    """Endless training batches from row `start_row` of the run on, which costs the same wherever that is; of its
    `run_rows` rows depend the masks, where their rate changes over a run (`data.final_mask_rate`).

    Host `host` of `hosts` gets its share of the rows of each batch, in order. `close()` the iterator, or drop it, to
    stop its threads and processes. An epoch has `order.epoch_rows` rows; batches cross its end.

    Raises DataError if the tokenizer or the training split cannot be used, and whatever reading a document raises.
    """
    share = Share(start_row, host=host, hosts=hosts)
    make = train_maker(data, prepared, tokenizer, seed=seed, run_rows=run_rows, share=share)
    return _iterate(data, make, sys.maxsize)


def eval_batches(
    data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, rows: int
) -> Iterator[Batch]:
    """Batches of the first `rows` held-out rows, or of all, in one shuffled order with masks that never change.

    The last batch is filled with rows of padding, whose weights are 0.

    Raises DataError if the tokenizer or the validation split cannot be used, and whatever reading a document raises.
    """
    data = replace(data, loader_workers=0)  # too short to be worth starting processes
    return _iterate(data, *eval_maker(data, prepared, tokenizer, seed=seed, rows=rows))


def _iterate(data: DataConfig, make: Callable[[int], Batch], count: int) -> grain.DatasetIterator[Batch]:
    """Batches 0 to `count` in order, made ahead: a thread makes whole batches, so that it rarely hands one over."""
    options = grain.ReadOptions(num_threads=data.loader_threads, prefetch_buffer_size=2 * data.loader_threads)
    iterable = grain.MapDataset.range(count).map(make).to_iter_dataset(options)
    if not data.loader_workers:
        return iter(iterable)
    if not flags.FLAGS.is_parsed():  # grain reads some of its own, which raises unless a program parsed its flags
        flags.FLAGS.mark_as_parsed()
    processes = grain.MultiprocessingOptions(num_workers=data.loader_workers)
    iterator = iter(iterable.mp_prefetch(processes, worker_init_fn=_begin))
    with workers.shielded():
        iterator.get_state()  # makes what is started below; else all would start with the first batch, unshielded
        iterator.start_prefetch()
    return iterator


def _begin(number: int, count: int) -> None:
    workers.begin(workers.SIGNALS)
