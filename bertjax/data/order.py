"""The order of a run: which examples its row number r holds.

Rows are numbered from 0 to the end of the run. What row r holds is a function of (data set, config, seed, r), so the
state of training data is one integer, the next row, and hosts, processes, threads and restarts change nothing in it.
An epoch holds each example once and has an order of its own. A run of several phases has such an order in each, with
rows from 0 and a seed of its own.

Shape letters: N examples of an epoch, R rows of an epoch, B rows of a batch.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data.dataset import Split
from bertjax.data.packing import Rows, density, fill, pack
from bertjax.data.planning import Pairs, Plan, plan
from bertjax.errors import DataError


def seed_of_phase(seed: int, number: int) -> int:
    """The seed of the order and the masks in a phase of a run with this seed; the first phase, 1, has that itself."""
    return seed if number == 1 else int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


@dataclass(frozen=True)
class Source:
    """The documents of one entry of data.source, or of all of them, planned into examples and rows."""

    plan: Plan
    rows: Rows
    rows_per_epoch: int
    split: Split
    first_token: int

    def tokens(self, start: int, end: int) -> np.ndarray:
        """int32 [end - start] tokens of the split, numbered from the first token of the source."""
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


def epoch_rows(data: DataConfig, split: Split, *, seed: int) -> int:
    """Rows of one epoch, over all sources. Raises DataError if the split gives none."""
    return sum(source.rows_per_epoch for source in sources(data, split, seed))


def packing_density(data: DataConfig, split: Split, *, seed: int) -> float:
    """The share of the positions of the rows of one epoch that hold a token."""
    planned = sources(data, split, seed)
    densities = [density(source.plan.lengths_N, source.rows, data.seq_len) for source in planned]
    return float(np.average(densities, weights=[source.rows_per_epoch for source in planned]))


class Order:
    """All rows of a run by their numbers. Raises DataError as `sources` does."""

    def __init__(self, data: DataConfig, split: Split, seed: int) -> None:
        from grain.experimental import index_shuffle  # here: preparing, which counts examples, does without grain

        self._shuffled = index_shuffle
        self._data, self.sources = data, sources(data, split, seed)
        # Hashed, because epoch e is shuffled by seed + e: with the seed as it is, the second epoch of seed 0 would have
        # the order of the first of seed 1.
        self._seed, *self.key = np.random.SeedSequence(seed).generate_state(3).tolist()
        self._bucketed = lru_cache(maxsize=2)(self._bucket_order)

    def row(self, number: int) -> tuple[int, int, np.ndarray]:
        """(source, epoch, its examples) of row `number`; no example in a row that fills up a batch."""
        source, number = deal(number, self._data.mix)
        R = self.sources[source].rows_per_epoch
        epoch, at = divmod(number, R)
        if self._data.buckets:
            index = int(self._bucketed(epoch)[at])
            if index < 0:
                return source, epoch, np.zeros(0, np.int64)
        else:
            index = self._shuffled(at, max_index=R - 1, seed=(self._seed + epoch) % 2**32, rounds=4)
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
        """int64 [R] examples of an epoch in the order of its rows, -1 for padding: shuffled, then each batch from one
        bucket.

        What is left of a bucket goes into a batch of the next larger one, so that at most one batch has padding rows.
        """
        source, B = self.sources[0], self._data.batch_size
        rng = np.random.default_rng((self._seed, epoch))
        permuted_N = rng.permutation(len(source.plan))
        bucket_N = np.searchsorted(self._data.row_lengths, source.plan.lengths_N[permuted_N])
        order_R = np.full(source.rows_per_epoch, -1, np.int64)
        order_R[: len(permuted_N)] = permuted_N[np.argsort(bucket_N, kind="stable")]
        return rng.permutation(order_R.reshape(-1, B)).reshape(-1)


def deal(number: int, shares: tuple[float, ...]) -> tuple[int, int]:
    """The source of row `number`, and which of the rows of that source it is, counted from 0.

    Every stretch of rows has each source in its share, to within a row or so. Without shares there is one source.
    """
    source = 0
    while source < len(shares) - 1:
        share = shares[source] / sum(shares[source:])
        dealt = math.floor(number * share)
        if math.floor((number + 1) * share) > dealt:
            return source, dealt
        number, source = number - dealt, source + 1
    return source, number
