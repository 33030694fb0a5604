"""`bertjax.train.step` and `bertjax.parallel.sharding`: one update, however it is cut up."""

import jax
import numpy as np
import pytest
from small import fresh_state, one_device_mesh, random_batch, tiny, train_step_of

from bertjax.config.recipe import override
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.tasks.terms import terms
from bertjax.train.step import make_eval_step

# Adam divides a gradient by its own size: with the usual eps the rounding of one that is nearly 0 becomes its sign.
WELL_CONDITIONED = {"eps": 1e-3, "warmup_steps": 0}
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}


def run(config, mesh, *, steps=2):
    """Parameters and metrics after some updates on batches with uneven masks."""
    state, step = fresh_state(config, mesh), train_step_of(config, mesh)
    for i in range(steps):
        state, metrics = step(state, sharding.put_batch(random_batch(config, seed=i), mesh))
    assert step.compiles() == 1
    return jax.device_get(state), jax.device_get(metrics)


def assert_same(one, other, *, atol=1e-6):
    """Equal to float32 rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5), one, other)


@pytest.fixture(scope="module")
def reference():
    """Two LAMB updates on one device; LAMB, because its norms are global over shards."""
    config = tiny(model=NO_DROPOUT, optim={"name": "lamb", "lr": 1e-2} | WELL_CONDITIONED)
    return config, *run(config, one_device_mesh(config))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_microbatches_equal_one_batch(reference, accumulate):
    config, state, metrics = reference
    cut = override(config, optim={"accumulate": accumulate})
    assert_same((state, metrics), run(cut, one_device_mesh(cut)))


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (1, 2, 4)])
def test_meshes_equal_one_device(reference, shape):
    config, state, metrics = reference
    cut = override(config, mesh=dict(zip(("data", "fsdp", "tensor"), shape, strict=True)))
    assert_same((state, metrics), run(cut, sharding.make_mesh(cut.mesh)))


@pytest.mark.parametrize("name", ["stableadamw", "muon"])
def test_optimizers_that_look_at_whole_matrices_do_not_see_the_mesh(name):
    """Frozen parameters stay, the norm is clipped, and an average is kept."""
    optim = {"name": name, "bias_correction": True, "lr": 1e-2, "ema": 0.5, "freeze": ("encoder/embeddings/position",)}
    base = tiny(model=NO_DROPOUT, optim=optim | WELL_CONDITIONED | {"clip_norm": 0.1})
    one = run(base, one_device_mesh(base))
    cut = override(base, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    assert_same(one, run(cut, sharding.make_mesh(cut.mesh)), atol=1e-5)
    begun = fresh_state(base, one_device_mesh(base)).params
    path = ("encoder", "embeddings", "position")
    np.testing.assert_array_equal(*(tree[path[0]][path[1]][path[2]] for tree in (begun, one[0].params)))


def test_accumulation_on_a_mesh_with_shared_layers():
    base = tiny(model=NO_DROPOUT | {"share": "all", "embedding_size": 16}, optim=WELL_CONDITIONED)
    one = run(base, one_device_mesh(base))
    cut = override(base, mesh={"data": 2, "fsdp": 2, "tensor": 2}, optim={"accumulate": 2})
    assert_same(one, run(cut, sharding.make_mesh(cut.mesh)))


def test_dropout_does_not_depend_on_the_mesh_but_on_the_step():
    config = tiny(optim=WELL_CONDITIONED)
    one = run(config, one_device_mesh(config))
    cut = override(config, mesh={"data": 4, "fsdp": 2})
    assert_same(one, run(cut, sharding.make_mesh(cut.mesh)))
    # The same batch at another step: only the folded key differs, and with it the loss.
    mesh = one_device_mesh(config)
    step, batch = train_step_of(config, mesh), sharding.put_batch(random_batch(config), mesh)
    _, first = step(fresh_state(config, mesh), batch)
    _, again = step(fresh_state(config, mesh), batch)
    _, later = step(fresh_state(config, mesh).replace(step=jax.numpy.int32(1)), batch)
    assert first["loss"] == again["loss"] != later["loss"]


def test_evaluation_sums_do_not_depend_on_the_batch():
    config = tiny()
    mesh = one_device_mesh(config)
    state, rows = fresh_state(config, mesh), random_batch(config)
    step = make_eval_step(network.forward(config.model, config.compute), terms(config.objective), mesh)
    whole = step(state.params, sharding.put_batch(rows, mesh))
    parts = [step(state.params, {k: v[i : i + 4] for k, v in rows.items()}) for i in (0, 4)]
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-5), whole, *parts)
    assert whole["mlm"]["weight"] == rows["mlm_weights"].sum() and set(whole) == {"mlm", "pair"}
