"""The timing of the input pipeline: its numbers agree with each other and with the rows."""

import time

import pytest
from small import tiny

from bertjax.bench.pipeline import bench, stages
from bertjax.data import batches, dataset
from bertjax.data.batches import STAGES
from bertjax.data.masking import mask
from bertjax.data.tokenizer import load as load_tokenizer


@pytest.fixture(scope="module")
def made(inputs):
    """(config, data set, tokenizer)"""
    data = tiny(data=inputs).data
    return data, dataset.load(inputs["prepared"]), load_tokenizer(inputs["tokenizer"], lower_case=True)


def test_rates_are_those_of_the_rows_timed(made):
    data, *_ = made
    found = bench(*made, seed=0, seconds=0.2)
    assert found["rows"] > 0 and found["rows"] % 64 == 0
    assert 0.3 < found["packing_density"] <= 1.0 and found["plan_seconds"] > 0
    tokens = found["rows"] * data.seq_len * found["packing_density"]
    assert found["real_tokens_per_second"] == pytest.approx(tokens / 0.2, rel=0.5)
    assert found["real_tokens_per_second_per_core"] > 0
    most = max(found["stages"], key=found["stages"].get)
    assert found["bound_by"].startswith(most)


def test_stages_share_the_time(made, monkeypatch):
    shares = stages(*made, seed=0)
    assert tuple(shares) == STAGES and sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) > 0

    def slow(*arguments):
        time.sleep(0.001)
        return mask(*arguments)

    monkeypatch.setattr(batches, "mask", slow)
    slowed = stages(*made, seed=0)
    assert max(slowed, key=slowed.get) == "masking"
