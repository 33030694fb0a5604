"""`bertjax.train.state`: what is promised without memory is what is made."""

from dataclasses import replace

import flax.linen as nn
import jax
import light
import numpy as np
import pytest
from small import fresh_state, one_device_mesh, random_batch, shapes_of_state, tiny

from bertjax.config.recipe import override
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


def split(key):
    """Parameters that a mesh splits, over two of its axes."""
    boxed = nn.with_logical_partitioning(nn.initializers.normal(), ("hidden", "ffn"))
    keys = jax.random.split(key)
    return {"table": boxed(keys[0], (light.CONFIG.model.vocab_size, light.WIDTH)), "mix": boxed(keys[1], (64, 64))}


EIGHT = {"data": 2, "fsdp": 2, "tensor": 2}
TASK = replace(light.task(), init=split, selects=("dev", "f1"))


def engine_of(config=light.CONFIG, task=TASK, mesh=None):
    return Engine(config, task, mesh or one_device_mesh(config))


def test_seeds_share_one_program():
    engine = engine_of()
    one, other, again = (engine.fresh(seed) for seed in (0, 2**32 - 1, 0))
    assert engine._birth._jitted._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.params["mix"], other.params["mix"])


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("mesh", [{}, EIGHT, EIGHT | {"shard_optimizer": True}], ids=str)
def test_the_best_parameters_live_where_the_others_do_and_stay_while_training_goes_on(mesh, ema):
    """What is kept is what was evaluated; and one program, compiled ahead, takes the state before and after."""
    config = override(light.CONFIG, optim={"ema": ema, "warmup_steps": 0, "lr": 0.1}, mesh=mesh)
    devices = sharding.make_mesh(config.mesh) if mesh else one_device_mesh(config)
    engine = engine_of(config, mesh=devices)
    state, step = engine.fresh(0), engine.step_of(config, TASK)
    rows = sharding.put_batch(random_batch(config), devices)
    step.compile(engine.shapes, rows)

    def places(one, other):
        jax.tree.map(lambda x, y: np.testing.assert_equal(x.sharding, y.sharding), one, other)

    assert bool(mesh) is (len({str(piece.index) for piece in state.params["mix"].addressable_shards}) == 4)
    places(engine.shapes, state)
    places(state.best.params, state.trained)
    assert state.model is state.trained and state.place_of_model[-1] == ("average" if ema else "params")
    trained = []
    for value in (0.5, 0.25, 0.5, 0.75, 0.125):
        state, _ = step(state, rows)
        trained.append(jax.device_get(state.trained))
        before = state.best
        state, best = state.evaluated(value)
        assert best is state.best
        places(before, best)
    assert (best.number, int(best.step), int(best.since)) == (0.75, 4, 1)
    jax.tree.map(np.testing.assert_array_equal, state.model, trained[3])
    assert state.place_of_model == ("best", "params") and step.compiles() == 1
    assert not np.array_equal(state.model["mix"], state.trained["mix"])


def test_of_equal_values_the_first_is_best():
    """Equal as float32 has them, in which the best is kept."""
    state, found = engine_of().fresh(0), []
    for step, value in enumerate((-0.1, -0.1 + 1e-12, -0.1 - 1e-12, -0.2, -0.1 + 1e-6), 1):
        state, best = state.replace(step=np.int32(step)).evaluated(value)
        found.append((int(best.step), int(best.since)))
    assert found == [(1, 0), (1, 1), (1, 2), (1, 3), (5, 0)] and best.number == -0.099999


def test_a_run_that_goes_by_its_last_weights_keeps_no_others():
    """But it knows its best value, by which it may end; and one that selects nothing has not even that."""
    state = engine_of(override(light.CONFIG, task={"select": "last"})).fresh(0)
    assert state.best.params is None
    state, best = state.replace(step=np.int32(3)).evaluated(0.5)
    assert (int(best.step), best.number) == (3, 0.5) and state.model is state.params
    plain = engine_of(task=replace(TASK, selects=None)).fresh(0)
    assert plain.best is None and plain.model is plain.params
    assert len(jax.tree.leaves(plain)) == len(jax.tree.leaves(state)) - 3
