"""The order of rows: each example once an epoch, shares and lengths as asked, and nothing but the seed decides."""

from types import SimpleNamespace

import numpy as np
import pytest
from data.rows import DATA, EXAMPLES, PREPARED, TOKENIZER, N, config, example_keys, make_split, packed_keys, train_rows

from bertjax import batch
from bertjax.data.batches import eval_maker, train_maker
from bertjax.data.order import deal, epoch_rows, seed_of_phase
from bertjax.errors import DataError


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


def test_each_phase_is_another_run_of_the_same_seed():
    """The first is that of the seed itself; of no two seeds have any two phases the same."""
    seeds = [[seed_of_phase(seed, number) for number in (1, 2, 3)] for seed in (0, 1, 2, 2**32 - 1)]
    assert [first for first, *_ in seeds] == [0, 1, 2, 2**32 - 1]
    assert len({seed for each in seeds for seed in each}) == 12 and all(0 <= s < 2**32 for each in seeds for s in each)
    one, two = train_rows(2 * N, seed=seed_of_phase(0, 1)), train_rows(2 * N, seed=seed_of_phase(0, 2))
    assert (example_keys(one) != example_keys(two)).mean() > 0.8


def test_another_seed_is_another_run():
    one, two = train_rows(2 * N, seed=0), train_rows(2 * N, seed=1)
    assert (example_keys(one) != example_keys(two)).mean() > 0.8
    # grain alone would give the second epoch of seed 0 the order of the first of seed 1.
    assert (example_keys(one)[N:] != example_keys(two)[: len(example_keys(one)) - N]).mean() > 0.8
    train_rows(8, seed=2**70)


def test_empty_splits_name_the_fix():
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(0, start=10, name="validation")})
    with pytest.raises(DataError, match=r"data\.holdout = 0\.01.*raise data\.holdout"):
        eval_maker(DATA, prepared, TOKENIZER, seed=0, rows=8)
    prepared = SimpleNamespace(**{**vars(PREPARED), "train": make_split(0, start=10)})
    with pytest.raises(DataError, match="train split has no text.*lower data.holdout"):
        train_maker(DATA, prepared, TOKENIZER, seed=0)
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(1, start=10, name="validation")})
    with pytest.raises(DataError, match="validation split: .*1 document"):
        eval_maker(config(examples="nsp"), prepared, TOKENIZER, seed=0, rows=8)


# Buckets and mixes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("examples", EXAMPLES)
def test_buckets_give_each_batch_the_least_length_that_holds_it(examples):
    data = config(examples=examples, buckets=(12, 20, 32), seq_len=32)
    R = epoch_rows(data, PREPARED.train, seed=0)
    make = train_maker(data, PREPARED, TOKENIZER, seed=0)
    batches = [make(k) for k in range(2 * R // 8)]
    seen, padded = [], 0
    for made in batches:
        spec = batch.spec(data, length=made["tokens"].shape[1])
        assert all(made[name].shape == field.shape for name, field in spec.items())
        longest = (made["segments"] > 0).sum(axis=1).max()
        smaller = [length for length in (12, 20, 32) if length < made["tokens"].shape[1]]
        # nsp: the plan knows the longest that an example can become, so a batch may come out shorter than planned.
        assert examples == "nsp" or not smaller or longest > smaller[-1]
        padded += (made["segments"] == 0).all(axis=1).sum()
        seen.append(made["tokens"].shape[1])
    N = epoch_rows(config(examples=examples), PREPARED.train, seed=0)
    assert 32 in seen and (len(set(seen)) > 1 or examples == "full_sentences") and padded == 2 * (R - N) < 16
    if examples == "sop":
        keys = [key for made in batches for key in packed_keys(made)]
        assert len(keys) == 2 * N and len(set(keys[:N])) == N


def test_a_mix_deals_rows_by_their_shares():
    data = config(mix=(0.25, 0.75), source=("a", "b"))
    rows = train_rows(400, data=data)
    first = example_keys(rows) < (10 + 35 * 7) // 5
    assert first.sum() == 100
    assert all(abs(first[:n].sum() - n / 4) <= 1 for n in range(1, 400))
    with pytest.raises(DataError, match=r"data\.mix = \(1.0, 1.0, 1.0\): the data set has 2 sources"):
        train_maker(config(mix=(1.0, 1.0, 1.0), source=("a", "b", "c")), PREPARED, TOKENIZER, seed=0)


def test_each_source_of_a_mix_has_its_own_epochs():
    data = config(mix=(0.25, 0.75), source=("a", "b"))
    keys = example_keys(train_rows(400, data=data))
    for part in (keys[keys < 51], keys[keys >= 51]):
        N = len(set(part.tolist()))
        for start in range(0, len(part) - N + 1, N):
            assert len(set(part[start : start + N].tolist())) == N


def test_dealing_numbers_each_source_without_a_gap():
    for shares in ((1.0,), (0.5, 0.5), (0.7, 0.2, 0.1), (1e-3, 5.0, 2.0)):
        dealt = [deal(number, shares) for number in range(5000)]
        for source in range(len(shares)):
            numbers = [at for s, at in dealt if s == source]
            assert numbers == list(range(len(numbers)))
            assert abs(len(numbers) - 5000 * shares[source] / sum(shares)) <= len(shares)
