"""The stream of batches: what it holds, and that nothing but (seed, epoch, example) decides it."""

import threading
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from bertjax import batch
from bertjax.config import DataConfig
from bertjax.data.pipeline import _generator, check, eval_batches, num_examples, train_batches
from bertjax.errors import DataError

DATA = DataConfig(batch_size=8, seq_len=32, max_predictions=5, pair="sop", loader_threads=2)
SPECIAL = SimpleNamespace(pad=9, unk=1, cls=2, sep=3, mask=4)
VOCAB = 3_000
TOKENIZER = SimpleNamespace(vocab_size=VOCAB, special=SPECIAL, digest="ab" * 32)


def make_split(documents, *, start, name="train"):
    """Documents of 7 sentences of 5 tokens; every token of the split is another id, from `start` on."""
    return SimpleNamespace(
        name=name,
        document_offsets=np.arange(documents + 1) * 7,
        sentence_lengths=np.full(documents * 7, 5, np.int32),
        tokens=lambda d: np.arange(start + 35 * d, start + 35 * (d + 1), dtype=np.int32),
    )


PREPARED = SimpleNamespace(
    vocab_size=VOCAB,
    tokenizer_digest=TOKENIZER.digest,
    train=make_split(21, start=10),
    validation=make_split(11, start=1_000, name="validation"),
)
N = num_examples(DATA, PREPARED.train, seed=0)


def config(**fields):
    return DataConfig(**{**vars(DATA), **fields})


def rows_of(iterator, count):
    """The first `count` rows of a stream of batches, field by field."""
    batches, rows = [], 0
    while rows < count:
        batches.append(next(iterator))
        rows += len(batches[-1]["tokens"])
    iterator.close()
    return {name: np.concatenate([b[name] for b in batches])[:count] for name in batches[0]}


def train_rows(count, *, data=DATA, seed=0, start_row=0):
    return rows_of(train_batches(data, PREPARED, TOKENIZER, seed=seed, start_row=start_row), count)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def originals(rows):
    """The rows' tokens with the masks undone [rows, L]."""
    tokens_BL = rows["tokens"].copy()
    for tokens_L, positions_P, labels_P, weights_P in zip(
        tokens_BL, rows["mlm_positions"], rows["mlm_labels"], rows["mlm_weights"], strict=True
    ):
        chosen_P = weights_P > 0
        tokens_L[positions_P[chosen_P]] = labels_P[chosen_P]
    return tokens_BL


def example_keys(rows):
    """The first sentence of each row's example: names the example, whatever its cut, swap, truncation and masks."""
    tokens_BL = originals(rows)
    return np.where(tokens_BL >= 10, tokens_BL, VOCAB).min(axis=1) // 5


@pytest.mark.parametrize("pair", ["nsp", "sop", "none"])
def test_batches_match_the_contract(pair):
    data = config(pair=pair)
    spec = batch.spec(data)
    trained = islice(train_batches(data, PREPARED, TOKENIZER, seed=0), 4)
    for made in [*trained, *eval_batches(data, PREPARED, TOKENIZER, seed=0, rows=10)]:
        assert made.keys() == spec.keys()
        for name, field in spec.items():
            assert made[name].shape == field.shape and made[name].dtype == field.dtype, name


def test_the_parts_of_a_row_agree():
    rows = train_rows(2 * N)
    used_BL = rows["segments"] == 1
    length_B = used_BL.sum(axis=1)
    assert (np.diff(rows["segments"], axis=1) <= 0).all() and length_B.min() >= 3
    assert ((rows["tokens"] == SPECIAL.pad) == ~used_BL).all()
    np.testing.assert_array_equal(rows["positions"], np.where(used_BL, np.arange(32), 0))
    assert (rows["token_types"][~used_BL] == 0).all()
    budget_B = np.clip(np.round(length_B * DATA.mask_rate), 1, 5)
    np.testing.assert_array_equal(rows["mlm_weights"], np.arange(5) < budget_B[:, None])
    unused_BP = rows["mlm_weights"] == 0
    assert unused_BP.any() and not rows["mlm_positions"][unused_BP].any() and not rows["mlm_labels"][unused_BP].any()
    tokens_BL = originals(rows)
    assert (tokens_BL[:, 0] == SPECIAL.cls).all() and not rows["pair_positions"].any()
    two_B = (tokens_BL == SPECIAL.sep).sum(axis=1) == 2
    np.testing.assert_array_equal(rows["pair_weights"][:, 0], two_B)
    assert two_B.any() and not two_B.all()


def test_every_example_once_an_epoch_with_other_order_and_masks():
    rows = train_rows(3 * N)  # N is no multiple of the batch size, so batches cross epochs
    assert N % DATA.batch_size != 0
    keys_EN = example_keys(rows).reshape(3, N)
    for keys_N in keys_EN:
        np.testing.assert_array_equal(np.unique(keys_N), np.unique(keys_EN))
        assert len(np.unique(keys_N)) == N
    masks_EN = [
        {key: tuple(positions) for key, positions in zip(keys_N, positions_NP, strict=True)}
        for keys_N, positions_NP in zip(keys_EN, rows["mlm_positions"].reshape(3, N, -1), strict=True)
    ]
    for one, two in ((0, 1), (1, 2), (0, 2)):
        assert (keys_EN[one] != keys_EN[two]).mean() > 0.8
        assert np.mean([masks_EN[one][key] != masks_EN[two][key] for key in masks_EN[one]]) > 0.5


def test_cuts_and_swaps_are_drawn_anew_each_epoch():
    rows = train_rows(6 * N)
    labels = {}
    for key, label, weight in zip(example_keys(rows), rows["pair_labels"], rows["pair_weights"], strict=True):
        if weight[0]:
            labels.setdefault(key, set()).add(int(label[0]))
    assert np.mean([len(seen) == 2 for seen in labels.values()]) > 0.8


@pytest.mark.parametrize("pair", ["nsp", "sop", "none"])
def test_threads_change_nothing(pair):
    assert_same(
        train_rows(3 * N, data=config(pair=pair, loader_threads=1)),
        train_rows(3 * N, data=config(pair=pair, loader_threads=4)),
    )


def test_batch_size_changes_nothing():
    assert_same(train_rows(2 * N), train_rows(2 * N, data=config(batch_size=1)))


@pytest.mark.parametrize("start_row", [1, 8, N - 1, N, 2 * N + 3])
def test_restart_anywhere_gives_the_same_rows(start_row):
    whole = train_rows(start_row + 20)
    assert_same({name: array[start_row:] for name, array in whole.items()}, train_rows(20, start_row=start_row))


def test_a_late_restart_is_as_quick_as_an_early_one():
    reads = []
    prepared = SimpleNamespace(**vars(PREPARED))
    prepared.train = SimpleNamespace(**vars(PREPARED.train))
    prepared.train.tokens = lambda d: reads.append(d) or PREPARED.train.tokens(d)
    iterator = train_batches(DATA, prepared, TOKENIZER, seed=0, start_row=10**12 + 7)
    next(iterator)
    iterator.close()
    assert len(reads) <= DATA.batch_size * (2 * DATA.loader_threads + 1)


def test_another_seed_is_another_run():
    one, two = train_rows(2 * N, seed=0), train_rows(2 * N, seed=1)
    assert (example_keys(one) != example_keys(two)).mean() > 0.8
    # grain alone would give the second epoch of seed 0 the order of the first of seed 1.
    assert (example_keys(one)[N:] != example_keys(two)[: len(example_keys(one)) - N]).mean() > 0.8
    train_rows(8, seed=2**70)


def test_no_two_generators_are_alike():
    draws = {
        int(_generator([2**32 - 1 - low, high], epoch, 10**9 + index, stream).integers(2**63))
        for low, high, epoch, index, stream in np.ndindex(2, 2, 2, 2, 2)
    }
    assert len(draws) == 2**5


def test_eval_is_fixed_held_out_and_padded():
    held_out = num_examples(DATA, PREPARED.validation, seed=0)
    for wanted, rows in ((10**6, held_out), (10, 10), (8, 8), (1, 1)):
        one, two = (list(eval_batches(DATA, PREPARED, TOKENIZER, seed=0, rows=wanted)) for _ in range(2))
        assert len(one) == len(two) == -(-rows // DATA.batch_size)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
        made = {name: np.concatenate([b[name] for b in one]) for name in one[0]}
        used_B = made["segments"].any(axis=1)
        np.testing.assert_array_equal(used_B, np.arange(len(used_B)) < rows)
        padding = {name: array[~used_B] for name, array in made.items()}
        assert (padding.pop("tokens") == SPECIAL.pad).all()
        assert not any(array.any() for array in padding.values())
        keys = example_keys(made)[:rows]
        assert len(np.unique(keys)) == rows and keys.min() >= 1_000 // 5
    order = example_keys(rows_of(eval_batches(DATA, PREPARED, TOKENIZER, seed=0, rows=held_out), held_out))
    assert (np.diff(order) < 0).any(), "in order, the first rows would be the first documents"


def test_empty_splits_name_the_fix():
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(0, start=10, name="validation")})
    with pytest.raises(DataError, match=r"data\.holdout = 0\.01.*raise data\.holdout"):
        eval_batches(DATA, prepared, TOKENIZER, seed=0, rows=8)
    prepared = SimpleNamespace(**{**vars(PREPARED), "train": make_split(0, start=10)})
    with pytest.raises(DataError, match="train split has no text.*lower data.holdout"):
        train_batches(DATA, prepared, TOKENIZER, seed=0)
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(1, start=10, name="validation")})
    with pytest.raises(DataError, match="validation split: .*1 document"):
        eval_batches(config(pair="nsp"), prepared, TOKENIZER, seed=0, rows=8)


def test_another_tokenizer_is_refused():
    other = SimpleNamespace(**{**vars(TOKENIZER), "digest": "cd" * 32})
    check(PREPARED, TOKENIZER)
    for call in (
        lambda: check(PREPARED, other),
        lambda: train_batches(DATA, PREPARED, other, seed=0),
        lambda: eval_batches(DATA, PREPARED, other, seed=0, rows=8),
    ):
        with pytest.raises(DataError, match="abababab.*cdcdcdcd.*data.tokenizer") as caught:
            call()
        assert "\n" not in str(caught.value) and "ababababa" not in str(caught.value)


def test_a_reader_s_error_reaches_the_caller_as_it_is():
    def damaged(document):
        raise DataError(f"shard 3, document {document}: damaged; prepare it again")

    prepared = SimpleNamespace(**vars(PREPARED))
    prepared.train = SimpleNamespace(**{**vars(PREPARED.train), "tokens": damaged})
    iterator = train_batches(DATA, prepared, TOKENIZER, seed=0)
    with pytest.raises(DataError, match=r"^shard 3, document \d+: damaged") as caught:
        next(iterator)
    assert type(caught.value) is DataError
    iterator.close()


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


@pytest.mark.parametrize("closed", [True, False])
def test_threads_stop_with_the_iterator(closed):
    def gone():
        deadline = time.monotonic() + 5
        while prefetch_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not prefetch_threads()

    assert gone(), "left over by another test"
    iterator = train_batches(DATA, PREPARED, TOKENIZER, seed=0)
    next(iterator)
    assert prefetch_threads()
    if closed:
        iterator.close()
    else:
        del iterator
    assert gone()
