"""The input pipeline: a prepared data set becomes an endless stream of batches (`bertjax.batch`).

The rows of a run are numbered. Row r is example p(r mod N) of epoch r div N, where p is that epoch's permutation of the
N examples, and whatever is random in it is drawn from a generator keyed by (seed, epoch, example). So the state of the
stream is one integer, the next row, and threads, batch size and restarts change nothing in it.

Shape letters, beside those of `bertjax.batch`: N examples of an epoch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grain
import numpy as np

from bertjax import batch
from bertjax.config import DataConfig
from bertjax.data.examples import Chunks, Example, build, plan
from bertjax.data.masking import Masked, mask_tokens
from bertjax.errors import DataError

if TYPE_CHECKING:
    from bertjax.data.dataset import Prepared, Split
    from bertjax.data.tokenizer import Special, Tokenizer

Row = dict[str, np.ndarray]

# The two streams of random numbers of an example: a change to one leaves the draws of the other as they are.
_PAIR, _MASK = 0, 1


def train_batches(
    data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, start_row: int = 0
) -> grain.DatasetIterator[Row]:
    """Endless training batches from row `start_row` of the run on, which costs the same wherever that is.

    `close()` the iterator, or drop it, to stop its threads. An epoch has `num_examples` rows; batches cross its end.

    Raises DataError if the tokenizer or the training split cannot be used, and whatever reading a document raises.
    """
    check(prepared, tokenizer)
    chunks = _plan(data, prepared.train, seed)
    rows = _rows(data, chunks, prepared.train, tokenizer, seed)
    return _batches(data, rows[start_row:])


def eval_batches(
    data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, rows: int
) -> grain.DatasetIterator[Row]:
    """Batches of the first `rows` held-out examples, or all, in one shuffled order with masks that never change.

    The last batch is filled with rows of padding, whose weights are 0.

    Raises DataError if the tokenizer or the validation split cannot be used, and whatever reading a document raises.
    """
    check(prepared, tokenizer)
    chunks = _plan(data, prepared.validation, seed)
    examples = _rows(data, chunks, prepared.validation, tokenizer, seed)[: min(rows, len(chunks))]
    padding = _padding(data, tokenizer.special)
    full = -(-len(examples) // data.batch_size) * data.batch_size
    return _batches(data, grain.MapDataset.range(full).map(lambda r: examples[r] if r < len(examples) else padding))


def num_examples(data: DataConfig, split: Split, *, seed: int) -> int:
    """Examples of one epoch: rows until the stream begins to repeat. Raises DataError if the split gives none."""
    return len(_plan(data, split, seed))


def check(prepared: Prepared, tokenizer: Tokenizer) -> None:
    """Raises DataError if the data set was made with another tokenizer: its ids would mean other words."""
    if prepared.tokenizer_digest != tokenizer.digest:
        raise DataError(
            f"the data set was prepared with tokenizer {prepared.tokenizer_digest[:8]}, but data.tokenizer is"
            f" {tokenizer.digest[:8]}; set data.tokenizer to the one it was prepared with, or prepare it again"
        )


def _plan(data: DataConfig, split: Split, seed: int) -> Chunks:
    """The examples of an epoch. Raises DataError, naming the split, if there can be none."""
    try:
        chunks = plan(
            split.document_offsets,
            split.sentence_lengths,
            seq_len=data.seq_len,
            pair=data.pair,
            short_seq_prob=data.short_seq_prob,
            seed=seed,
        )
    except DataError as error:
        raise DataError(f"{split.name} split: {error}") from None
    if not len(chunks):
        fix = "raise data.holdout" if split.name == "validation" else "name a larger corpus or lower data.holdout"
        raise DataError(
            f"data.holdout = {data.holdout}: the {split.name} split has no text; {fix} and prepare it again"
        )
    return chunks


def _rows(data: DataConfig, chunks: Chunks, split: Split, tokenizer: Tokenizer, seed: int) -> grain.MapDataset[Row]:
    """Row r of the run, for every r: all the randomness of the pipeline is decided here."""
    N = len(chunks)
    # Hashed, because grain shuffles epoch e by seed + e: with the seed as it is, the second epoch of seed 0 would have
    # the order of the first of seed 1.
    shuffle_seed, *key = np.random.SeedSequence(seed).generate_state(3).tolist()
    padding = _padding(data, tokenizer.special)

    def row(number: int, index: int) -> Row:
        generator = partial(_generator, key, number // N, index)
        example = build(
            chunks, index, split, generator(_PAIR), pair=data.pair, seq_len=data.seq_len, special=tokenizer.special
        )
        masked = mask_tokens(
            example.tokens_L,
            generator(_MASK),
            mask_rate=data.mask_rate,
            max_predictions=data.max_predictions,
            special=tokenizer.special,
            vocab_size=tokenizer.vocab_size,
        )
        return _row(padding, example, masked)

    order = grain.MapDataset.range(N).shuffle(seed=shuffle_seed).repeat()
    return order.map_with_index(row)


def _generator(key: list[int], epoch: int, index: int, stream: int) -> np.random.Generator:
    """Philox enciphers a counter, so the numbers under one key never meet; the counter's first word counts draws.

    The two words of `key` are of 32 bits: numpy rounds lists of integers above 2^63 to floating point.
    """
    return np.random.Generator(np.random.Philox(key=key, counter=(0, stream, epoch, index)))


def _padding(data: DataConfig, special: Special) -> Row:
    """A row of padding: nothing to attend to, nothing to predict."""
    row: Row = {name: np.zeros(field.shape[1:], field.dtype) for name, field in batch.spec(data, rows=1).items()}
    row["tokens"].fill(special.pad)
    return row


def _row(padding: Row, example: Example, masked: Masked) -> Row:
    """One example in a row of its own (K = 1); what it does not fill stays `padding`."""
    row: Row = {name: array.copy() for name, array in padding.items()}
    n, k = len(masked.tokens_n), len(masked.positions_k)
    row["tokens"][:n] = masked.tokens_n
    row["segments"][:n] = 1
    row["positions"][:n] = np.arange(n)
    row["token_types"][:n] = example.token_types_L
    row["mlm_positions"][:k] = masked.positions_k
    row["mlm_labels"][:k] = masked.labels_k
    row["mlm_weights"][:k] = 1.0
    row["pair_labels"][0] = example.pair_label
    row["pair_weights"][0] = example.pair_weight
    return row


def _batches(data: DataConfig, rows: grain.MapDataset[Row]) -> grain.DatasetIterator[Row]:
    """Batches of rows in order, built ahead by threads: a thread makes whole batches, to hand over rarely."""
    options = grain.ReadOptions(num_threads=data.loader_threads, prefetch_buffer_size=2 * data.loader_threads)
    return iter(rows.batch(data.batch_size, drop_remainder=True).to_iter_dataset(options))
