"""`bertjax.train.schedule` against NumPy, and its numbers as data of one program."""

import jax
import numpy as np
import pytest

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
