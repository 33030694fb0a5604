"""`bertjax.train.schedule` against NumPy, and its numbers as data of one program."""

import jax
import numpy as np
import pytest

from bertjax.config.phases import Stretch
from bertjax.config.schema import Config, OptimConfig, RunConfig
from bertjax.train.schedule import make_schedule, point_of


def schedule_of(config, *, steps):
    return make_schedule(config, point_of(Config(optim=config, run=RunConfig(steps=steps))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {0: 0.0, 5: 0.5, 10: 0.9, 50: 0.5, 100: 0.0, 120: 0.0}),  # unshifted: jumps from 1 to 0.9 at step 10
        ({"shift_decay": True}, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0}),
        ({"power": 0.5}, {10: 0.9**0.5, 75: 0.5, 100: 0.0}),
        ({"power": 0.0}, {5: 0.5, 10: 1.0, 100: 1.0}),
        ({"warmup_steps": 0}, {0: 1.0, 50: 0.5}),
    ],
)
def test_schedules(changes, expected):
    schedule = schedule_of(OptimConfig(**{"lr": 1.0, "warmup_steps": 10, **changes}), steps=100)
    for step, lr in expected.items():
        np.testing.assert_allclose(schedule(step), lr, rtol=1e-6, atol=1e-7, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"schedule": "cosine"}, lambda s: 0.5 * (1 + np.cos(np.pi * (s - 10) / 90))),
        ({"schedule": "cosine", "final_lr": 0.1}, lambda s: 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (s - 10) / 90))),
        ({"schedule": "wsd_linear", "decay_steps": 30}, lambda s: 1.0 if s < 70 else 1 - (s - 70) / 30),
        ({"schedule": "wsd_sqrt", "decay_steps": 30}, lambda s: 1.0 if s < 70 else 1 - np.sqrt((s - 70) / 30)),
        ({"schedule": "wsd_sqrt", "decay_steps": 30, "final_lr": 0.5},
         lambda s: 1.0 if s < 70 else 0.5 + 0.5 * (1 - np.sqrt((s - 70) / 30))),
        ({"schedule": "wsd_sqrt"}, lambda s: 1.0),
        ({"schedule": "wsd_linear", "decay_steps": 90}, lambda s: 1 - (s - 10) / 90),
        ({"final_lr": 0.2}, lambda s: 0.2 + 0.8 * (1 - s / 100)),
    ],
)  # fmt: skip
def test_every_step_of_a_schedule_equals_numpy(changes, left):
    schedule = jax.jit(schedule_of(OptimConfig(lr=3.0, warmup_steps=10, **changes), steps=100))
    for step in range(101):
        expected = 3.0 * (step / 10 if step < 10 else left(step))
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-6, atol=1e-6, err_msg=f"step {step}")


@pytest.mark.parametrize("name", ["power", "cosine", "wsd_linear", "wsd_sqrt"])
def test_rate_and_length_are_data_of_one_program(name):
    """Runs of other rates, lengths, warm-ups and cool-downs get their own rates from it."""
    fields = {"schedule": name, "final_lr": 0.1} | ({"shift_decay": True} if name == "power" else {})
    program = jax.jit(lambda point, step: make_schedule(OptimConfig(**fields), point)(step))
    for lr, steps, warmup, decay in [(1e-3, 100, 10, 30), (3e-5, 40, 0, 40), (2.0, 7, 7, 0), (0.5, 2**24, 3, 1000)]:
        decay = decay if name.startswith("wsd") else 0
        config = OptimConfig(lr=lr, warmup_steps=warmup, decay_steps=decay, **fields)
        point = point_of(Config(optim=config, run=RunConfig(steps=steps)))
        alone = make_schedule(config, point)
        for step in sorted({0, 1, warmup, steps // 2, steps - 1, steps}):
            np.testing.assert_allclose(program(point, step), alone(step), rtol=3e-7, err_msg=f"{point}, step {step}")
            assert alone(step) > 0.0 or step == 0 < warmup
    assert program._cache_size() == 1


@pytest.mark.parametrize("name", ["power", "cosine", "wsd_sqrt"])
def test_the_schedule_of_a_phase_is_that_of_a_run_from_there(name):
    config = OptimConfig(lr=0.5, warmup_steps=3, schedule=name, decay_steps=10 if name == "wsd_sqrt" else 0)
    begin = 2**24 + 1  # where float32 does not tell a step from the next
    later = make_schedule(config, point_of(Config(optim=config), Stretch(begin, begin + 40)))
    alone = schedule_of(config, steps=40)
    assert [float(later(begin + step)) for step in range(41)] == [float(alone(step)) for step in range(41)]


def test_a_point_holds_all_that_its_fields_may():
    """A seed of 32 bits, and as many steps as a run can have."""
    point = point_of(Config(optim=OptimConfig(lr=0.1), run=RunConfig(seed=2**32 - 1, steps=2**31 - 1)))
    assert (int(point.seed), int(point.steps)) == (2**32 - 1, 2**31 - 1)
    assert all(np.ndim(x) == 0 and x.dtype in (np.uint32, np.float32, np.int32) for x in point)
    keys = [jax.random.key_data(jax.random.key(seed)) for seed in (point.seed, 2**32 - 1)]
    np.testing.assert_array_equal(*keys)
