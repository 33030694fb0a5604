"""The estimates follow the work, the machine and what was measured; the memory is enough."""

from dataclasses import replace

import pytest
from small import tiny

from bertjax.bench.estimate import flops_a_second, step_bytes, step_flops
from bertjax.config.recipe import override
from bertjax.parallel.machine import Machine

TWO_CORES = Machine("cpu", "cpu", 1, 25_000_000_000, 2, False)
H100 = Machine("gpu", "NVIDIA H100 80GB HBM3", 1, 60_000_000_000, 16, True)

SPEEDRUN = {
    "model": {"vocab_size": 8_000, "num_layers": 4, "hidden_size": 128, "embedding_size": 128, "num_heads": 2}
    | {"ffn_size": 352, "ffn": "gated", "max_positions": 64, "positions": "rotary"},
    "data": {"batch_size": 64, "seq_len": 64, "max_predictions": 10},
    "optim": {"name": "muon"},
}
BASE = {
    "model": {"vocab_size": 30_522, "num_layers": 12, "hidden_size": 768, "embedding_size": 768, "num_heads": 12}
    | {"ffn_size": 3_072, "max_positions": 512},
    "data": {"batch_size": 16, "seq_len": 128, "max_predictions": 20},
}


@pytest.mark.parametrize(("sizes", "seconds"), [(SPEEDRUN, 1 / 2.3), (BASE, 11.3)])
def test_the_speeds_that_were_measured(sizes, seconds):
    """docs/speedrun.md and docs/results.md, within a fifth, by which the machine itself varies."""
    config = tiny(**sizes)
    assert step_flops(config) / flops_a_second(config, TWO_CORES) == pytest.approx(seconds, rel=0.2)


def test_speed_follows_the_machine():
    config = tiny(**BASE)
    speeds = [flops_a_second(config, replace(TWO_CORES, cores=cores)) for cores in (1, 2, 4, 16)]
    assert speeds == sorted(speeds) and speeds[3] < 8 * speeds[1]
    fast = override(config, compute={"dtype": "bfloat16"})
    one = flops_a_second(fast, H100)
    assert one > 100 * speeds[1]
    assert flops_a_second(fast, replace(H100, devices=8)) == 8 * one
    assert flops_a_second(config, H100) < one  # in float32
    assert flops_a_second(fast, replace(H100, kind="NVIDIA T4000")) < one  # a device that nobody knows


def test_muon_costs_by_the_update_and_not_by_the_token():
    def of_muon(rows):
        config = override(tiny(**SPEEDRUN), data={"batch_size": rows})
        return step_flops(config) - step_flops(override(config, optim={"name": "adamw"}))

    assert of_muon(64) == of_muon(128) > 0
    shared = override(tiny(**SPEEDRUN), model={"share": "all"})
    assert step_flops(shared) - step_flops(override(shared, optim={"name": "adamw"})) == of_muon(64) / 4


def test_memory_is_enough_for_what_was_asked_for():
    """An ALBERT-base of 64 rows of 512 asked for 52 GB on a CPU, more than any number of its parts alone says."""
    sizes = BASE["model"] | {"vocab_size": 30_000, "embedding_size": 128, "share": "all"}
    config = tiny(model=sizes, data={"batch_size": 64, "seq_len": 512, "max_predictions": 20})
    assert 52e9 < step_bytes(config, 1) < 2 * 52e9


def test_memory_follows_the_rows_of_a_microbatch_on_a_device():
    config = tiny(data={"batch_size": 64})
    eighth = step_bytes(override(config, data={"batch_size": 8}), 1)
    assert step_bytes(config, 8) == step_bytes(override(config, optim={"accumulate": 8}), 1) == eighth
    assert eighth < step_bytes(config, 1) < 8 * eighth
    assert step_bytes(override(config, compute={"dtype": "bfloat16"}), 1) < step_bytes(config, 1)
