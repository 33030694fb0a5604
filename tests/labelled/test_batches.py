"""Batches hold each example once an epoch, whatever the rows, from any row on; labels stand where their tokens are."""

import itertools
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax import batch
from bertjax.config.schema import DataConfig
from bertjax.labelled.batches import epoch_rows, eval_batches, eval_rows, train_batches
from bertjax.labelled.example import Example

PAD = 99
KINDS = ("classify", "regress", "tag", "span", "choice")
LAYOUTS = {
    "single": {"batch_size": 4, "seq_len": 24},
    "packed": {"batch_size": 4, "seq_len": 64, "packing": 3},
    "buckets": {"batch_size": 4, "seq_len": 24, "buckets": (8, 16, 24)},
}


def examples_of(kind, count=23, seed=0):
    """Examples of 3 to 24 tokens (choice: of 3 to 12, two a question), every fifth without a label."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(2 * count if kind == "choice" else count):
        n = int(rng.integers(3, 13 if kind == "choice" else 25))
        tokens, types = np.arange(n, dtype=np.int32) + 100 * (i + 1), (np.arange(n) >= n // 2).astype(np.int32)
        record = i // 2 if kind == "choice" else i
        known = record % 5 > 0
        if kind == "classify" or kind == "choice":
            found.append(Example(tokens, types, record, label=record % 2 if known else -1))
        elif kind == "regress":
            found.append(Example(tokens, types, record, label=i / 7 if known else np.nan))
        elif kind == "tag":
            labels = np.where(np.arange(n) % 3 == 1, i % 4, -1) if known else np.full(n, -1)
            found.append(Example(tokens, types, record, labels=labels.astype(np.int32)))
        else:
            found.append(Example(tokens, types, record, span=(i % 3, n - 1) if known else None))
    return found


def config(layout, kind="classify"):
    fields = dict(LAYOUTS[layout])
    if kind == "choice":
        fields |= {"packing": 2}
    return DataConfig(**fields)


def train(kind, examples, data, count, *, seed=3, start_row=0):
    with closing(train_batches(kind, examples, data, seed=seed, start_row=start_row, pad=PAD)) as batches:
        return list(itertools.islice(batches, count))


def items(kind, made):
    """(number, tokens, token types, what is learnt) of each example of a batch, read back from its arrays."""
    for i in range(len(made["tokens"])):
        for k in range(made["segments"][i].max(initial=0)):
            at = np.flatnonzero(made["segments"][i] == k + 1)
            start = at[0]
            assert at.tolist() == list(range(start, start + len(at)))
            assert made["positions"][i, at].tolist() == list(range(len(at)))
            assert made["pair_positions"][i, k] == start
            slot = 0 if kind == "choice" else k
            labels, weights = made["labels"][i], made["label_weights"][i]
            if kind == "tag":
                learnt = np.where(weights[at] > 0, labels[at], -1).tolist()
            elif kind == "span":
                learnt = tuple((labels[slot] - start).tolist()) if weights[slot] else None
            else:
                learnt = labels[slot].item() if weights[slot] else None
            yield (
                made["numbers"][i, slot].item(),
                made["tokens"][i, at].tolist(),
                made["token_types"][i, at].tolist(),
                learnt,
            )


def expected(kind, examples):
    for number, example in enumerate(examples):
        if kind == "tag":
            learnt = example.labels.tolist()
        elif kind == "span":
            learnt = example.span
        elif kind == "regress":
            learnt = None if np.isnan(example.label) else float(np.float32(example.label))
        else:
            learnt = None if example.label < 0 else example.label
        number = example.record if kind == "choice" else number
        yield number, example.tokens.tolist(), example.token_types.tolist(), learnt


LAID_OUT = [(kind, layout) for kind in KINDS for layout in LAYOUTS if (kind, layout) != ("choice", "packed")]


@pytest.mark.parametrize(("kind", "layout"), LAID_OUT)
def test_a_batch_is_what_the_contract_says(kind, layout):
    data, examples = config(layout, kind), examples_of(kind)
    for made in [*train(kind, examples, data, 9), *eval_batches(kind, examples, data, pad=PAD)]:
        fields = batch.labelled(kind, data, length=made["tokens"].shape[1])
        assert {name: (field.shape, field.dtype) for name, field in fields.items()} == {
            name: (array.shape, array.dtype.type) for name, array in made.items()
        }
        padding = made["segments"] == 0
        assert (made["tokens"][padding] == PAD).all() and (made["tokens"][~padding] != PAD).all()
        assert not made["positions"][padding].any() and not made["token_types"][padding].any()
        if kind == "tag":
            assert not made["label_weights"][padding].any()
        # No label and no number where there is no example.
        count = made["segments"].max(axis=1)
        slots = np.arange(made["numbers"].shape[1])[None] < (count[:, None] > 0 if kind == "choice" else count[:, None])
        assert ((made["numbers"] >= 0) == slots).all()
        assert not made["labels"][made["label_weights"] == 0].any()
        if kind != "tag":
            assert not made["label_weights"][~slots].any()


@pytest.mark.parametrize(("kind", "layout"), LAID_OUT)
def test_every_epoch_has_every_example_once(kind, layout):
    data, examples = config(layout, kind), examples_of(kind)
    rows = epoch_rows(kind, examples, data, seed=3)
    assert rows == (23 if layout != "packed" else rows) and rows >= 23 / data.packing
    order = []
    for made in train(kind, examples, data, -(-3 * rows // 4)):
        for i in range(4):
            order.append(sorted(items(kind, {name: array[i : i + 1] for name, array in made.items()})))
    epochs = [list(itertools.chain.from_iterable(order[e * rows : (e + 1) * rows])) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch, key=str) == sorted(expected(kind, examples), key=str)
    assert epochs[0] != epochs[1] != epochs[2]
    held = list(eval_batches(kind, examples, data, pad=PAD))
    found = [item for made in held for item in items(kind, made)]
    assert sorted(found, key=str) == sorted(expected(kind, examples), key=str)
    assert sum(int((made["segments"].max(axis=1) > 0).sum()) for made in held) == eval_rows(kind, examples, data)


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(0, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_a_run_goes_on_from_any_batch(layout, count, seed, batches, data):
    """Also where an epoch has fewer rows than a batch."""
    examples, config_ = examples_of("classify", count), config(layout)
    whole = train("classify", examples, config_, batches + 2, seed=seed)
    start = data.draw(st.integers(0, batches))
    again = train("classify", examples, config_, batches + 2 - start, seed=seed, start_row=4 * start)
    for a, b in zip(whole[start:], again, strict=True):
        assert all((a[name] == b[name]).all() for name in a)


def test_a_run_goes_on_from_any_row():
    """With another size of a batch, too."""
    examples, data = examples_of("classify"), config("single")
    whole = np.concatenate([made["numbers"] for made in train("classify", examples, data, 20)])
    other = DataConfig(batch_size=7, seq_len=24)
    rest = np.concatenate([made["numbers"] for made in train("classify", examples, other, 5, start_row=10)])
    assert (rest == whole[10:45]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_processes_share_the_rows_of_each_batch(layout):
    examples, data = examples_of("classify"), DataConfig(**LAYOUTS[layout])
    own = ((0, 2), (1, 3))
    given = {"seed": 3, "start_row": 8, "pad": PAD}
    whole = train_batches("classify", examples, data, **given)
    parts = [train_batches("classify", examples, data, **given, own=rows) for rows in own]
    for _ in range(9):
        batch, shares = next(whole), [next(part) for part in parts]
        for rows, share in zip(own, shares, strict=True):
            assert share.keys() == batch.keys()
            for name in batch:
                np.testing.assert_array_equal(share[name], batch[name][list(rows)])


def test_seeds_and_epochs_have_orders_of_their_own():
    examples, data = examples_of("classify"), config("single")
    orders = {}
    for seed in (0, 1, 2**32 - 1):
        numbers = np.concatenate([made["numbers"][:, 0] for made in train("classify", examples, data, 23, seed=seed)])
        for epoch in range(4):
            orders[tuple(numbers[23 * epoch : 23 * (epoch + 1)].tolist())] = seed, epoch
    assert len(orders) == 12


def test_the_rows_of_an_epoch_do_not_depend_on_the_seed():
    examples, data = examples_of("classify", 200), config("packed")
    assert len({epoch_rows("classify", examples, data, seed=seed) for seed in range(9)}) == 1
    data = DataConfig(**LAYOUTS["packed"] | {"batch_size": epoch_rows("classify", examples, data, seed=0)})
    epochs = [made["numbers"] for seed in (0, 1) for made in train("classify", examples, data, 2, seed=seed)]
    together = [frozenset(map(tuple, np.sort(numbers).tolist())) for numbers in epochs]
    assert len(set(together)) == 4  # nor have two of them the same rows


def test_batches_are_as_long_as_they_need_be():
    """With buckets: at least half of the batches of an epoch are shorter, though long examples are in all places."""
    examples, data = examples_of("classify", 400), config("buckets")
    lengths = []
    for made in train("classify", examples, data, 100):
        longest = (made["segments"] > 0).sum(axis=1).max()
        assert made["tokens"].shape[1] == min(size for size in (8, 16, 24) if size >= longest)
        lengths.append(made["tokens"].shape[1])
    assert np.mean(np.array(lengths) < 24) > 0.5
    assert lengths[:33] != sorted(lengths[:33]) and lengths[:33] != sorted(lengths[:33], reverse=True)
    held = [made["tokens"].shape[1] for made in eval_batches("classify", examples, data, pad=PAD)]
    assert held == sorted(held) and len(held) == 100


def test_an_epoch_begins_within_a_batch():
    """23 rows in batches of 4: each epoch has whole batches of like lengths, wherever it begins."""
    examples, data = examples_of("classify", 403), config("buckets")
    made = train("classify", examples, data, 303)  # three epochs
    spread = [np.ptp((one["segments"] > 0).sum(axis=1)) for one in made]
    assert np.mean(np.array(spread) <= 4) > 0.9


def test_no_examples():
    for kind in KINDS:
        data = config("single", kind)
        assert epoch_rows(kind, [], data, seed=0) == 0
        assert train(kind, [], data, 3) == [] and list(eval_batches(kind, [], data, pad=PAD)) == []
    assert epoch_rows("classify", [], config("packed"), seed=0) == 0
