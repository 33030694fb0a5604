"""`bertjax.train.guard`: nothing that is not finite is saved, used or shown, and the error says what it is; an update
that is not finite is skipped, and a run that is stuck goes back once.
"""

import os
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from small import fresh_state, random_batch, task_of, tiny

from bertjax.config.recipe import override
from bertjax.errors import NumericError
from bertjax.parallel import sharding
from bertjax.steps import numbers
from bertjax.train import checkpoint, guard, metrics
from bertjax.train.guard import Skipped
from bertjax.train.session import Engine


def spoiled(tree, path, value):
    """A copy with one element of one leaf replaced."""

    def one(name, x):
        return x.at[(0,) * x.ndim].set(value) if jax.tree_util.keystr(name, simple=True, separator="/") == path else x

    return jax.tree_util.tree_map_with_path(one, tree)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_part_of_a_state_is_looked_at(value):
    """Parameters and both moments, on any mesh: the first that is bad is named, and the step."""
    config = tiny(model={"num_layers": 2}, mesh={"fsdp": 4})
    state = fresh_state(config, sharding.make_mesh(config.mesh))
    guard.check_state(7, state)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(n, simple=True, separator="/") for n, x in leaves if x.dtype == jnp.float32]
    moments = [name for name in names if name.startswith("opt_state")]
    assert len(moments) * 3 == len(names) * 2
    for name in (names[0], moments[0], moments[-1]):
        with pytest.raises(NumericError, match=f"step 7: {name} is no longer finite") as error:
            guard.check_state(7, spoiled(state, name, value))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_arrays_of_the_host_and_of_a_device_of_any_type(kind):
    good = {"count": kind(np.int32(3)), "half": kind(jnp.full(3, 1e38, jnp.bfloat16)), "w": kind(np.ones((2, 3)))}
    guard.check_restored("runs/x/9", good)
    for name in ("half", "w"):
        bad = good | {name: kind(good[name] * np.inf)}
        with pytest.raises(NumericError, match=f"runs/x/9: {name} is not finite"):
            guard.check_restored("runs/x/9", bad)


def test_values_are_numbers_or_are_not_there():
    guard.check_values("step 3", {"loss": 2.5, "mfu": None})
    with pytest.raises(NumericError, match="step 3: mlm_loss nan, grad_norm inf: no longer a number"):
        guard.check_values("step 3", {"loss": 2.5, "mfu": None, "mlm_loss": np.nan, "grad_norm": np.inf})


@jax.custom_vjp
def spoil(x, bad_B):
    """`x`, whose gradient is NaN in the rows that are bad: there is nothing to be seen of it in a loss."""
    return x


spoil.defvjp(
    lambda x, bad_B: (x, bad_B),
    lambda bad_B, g: (jnp.where(bad_B.reshape(-1, *[1] * (g.ndim - 1)) > 0, jnp.nan, g), jnp.zeros_like(bad_B)),
)


def is_rate(x):
    return isinstance(x, optax.ScaleByScheduleState)


def left_out(state):
    """The state a step later, of which nothing but the clock has moved."""
    later = jax.tree.map(lambda x: x._replace(count=x.count + 1) if is_rate(x) else x, state.opt_state, is_leaf=is_rate)
    return replace(state, step=state.step + 1, opt_state=later)


def on_devices(state):
    """The bytes of each array on each device."""
    return [shard.data.tobytes() for x in jax.tree.leaves(state) for shard in x.addressable_shards]


def test_a_gradient_of_one_device_that_is_no_number_moves_nothing_on_any():
    """The state afterwards is that of a run in which there was no such update, to the bit: weights, their average, the
    moments of both optimizers and the rate.
    """
    optim = {"name": "muon", "bias_correction": True, "ema": 0.9}
    config = tiny(model={"num_layers": 1}, optim=optim, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    mesh, plain = sharding.make_mesh(config.mesh), task_of(config)

    def forward(own, params, batch, key):
        outputs = own(params, batch, key)
        return outputs | {"mlm_logits": spoil(outputs["mlm_logits"], batch["bad"])}

    engine = Engine(config, replace(plain, forward=jax.tree_util.Partial(forward, plain.forward)), mesh)
    bad_B = (np.arange(config.data.batch_size) == 3).astype(np.float32)
    rows = [random_batch(config, seed=seed) | {"bad": bad_B * (seed == 1)} for seed in range(3)]

    def update(state, number):
        return engine.step(state, sharding.put_batch(rows[number], mesh))

    state, values = update(update(engine.fresh(0), 0)[0], 1)
    assert np.isfinite(values["loss"]) and np.isnan(values["grad_norm"]) and values["skipped"] == 1.0
    expected = left_out(update(engine.fresh(0), 0)[0])
    assert on_devices(state) == on_devices(expected)
    (state, values), (expected, theirs) = update(state, 2), update(expected, 2)
    assert on_devices(state) == on_devices(expected) and on_devices(values) == on_devices(theirs)
    assert values["skipped"] == 0.0 and engine.step.compiles() == 1
    (rate,) = (x for x in jax.tree.leaves(state.opt_state, is_leaf=is_rate) if is_rate(x))
    assert int(rate.count) == int(state.step) == 3, "the rate that is made is the rate that is told"


def spoiled_forward(params, batch, key):
    return {"y": spoil(params["slope"] * batch["x"], batch["bad"])}


def planted(bad, seen=None, ended_at=None):
    """Rows of which one in each batch has a gradient of NaN, where `bad` says so of the first; and SIGTERM at a row."""

    class Rows(toy.Rows):
        def __next__(self):
            row = self._row
            if row == ended_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if seen is not None:
                seen.append(row // B)
            return super().__next__() | {"bad": ((np.arange(B) == 5) * bad(row // B)).astype(np.float32)}

    return Rows


B = toy.CONFIG.data.batch_size
CONFIG = override(toy.CONFIG, run={"steps": 20, "keep": 99, "skip_limit": 5})
STRETCH = range(7, 12)
"""Batches, from 0, that no update can be made of: steps 8 to 12 of a run."""


def train(directory, bad, *, seen=None, ended_at=None, **run):
    batches = planted(bad, seen, ended_at)
    forward = jax.tree_util.Partial(spoiled_forward)
    return toy.train(directory, override(CONFIG, run=run), batches=batches, forward=forward)


def log(directory, *names):
    """These values of each step that was trained, None for those that are not there."""
    lines = [line for line in metrics.read(directory / metrics.METRICS) if "loss" in line]
    return [(line["step"], *(line.get(name) for name in names)) for line in lines]


def left(directory):
    """What the newest checkpoint has, and that each of them is finite."""
    target = Engine(CONFIG, toy.task(), sharding.make_mesh(CONFIG.mesh)).shapes
    for step in numbers(directory / "checkpoints"):
        found = checkpoint.restore(directory / "checkpoints", target, step=step)
    return found.step, found.rows, found.skipped, [x.tobytes() for x in jax.tree.leaves(jax.device_get(found.state))]


def told(capsys, words):
    return [line for line in capsys.readouterr().err.splitlines() if words in line]


def test_one_update_is_skipped_and_counted(tmp_path, capsys):
    """What is due to be saved then is not."""
    assert train(tmp_path, lambda batch: batch == 8)
    assert told(capsys, "is skipped") == [
        "step 9: grad_norm nan: no longer a number; the update is skipped, 1 in a row (run.skip_limit = 5)"
    ]
    found = log(tmp_path, "grad_norm", "skipped")
    assert [step for step, norm, _ in found if norm is None] == [9]
    assert [count for _, _, count in found] == 8 * [None] + 12 * [1]
    assert numbers(tmp_path / "checkpoints") == [3, 6, 12, 15, 18, 20]
    assert left(tmp_path)[:3] == (20, 20 * B, Skipped(0, 1))


@pytest.fixture(scope="module")
def went_back(tmp_path_factory):
    """A run that met a stretch as long as its limit; with the batches that it had."""
    directory, seen = tmp_path_factory.mktemp("back"), []
    assert train(directory, lambda batch: batch in STRETCH, seen=seen)
    return directory, seen


def test_a_stretch_as_long_as_the_limit_is_left_by_other_data(went_back):
    """The run goes back to its last save, of step 6, and learns from rows that it has not had."""
    directory, seen = went_back
    assert seen == list(range(26))  # 12 for steps 1 to 12, and 14 for 7 to 20
    assert left(directory)[:3] == (20, 26 * B, Skipped(0, 5))
    assert [count for _, count in log(directory, "skipped")] == 6 * [None] + 14 * [5]
    assert [step for step, _ in log(directory, "loss")] == list(range(1, 21))


@pytest.mark.parametrize("stops", [(9,), (12,), (8, 11, 13), (7, 20)])
def test_a_run_that_is_stopped_in_a_stretch_or_after_it_goes_on_to_the_bit(went_back, tmp_path, stops):
    """Its steps are those of the run that was not: it goes back as often, as far, and to the same data. What was saved
    because it was stopped is nothing to go back to.
    """
    for steps in stops:
        train(tmp_path, lambda batch: batch in STRETCH, steps=steps)
    assert train(tmp_path, lambda batch: batch in STRETCH)
    names = ("loss", "grad_norm", "skipped")
    assert log(tmp_path, *names) == log(went_back[0], *names)
    assert left(tmp_path) == left(went_back[0])


def test_a_run_that_is_stopped_as_soon_as_it_has_gone_back_goes_on_to_the_bit(went_back, tmp_path, capsys):
    assert not train(tmp_path, lambda batch: batch in STRETCH, ended_at=14 * B)
    assert len(told(capsys, "goes back to step 6, and on with row 96 of the data")) == 1
    assert numbers(tmp_path / "checkpoints")[-1] == 8
    assert train(tmp_path, lambda batch: batch in STRETCH)
    assert told(capsys, "goes back") == []
    assert left(tmp_path) == left(went_back[0])


def test_a_run_goes_back_once_for_a_stretch(tmp_path, capsys):
    """It ends with one line; and again when it is started again, which changes nothing."""
    for _ in range(2):
        with pytest.raises(NumericError) as error:
            train(tmp_path, lambda batch: batch >= 7)
        assert str(error.value) == (
            "step 11: grad_norm nan: no longer a number; 5 updates in a row were skipped, also after going back to step"
            f" 6 with other data; earlier checkpoints are intact: {guard.FIX}"
        )
        assert len(told(capsys, "goes back")) == 1
        assert left(tmp_path)[:3] == (6, 6 * B, Skipped()) and numbers(tmp_path / "checkpoints") == [3, 6]


def test_what_is_saved_in_the_second_stretch_is_nothing_to_go_back_to(tmp_path, capsys):
    """Stopped after it went back and before it learnt anything, a run does not begin to count anew."""
    assert not train(tmp_path, lambda batch: batch >= 7, ended_at=14 * B)
    assert left(tmp_path)[:3] == (8, 14 * B, Skipped(2, 7))
    with pytest.raises(NumericError, match="step 11: .* also after going back to step 6 with other data"):
        train(tmp_path, lambda batch: batch >= 7)
    assert len(told(capsys, "goes back")) == 1


def test_after_a_good_save_a_run_may_go_back_again(tmp_path, capsys):
    """Batches 16 to 20 are of steps 11 to 15: it was saved at 9, with other data since it went back."""
    assert train(tmp_path, lambda batch: batch in STRETCH or batch in range(16, 21))
    assert [line.split(": goes back ")[1] for line in told(capsys, "goes back")] == [
        "to step 6, and on with row 96 of the data",
        "to step 9, and on with row 168 of the data",
    ]
    assert left(tmp_path)[:3] == (20, (20 + 6 + 6) * B, Skipped(0, 10))


def test_weights_that_overflow_by_themselves_are_noticed_by_the_next_loss_and_never_saved(tmp_path):
    """The update is one of numbers: what it leads to is none."""
    config = override(toy.CONFIG, optim={"lr": 3e38}, run={"skip_limit": 2})
    with pytest.raises(NumericError, match="^step 3: .*loss inf.*; 2 updates in a row were skipped, and there is no"):
        toy.train(tmp_path / "a", config)
    with pytest.raises(NumericError, match="^step 1: .* is no longer finite, so it is not saved"):
        toy.train(tmp_path / "b", override(config, run={"save_every": 1}))
    assert numbers(tmp_path / "b" / "checkpoints") == []


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (0, "step 1: grad_norm nan: no longer a number; earlier checkpoints are intact"),
        (2, "step 2: .*; 2 updates in a row were skipped, and there is no checkpoint to go back to"),
    ],
)
def test_without_a_limit_or_a_checkpoint_a_run_ends(tmp_path, limit, reason):
    with pytest.raises(NumericError, match=f"^{reason}: lower optim.lr or set optim.clip_norm, and start in another"):
        train(tmp_path, lambda batch: True, skip_limit=limit)
    assert numbers(tmp_path / "checkpoints") == []


PHASES = override(CONFIG, run={"save_every": 6}, phases={"steps": (10, 10)})


def train_in_phases(directory, bad, *, seen=None, ended_at=None):
    """Two phases, in the second of which batches are bad; `seen` has a list for each, `ended_at` is of the second."""
    seen, forward = seen or ([], []), jax.tree_util.Partial(spoiled_forward)
    later = toy.task(batches=planted(bad, seen[1], ended_at), forward=forward)
    first = planted(lambda batch: False, seen[0])
    return toy.train(directory, PHASES, batches=first, forward=forward, later=(later,))


def test_a_run_goes_back_from_one_phase_into_another(tmp_path, capsys):
    """To its last save, of step 6, and then learns in both phases from rows that it has not had; also where it was
    stopped in between.
    """
    seen = ([], [])
    assert train_in_phases(tmp_path / "whole", lambda batch: batch < 5, seen=seen)
    assert seen == ([*range(10), *range(15, 19)], [*range(6), *range(9, 19)])
    assert "step 15: " in (told := capsys.readouterr().err) and "back to step 6, and on with row 120 of the" in told
    assert left(tmp_path / "whole")[:3] == (20, 19 * B, Skipped(0, 5))
    for row in (2 * B, 12 * B):
        assert not train_in_phases(tmp_path / "parts", lambda batch: batch < 5, ended_at=row)
    assert train_in_phases(tmp_path / "parts", lambda batch: batch < 5)
    assert left(tmp_path / "whole") == left(tmp_path / "parts")
    assert log(tmp_path / "whole", "loss", "skipped") == log(tmp_path / "parts", "loss", "skipped")
