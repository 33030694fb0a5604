"""The input pipeline: a prepared data set becomes an endless stream of batches (`bertjax.batch`).

The rows of a run are numbered. What row r holds is a function of (data set, config, seed, r): its epoch, its examples,
and all that is random in them, drawn from a generator keyed by (seed, source, epoch, example). So the state of the
stream is one integer, the next row, and hosts, processes, threads and restarts change nothing in it. An epoch holds
each example once.

Shape letters, beside those of `bertjax.batch`: N examples of an epoch, R rows of an epoch, n tokens of one example.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import grain
import numpy as np
from absl import flags
from grain.experimental import index_shuffle

from bertjax import batch
from bertjax.config.schema import DataConfig
from bertjax.data import dataset
from bertjax.data.examples import Example, Pairs, Plan, build, plan
from bertjax.data.masking import Scheme, budgets, mask, scheme
from bertjax.data.packing import Rows, density, fill, pack
from bertjax.errors import DataError

if TYPE_CHECKING:
    from bertjax.data.dataset import Prepared, Split
    from bertjax.data.tokenizer import Special, Tokenizer

Batch = dict[str, np.ndarray]

# The two streams of random numbers of an example: a change to one leaves the draws of the other as they are.
_PAIR, _MASK = 0, 1

_PARENTS_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # what a signal to the whole group means is the parent's to say


def train_batches(
    data: DataConfig,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    seed: int,
    start_row: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> grain.DatasetIterator[Batch]:
    """Endless training batches from row `start_row` of the run on, which costs the same wherever that is.

    Host `host` of `hosts` gets its share of the rows of each batch, in order. `close()` the iterator, or drop it, to
    stop its threads and processes. An epoch has `epoch_rows` rows; batches cross its end.

    Raises DataError if the tokenizer or the training split cannot be used, and whatever reading a document raises.
    """
    make = train_maker(data, prepared, tokenizer, seed=seed, start_row=start_row, host=host, hosts=hosts)
    return _iterate(data, grain.MapDataset.range(sys.maxsize).map(make))


def train_maker(
    data: DataConfig,
    prepared: Prepared,
    tokenizer: Tokenizer,
    *,
    seed: int,
    start_row: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> Callable[[int], Batch]:
    """The function from number to batch that `train_batches` calls ahead of its use, in threads and processes."""
    check(prepared, tokenizer)
    share = _Share(start_row, sys.maxsize, host, hosts)
    return _Batches.of(data, prepared, prepared.train, tokenizer, seed, share)


def eval_batches(
    data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, rows: int
) -> Iterator[Batch]:
    """Batches of the first `rows` held-out rows, or all, in one shuffled order with masks that never change.

    The last batch is filled with rows of padding, whose weights are 0.

    Raises DataError if the tokenizer or the validation split cannot be used, and whatever reading a document raises.
    """
    check(prepared, tokenizer)
    data = replace(data, loader_workers=0, mix=())  # short, and of all held-out documents
    rows = min(rows, epoch_rows(data, prepared.validation, seed=seed))
    make = _Batches.of(data, prepared, prepared.validation, tokenizer, seed, _Share(0, rows, 0, 1))
    return _iterate(data, grain.MapDataset.range(-(-rows // data.batch_size)).map(make))


def epoch_rows(data: DataConfig, split: Split, *, seed: int) -> int:
    """Rows of one epoch, over all sources. Raises DataError if the split gives none."""
    return sum(source.rows_per_epoch for source in sources(data, split, seed))


def packing_density(data: DataConfig, split: Split, *, seed: int) -> float:
    """Real tokens over slots of the rows of one epoch."""
    planned = sources(data, split, seed)
    densities = [density(source.plan.lengths_N, source.rows, data.seq_len) for source in planned]
    return float(np.average(densities, weights=[source.rows_per_epoch for source in planned]))


def check(prepared: Prepared, tokenizer: Tokenizer) -> None:
    """Raises DataError if the data set was made with another tokenizer: its ids would mean other words."""
    if prepared.tokenizer_digest != tokenizer.digest:
        raise DataError(
            f"the data set was prepared with tokenizer {prepared.tokenizer_digest[:8]}, but data.tokenizer is"
            f" {tokenizer.digest[:8]}; set data.tokenizer to the one it was prepared with, or prepare it again"
        )


# Which examples a row holds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """The documents of one entry of data.source, or of all of them, planned into examples and rows."""

    plan: Plan
    rows: Rows
    rows_per_epoch: int
    split: Split
    first_token: int

    def tokens(self, start: int, end: int) -> np.ndarray:
        """Those of the split, counted from the source's first."""
        return self.split.tokens(self.first_token + start, self.first_token + end)


def sources(data: DataConfig, split: Split, seed: int) -> list[Source]:
    """The plan of an epoch: a source for each share of data.mix, or one of all documents.

    Raises DataError, naming what is empty.
    """
    documents = split.source_documents if data.mix else (len(split.document_offsets) - 1,)
    if data.mix and len(documents) != len(data.mix):
        raise DataError(f"data.mix = {data.mix}: the data set has {len(documents)} sources; name a share for each")
    found, first = [], 0
    for number, count in enumerate(documents):
        name = f"the {split.name} split of source {number + 1}" if data.mix else f"the {split.name} split"
        offsets = split.document_offsets[first : first + count + 1]
        found.append(_source(data, split, offsets, name, seed))
        first += count
    return found


def _source(data: DataConfig, split: Split, offsets: np.ndarray, name: str, seed: int) -> Source:
    start = int(split.sentence_lengths[: offsets[0]].sum(dtype=np.int64))
    try:
        planned = plan(offsets - offsets[0], split.sentence_lengths[offsets[0] : offsets[-1]], data, seed=seed)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not len(planned):
        fix = "raise data.holdout" if split.name == "validation" else "name a larger corpus or lower data.holdout"
        raise DataError(f"data.holdout = {data.holdout}: {name} has no text; {fix} and prepare it again")
    rows = pack(planned.lengths_N, row_length=data.seq_len, most=data.packing, seed=seed)
    if data.packing > 1 and isinstance(planned, Pairs):
        shape = {"row_length": data.seq_len, "most": data.packing}
        cuts, rows = fill(rows, planned.lengths_N, planned.first_N1, planned.piece_starts_P1, **shape)
        planned = planned.recut(cuts)
    count = len(rows.first_R1) - 1
    if data.buckets:
        count = -(-count // data.batch_size) * data.batch_size  # whole batches, each of one length
    return Source(planned, rows, count, split, start)


class _Stream:
    """All rows of a run by their numbers."""

    def __init__(self, data: DataConfig, split: Split, seed: int) -> None:
        self._data, self.sources = data, sources(data, split, seed)
        # Hashed, because epoch e is shuffled by seed + e: with the seed as it is, the second epoch of seed 0 would have
        # the order of the first of seed 1.
        self._seed, *self.key = np.random.SeedSequence(seed).generate_state(3).tolist()
        self._bucketed = lru_cache(maxsize=2)(self._bucket_order)

    def row(self, number: int) -> tuple[int, int, np.ndarray]:
        """(source, epoch, its examples) of row `number`; no example in a row that fills up a batch."""
        source, number = _deal(number, self._data.mix)
        R = self.sources[source].rows_per_epoch
        epoch, at = divmod(number, R)
        if self._data.buckets:
            index = int(self._bucketed(epoch)[at])
            if index < 0:
                return source, epoch, np.zeros(0, np.int64)
        else:
            index = index_shuffle(at, max_index=R - 1, seed=(self._seed + epoch) % 2**32, rounds=4)
        rows = self.sources[source].rows
        return source, epoch, rows.example_N[rows.first_R1[index] : rows.first_R1[index + 1]]

    def length(self, number: int) -> int:
        """Row length of the batch that begins with row `number`."""
        if not self._data.buckets:
            return self._data.seq_len
        longest = 0
        for row in range(number, number + self._data.batch_size):
            source, _, examples = self.row(row)
            longest = max(longest, *self.sources[source].plan.lengths_N[examples].tolist(), 0)
        return next(length for length in self._data.row_lengths if length >= longest)

    def _bucket_order(self, epoch: int) -> np.ndarray:
        """Examples of an epoch in the order of its rows, -1 for padding: shuffled, cut into batches by their bucket.

        What is left of a bucket goes into a batch of the next larger one, so that at most one batch has padding rows.
        """
        source, B = self.sources[0], self._data.batch_size
        rng = np.random.default_rng((self._seed, epoch))
        shuffled = rng.permutation(len(source.plan))
        bucket = np.searchsorted(self._data.row_lengths, source.plan.lengths_N[shuffled])
        order = np.full(source.rows_per_epoch, -1, np.int64)
        order[: len(shuffled)] = shuffled[np.argsort(bucket, kind="stable")]
        return rng.permutation(order.reshape(-1, B)).reshape(-1)


def _deal(number: int, shares: tuple[float, ...]) -> tuple[int, int]:
    """(source, its how manieth row) of row `number`: each source gets its share of every stretch of rows, evenly."""
    source = 0
    while source < len(shares) - 1:
        share = shares[source] / sum(shares[source:])
        dealt = math.floor(number * share)
        if math.floor((number + 1) * share) > dealt:
            return source, dealt
        number, source = number - dealt, source + 1
    return source, number


# Batches -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Share:
    """Which rows one host makes: those of its part of each batch from row `start` on; from row `end` on padding."""

    start: int
    end: int
    host: int
    hosts: int


class _Batches:
    """Batch k of a host: a function that can be sent to a loader process, which opens the data set for itself."""

    def __init__(
        self, data: DataConfig, directory: Any, split: str, masking: Scheme, special: Special, seed: int, share: _Share
    ) -> None:
        self._recipe = (data, directory, split, masking, special, seed, share)
        self._data, self._directory, self._split, self._masking, self._special, self._seed, self._share = self._recipe
        self._opened: _Stream | None = None
        self._opening, self._local = threading.Lock(), threading.local()
        self._arange = np.arange(data.seq_len, dtype=np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Batches, self._recipe

    @classmethod
    def of(
        cls, data: DataConfig, prepared: Prepared, split: Split, tokenizer: Tokenizer, seed: int, share: _Share
    ) -> _Batches:
        """With the data set already open, for use in this process."""
        masking = scheme(data, tokenizer, prepared.token_counts)
        batches = cls(data, prepared.directory, split.name, masking, tokenizer.special, seed, share)
        batches._opened = _Stream(data, split, seed)  # here, so that a split without examples is refused at once
        return batches

    def _stream(self) -> _Stream:
        with self._opening:
            if self._opened is None:
                self._opened = _Stream(self._data, getattr(dataset.load(self._directory), self._split), self._seed)
            return self._opened

    def _generator(self, stream: int, source: int, epoch: int, example: int) -> np.random.Generator:
        """The generator keyed by these numbers. One object a thread, set anew: an eighth of the time of a new one.

        Philox enciphers a counter, so the numbers under one key never meet; the counter's first word counts draws.
        """
        local = self._local
        if not hasattr(local, "philox"):
            # The words of the key are of 32 bits: numpy rounds lists of integers above 2^63 to floating point.
            local.philox = np.random.Philox(key=self._stream().key)
            local.state, local.generator = local.philox.state, np.random.Generator(local.philox)
        local.state["state"]["counter"][:] = (0, 2 * source + stream, epoch, example)
        local.philox.state = local.state
        return local.generator

    def __call__(self, number: int) -> Batch:
        share, stream, B = self._share, self._stream(), self._data.batch_size
        first, local = share.start + number * B, B // share.hosts
        L = stream.length(first)
        fields = batch.spec(self._data, rows=local, length=L)
        arrays: Batch = {name: np.zeros(field.shape, field.dtype) for name, field in fields.items()}
        arrays["tokens"].fill(self._special.pad)
        for i in range(local):
            row = first + share.host * local + i
            if row < share.end:
                self._fill(arrays, i, *stream.row(row))
        return arrays

    def _fill(self, arrays: Batch, i: int, source: int, epoch: int, examples: np.ndarray) -> None:
        """Write the examples into row i, one behind the other."""
        chosen = self._stream().sources[source]
        numbers = examples.tolist()
        built: list[Example] = [
            build(chosen.plan, e, chosen, self._generator(_PAIR, source, epoch, e), special=self._special)
            for e in numbers
        ]
        counts = budgets(self._masking, [len(example.tokens_L) for example in built], self._data.max_predictions)
        start = slot = 0
        for k, (number, example, count) in enumerate(zip(numbers, built, counts, strict=True)):
            rng = self._generator(_MASK, source, epoch, number)
            masked = mask(example.tokens_L, rng, self._masking, count)
            end, after = start + len(masked.tokens_n), slot + len(masked.positions_k)
            arrays["tokens"][i, start:end] = masked.tokens_n
            arrays["segments"][i, start:end] = k + 1
            arrays["positions"][i, start:end] = self._arange[: end - start]
            arrays["token_types"][i, start:end] = example.token_types_L
            arrays["mlm_positions"][i, slot:after] = masked.positions_k + start
            arrays["mlm_labels"][i, slot:after] = masked.labels_k
            arrays["mlm_weights"][i, slot:after] = 1.0
            arrays["pair_positions"][i, k] = start
            arrays["pair_labels"][i, k] = example.pair_label
            arrays["pair_weights"][i, k] = example.pair_weight
            start, slot = end, after


def _iterate(data: DataConfig, batches: grain.MapDataset[Batch]) -> grain.DatasetIterator[Batch]:
    """Batches in order, built ahead: a thread makes whole batches, to hand over rarely."""
    options = grain.ReadOptions(num_threads=data.loader_threads, prefetch_buffer_size=2 * data.loader_threads)
    iterable = batches.to_iter_dataset(options)
    if data.loader_workers:
        if not flags.FLAGS.is_parsed():  # grain reads some of its own, which raises unless a program parsed its flags
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=data.loader_workers)
        iterable = iterable.mp_prefetch(processes, worker_init_fn=_start_worker)
    iterator = iter(iterable)
    if data.loader_workers:
        # Started here, with the signals blocked: the processes inherit that, and a signal to the group that comes while
        # one of them is still importing does not end it. Python's resource tracker first: its start unblocks them.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
        try:
            iterator.get_state()  # makes what is started below; else all would start with the first batch, unshielded
            iterator.start_prefetch()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return iterator


def _start_worker(number: int, count: int) -> None:
    """A loader process lives as long as its parent: a signal to the whole group is the parent's to answer."""
    for signal_number in _PARENTS_SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]  # else workers outlive a killed parent
    os._exit(1)
