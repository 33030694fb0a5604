"""The timing of the input pipeline: its numbers agree with each other and with the rows."""

import time

import pytest
from small import tiny

from bertjax.bench.pipeline import bench, stages
from bertjax.data import batches, dataset
from bertjax.data.batches import STAGES
from bertjax.data.masking import mask
from bertjax.data.order import Order, packing_density
from bertjax.data.tokenizer import load as load_tokenizer


@pytest.fixture(scope="module")
def made(inputs):
    """(config, data set, tokenizer)"""
    data = tiny(data=inputs).data
    return data, dataset.load(inputs["prepared"]), load_tokenizer(inputs["tokenizer"], lower_case=True)


def test_rates_are_those_of_the_rows_timed(made):
    data, prepared, _ = made
    found = bench(*made, seed=0, seconds=0.2)
    assert found["rows"] > 0 and found["rows"] % 64 == 0 and found["plan_seconds"] > 0
    density = packing_density(data, prepared.train, seed=0)
    assert density < 0.98 and found["packing_density"] == pytest.approx(density, abs=0.01)
    tokens = found["rows"] * data.seq_len * found["packing_density"]
    assert found["real_tokens_per_second"] == pytest.approx(tokens / 0.2, rel=0.5)
    assert found["real_tokens_per_second_per_core"] > 0
    most = max(found["stages"], key=found["stages"].get)
    assert found["bound_by"].startswith(most)


def test_stages_share_the_time(made, monkeypatch):
    shares = stages(*made, seed=0)
    assert tuple(shares) == STAGES and sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) > 0

    def slow(function, seconds):
        def slowed(*arguments):
            time.sleep(seconds)
            return function(*arguments)

        return slowed

    monkeypatch.setattr(batches, "Order", slow(Order, 0.5))
    planned = stages(*made, seed=0)
    assert planned["laying out rows"] < 0.5, "the plan of an epoch is no part of a batch"
    monkeypatch.setattr(batches, "mask", slow(mask, 0.01))
    slowed = stages(*made, seed=0)
    assert max(slowed, key=slowed.get) == "masking"
