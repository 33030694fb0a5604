"""Batches: the contract, how the parts of a row agree, what is drawn anew, and what is held out."""

from types import SimpleNamespace

import numpy as np
import pytest
from data.rows import (
    DATA,
    EXAMPLES,
    PREPARED,
    SPECIAL,
    TOKENIZER,
    N,
    assert_same,
    config,
    example_keys,
    originals,
    packed_keys,
    rows_of,
    train_rows,
)

from bertjax import batch
from bertjax.data.batches import STAGES, Course, Draws, Share, eval_maker, train_maker
from bertjax.data.loader import eval_batches
from bertjax.data.order import Order, epoch_rows, packing_density
from bertjax.errors import DataError


@pytest.mark.parametrize("examples", EXAMPLES)
def test_batches_match_the_contract(examples):
    data = config(examples=examples)
    spec = batch.spec(data)
    held_out, count = eval_maker(data, PREPARED, TOKENIZER, seed=0, rows=10)
    train = train_maker(data, PREPARED, TOKENIZER, seed=0)
    for made in [*map(train, range(4)), *map(held_out, range(count))]:
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


def test_cuts_and_swaps_are_drawn_anew_each_epoch():
    rows = train_rows(6 * N)
    labels = {}
    for key, label, weight in zip(example_keys(rows), rows["pair_labels"], rows["pair_weights"], strict=True):
        if weight[0]:
            labels.setdefault(key, set()).add(int(label[0]))
    assert np.mean([len(seen) == 2 for seen in labels.values()]) > 0.8


def test_packed_rows_hold_every_example_once_and_agree_in_their_parts():
    data = config(seq_len=128, packing=4, max_predictions=24, masking="whole_word")
    R = epoch_rows(data, PREPARED.train, seed=0)
    rows = train_rows(3 * R, data=data)
    plain = epoch_rows(config(seq_len=128), PREPARED.train, seed=0)
    assert 0.8 * plain > R
    keys = np.array(packed_keys(rows)).reshape(3, plain)
    assert all(len(set(epoch)) == plain for epoch in keys.tolist())
    assert packing_density(data, PREPARED.train, seed=0) == pytest.approx((rows["segments"] > 0).mean(), abs=1e-9)
    tokens_BL = originals(rows)
    for i, segments_L in enumerate(rows["segments"]):
        used = segments_L[segments_L > 0]
        assert (
            (np.diff(used) >= 0).all()
            and not segments_L[len(used) :].any()
            and set(used) == set(range(1, used.max() + 1))
        )
        starts = np.flatnonzero(np.diff(used, prepend=0))
        assert rows["pair_positions"][i].tolist() == starts.tolist() + [0] * (4 - len(starts))
        assert (tokens_BL[i, starts] == SPECIAL.cls).all() and (rows["positions"][i, starts] == 0).all()
        seps = [int((tokens_BL[i, segments_L == k] == SPECIAL.sep).sum()) for k in range(1, used.max() + 1)]
        assert rows["pair_weights"][i].tolist() == [float(n == 2) for n in seps] + [0.0] * (4 - len(seps))
        chosen = rows["mlm_positions"][i][rows["mlm_weights"][i] > 0]
        assert (np.diff(chosen) > 0).all() and (segments_L[chosen] > 0).all()
    real = (rows["segments"] > 0).sum()
    assert rows["mlm_weights"].sum() / real == pytest.approx(DATA.mask_rate, abs=0.02)


def test_a_course_goes_on_through_phases():
    """Of 40 rows, of which 24 were before."""
    whole = Course(rows=40)
    assert [whole.done(row) for row in (0, 10, 40, 50)] == [0.0, 0.25, 1.0, 1.0] and Course().done(10**9) < 1e-9
    later = Course(before=24, rows=40)
    assert all(later.done(row) == whole.done(24 + row) for row in range(20))


FALLING = {"mask_rate": 0.4, "final_mask_rate": 0.1, "max_predictions": 13}


@pytest.mark.parametrize("fields", [{}, {"buckets": (16, 32)}, {"batch_size": 1}], ids=str)
def test_the_mask_rate_of_a_row_follows_from_its_place_in_the_run(fields):
    """From 0.4 at the first of 80 rows to 0.1; a run that goes on from row 24, or 56, has the same rows."""
    data = config(**FALLING, **fields)
    if data.buckets:
        made = [train_maker(data, PREPARED, TOKENIZER, seed=0, course=Course(rows=80))(k) for k in range(12)]
        masks_B, length_B = (np.concatenate(x) for x in zip(*map(masks_and_lengths, made), strict=True))
    else:
        rows = train_rows(96, data=data, course=Course(rows=80))
        masks_B, length_B = masks_and_lengths(rows)
        for start in (24, 56):
            later = train_rows(96 - start, data=data, course=Course(rows=80), start_row=start)
            assert_same({name: array[start:] for name, array in rows.items()}, later)
    rate_B = 0.4 - 0.3 * np.minimum(np.arange(96) / 80, 1.0)
    expected_B = np.maximum(np.round(length_B * rate_B), 1)
    np.testing.assert_array_equal(masks_B[length_B > 0], expected_B[length_B > 0])
    assert masks_B[:16].sum() / length_B[:16].sum() > 2 * masks_B[80:].sum() / length_B[80:].sum()


def masks_and_lengths(rows):
    return rows["mlm_weights"].sum(axis=1), (rows["segments"] > 0).sum(axis=1)


def test_held_out_rows_have_the_last_mask_rate():
    held_out = [
        rows_of(eval_batches(data, PREPARED, TOKENIZER, seed=0, rows=24), 24)
        for data in (config(**FALLING), config(**FALLING | {"mask_rate": 0.1, "final_mask_rate": 0.0}))
    ]
    assert_same(*held_out)


def test_batch_size_changes_nothing():
    assert_same(train_rows(2 * N), train_rows(2 * N, data=config(batch_size=1)))


def test_no_two_generators_are_alike():
    found = set()
    for seed in (0, 1, 2**32):
        draws = Draws(Order(DATA, PREPARED.train, seed).key)
        for kind, source, epoch, example in np.ndindex(2, 2, 2, 2):
            found.add(int(draws.generator(kind, source, epoch, 10**9 + example).integers(2**63)))
    assert len(found) == 3 * 2**4


def test_eval_is_fixed_held_out_and_padded():
    held_out = epoch_rows(DATA, PREPARED.validation, seed=0)
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


def test_another_tokenizer_is_refused():
    other = SimpleNamespace(**{**vars(TOKENIZER), "digest": "cd" * 32})
    for call in (
        lambda: train_maker(DATA, PREPARED, other, seed=0),
        lambda: eval_maker(DATA, PREPARED, other, seed=0, rows=8),
    ):
        with pytest.raises(DataError, match="abababab.*cdcdcdcd.*data.tokenizer") as caught:
            call()
        assert "\n" not in str(caught.value) and "ababababa" not in str(caught.value)


# The hook for timing -------------------------------------------------------------------------------------------------


def test_a_timer_changes_nothing_and_is_told_the_stages_in_order():
    data = config(packing=3, seq_len=128, examples="nsp")
    told = []
    timed = train_maker(data, PREPARED, TOKENIZER, seed=0, timer=told.append)
    assert_same(timed(3), train_maker(data, PREPARED, TOKENIZER, seed=0)(3))
    reading, making, masking, laying_out = STAGES
    assert told[:4] == [laying_out, making, reading, making] and told[-2:] == [masking, laying_out]
    follows = {reading: {making}, making: {reading, masking}, masking: {laying_out}, laying_out: {making}}
    assert all(after in follows[before] for before, after in zip(told, told[1:], strict=False))
    assert told.count(masking) == told.count(laying_out) - 1 == data.batch_size


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_share_is_some_rows_of_each_batch(hosts):
    whole = train_maker(DATA, PREPARED, TOKENIZER, seed=0)
    for host in range(hosts):
        own = slice(host * 8 // hosts, (host + 1) * 8 // hosts)
        share = Share(start=24, end=30, rows=tuple(range(8)[own]))
        part = train_maker(DATA, PREPARED, TOKENIZER, seed=0, share=share)(0)
        for name, array in whole(3).items():
            real = np.arange(8)[own] < 6  # rows from 30 on are padding
            np.testing.assert_array_equal(part[name][real], array[own][real])
            assert name == "tokens" or not part[name][~real].any()
