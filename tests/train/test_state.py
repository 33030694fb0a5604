"""`bertjax.train.state`: what is promised without memory is what is made."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small import fresh_state, one_device_mesh, random_batch, shapes_of_state, task_of, tiny

from bertjax.parallel import sharding
from bertjax.train.session import Engine


def test_the_abstract_state_is_that_of_the_real_one():
    config = tiny(optim={"name": "lamb"})
    mesh = one_device_mesh(config)
    real, promised = fresh_state(config, mesh), shapes_of_state(config, mesh)
    jax.tree.map(lambda x, p: np.testing.assert_equal((x.shape, x.dtype), (p.shape, p.dtype)), real, promised)
    assert jax.tree.structure(real) == jax.tree.structure(promised)


def test_a_seed_gives_the_same_state():
    config = tiny()
    one, same = (fresh_state(config, one_device_mesh(config)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    other = fresh_state(tiny(run={"seed": 1}), one_device_mesh(config))
    word = ("encoder", "embeddings", "word")
    assert not np.array_equal(*(s.params[word[0]][word[1]][word[2]] for s in (one, other)))


def test_the_average_of_the_parameters_lives_where_they_do():
    config = tiny(optim={"ema": 0.9}, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    promised = shapes_of_state(config, sharding.make_mesh(config.mesh))
    assert promised.trained is not promised.params
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.sharding, b.sharding), promised.trained, promised.params)
    plain = shapes_of_state(tiny(), one_device_mesh(tiny()))
    assert plain.trained is plain.params


def test_seeds_share_one_program():
    config = tiny(model={"num_layers": 1})
    engine = Engine(config, task_of(config), one_device_mesh(config))
    one, other, again = (engine.fresh(seed) for seed in (0, 2**32 - 1, 0))
    assert engine._birth._jitted._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.params["pooler"]["kernel"], other.params["pooler"]["kernel"])


@pytest.mark.parametrize(("mesh", "ema"), [({}, 0.0), ({"data": 2, "fsdp": 2, "tensor": 2}, 0.5)], ids=str)
def test_the_best_parameters_live_where_the_others_do_and_stay_while_training_goes_on(mesh, ema):
    """What is kept is what was evaluated; the step that takes the state compiles once, before and after."""
    config = tiny(model={"num_layers": 1}, optim={"ema": ema, "warmup_steps": 0}, mesh=mesh)
    task = replace(task_of(config), selects=("dev", "f1"))
    devices = sharding.make_mesh(config.mesh) if mesh else one_device_mesh(config)
    engine = Engine(config, task, devices)
    state, step = engine.fresh(0), engine.step_of(config, task)
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y.sharding), engine.shapes, state)
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y.sharding), state.best.params, state.params)
    assert state.model is state.trained and state.place_of_model[-1] in ("params", "average")
    trained = []
    for value in (0.5, 0.25, 0.5, 0.75, 0.125):
        state, _ = step(state, sharding.put_batch(random_batch(config), devices))
        trained.append(jax.device_get(state.trained))
        before = state.best
        state, best = state.evaluated(value)
        assert best is state.best
        jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y.sharding), before, best)
    assert (best.number, int(best.step), int(best.since)) == (0.75, 4, 1)
    jax.tree.map(np.testing.assert_array_equal, state.model, trained[3])
    assert state.place_of_model == ("best", "params") and step.compiles() == 1
    assert not np.array_equal(*(x["pooler"]["kernel"] for x in (state.model, state.trained)))


def test_of_equal_values_the_first_is_best():
    """Equal as float32 has them, in which the best is kept."""
    config = tiny(model={"num_layers": 1})
    state = Engine(config, replace(task_of(config), selects=("dev", "f1")), one_device_mesh(config)).fresh(0)
    found = []
    for step, value in enumerate((-0.1, -0.1 + 1e-12, -0.1 - 1e-12, -0.2, -0.1 + 1e-6), 1):
        state, best = state.replace(step=np.int32(step)).evaluated(value)
        found.append((int(best.step), int(best.since)))
    assert found == [(1, 0), (1, 1), (1, 2), (1, 3), (5, 0)] and best.number == -0.099999


def test_a_run_that_goes_by_its_last_weights_keeps_no_others():
    """But it knows its best value, by which it may end; and one that selects nothing has not even that."""
    last = tiny(model={"num_layers": 1}, task={"select": "last"})
    mesh = one_device_mesh(last)
    state = Engine(last, replace(task_of(last), selects=("dev", "f1")), mesh).fresh(0)
    assert state.best.params is None
    state, best = state.replace(step=np.int32(3)).evaluated(0.5)
    assert (int(best.step), best.number) == (3, 0.5) and state.model is state.params
    plain = Engine(last, task_of(last), mesh).fresh(0)
    assert plain.best is None and plain.model is plain.params
    assert len(jax.tree.leaves(plain)) == len(jax.tree.leaves(state)) - 3
