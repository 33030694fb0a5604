"""`bertjax.batch`: the contract's shapes, and synthetic rows that keep it."""

from dataclasses import replace

import numpy as np
import pytest
from small import random_batch, tiny

from bertjax import batch


def test_shapes_follow_the_config():
    data = tiny().data
    fields = batch.spec(data)
    assert fields["tokens"].shape == (8, 32) and fields["mlm_labels"].shape == (8, 5)
    assert fields["pair_weights"].shape == (8, 1) and fields["pair_weights"].dtype is np.float32
    assert {field.shape[0] for field in batch.spec(data, rows=3).values()} == {3}


def test_every_field_is_explained_and_filled():
    rows = batch.synthetic(tiny())
    for name, field in batch.spec(tiny().data).items():
        assert field.meaning and rows[name].shape == field.shape and rows[name].dtype == field.dtype
    assert rows.keys() == random_batch(tiny()).keys()


@pytest.mark.parametrize("packing", [1, 3])
@pytest.mark.parametrize("token_types", [0, 1, 2])
def test_synthetic_rows_keep_the_contract(packing, token_types):
    config = tiny(data={"packing": packing})
    rows = batch.synthetic(replace(config, model=replace(config.model, token_types=token_types)))
    assert ((rows["tokens"] >= 5) & (rows["tokens"] < 400)).all()
    assert set(np.unique(rows["segments"])) == set(range(1, packing + 1))
    assert rows["token_types"].max() == (token_types > 1)
    assert (rows["mlm_positions"][:, 1:] > rows["mlm_positions"][:, :-1]).all()
    # Each example begins where its pair label points: at position 0 of the next segment.
    assert (np.take_along_axis(rows["positions"], rows["pair_positions"], axis=1) == 0).all()
    segments_BK = np.take_along_axis(rows["segments"], rows["pair_positions"], axis=1)
    assert (segments_BK == np.arange(1, packing + 1)).all()


def test_synthetic_rows_follow_the_seed():
    one, same, other = (batch.synthetic(tiny(run={"seed": seed}))["tokens"] for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize("kind", ["", "classify", "regress", "tag", "span", "choice"])
def test_a_batch_has_the_fields_of_what_its_run_learns(kind):
    task = {"kind": kind, "train": ("x",)} if kind else {}
    task |= {"endings": ("a", "b", "c")} if kind == "choice" else {}
    config = tiny(task=task, data={"seq_len": 80, "packing": 3}, model={"max_positions": 80})
    fields = batch.fields(config, rows=2)
    assert {"tokens", "segments", "positions", "token_types", "pair_positions"} <= fields.keys()
    assert ("mlm_labels" in fields) == (kind == "")
    if kind:
        items = {"tag": (2, 80), "choice": (2, 1)}.get(kind, (2, 3))
        assert fields["label_weights"].shape == items
        assert fields["labels"].shape == ((*items, 2) if kind == "span" else items)
        assert fields["labels"].dtype == (np.float32 if kind == "regress" else np.int32)
        rows = batch.synthetic(config)
        wanted = {name: (field.shape, field.dtype) for name, field in batch.fields(config).items()}
        assert {name: (x.shape, x.dtype) for name, x in rows.items()} == wanted
        assert (rows["label_weights"] == 1).all() and sorted(rows["numbers"].flat) == list(range(rows["numbers"].size))
        if kind == "span":
            for end in range(2):  # inside the example that asks
                segments_BK = np.take_along_axis(rows["segments"], rows["labels"][:, :, end], axis=1)
                assert (segments_BK == [1, 2, 3]).all()
