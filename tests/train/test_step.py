"""`bertjax.train.step` and `bertjax.parallel.sharding`: one update, however it is cut up."""

import jax
import numpy as np
import pytest
from small import fresh_state, one_device_mesh, random_batch, task_of, tiny, train_step_of

from bertjax.config.recipe import override
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.tasks.terms import terms
from bertjax.train.session import Engine
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


@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"data": 2, "fsdp": 4, "shard_optimizer": True}, {"data": 1, "fsdp": 2, "tensor": 4}], ids=str
)
def test_meshes_equal_one_device(reference, mesh):
    config, state, metrics = reference
    cut = override(config, mesh=mesh)
    assert_same((state, metrics), run(cut, sharding.make_mesh(cut.mesh)))


@pytest.mark.parametrize("name", [pytest.param("stableadamw", marks=pytest.mark.long), "muon"])
def test_optimizers_that_look_at_whole_matrices_do_not_see_the_mesh(name):
    """Frozen parameters stay, the norm is clipped, and an average is kept."""
    optim = {"name": name, "bias_correction": True, "lr": 1e-2, "ema": 0.5, "freeze": ("encoder/embeddings/position",)}
    base = tiny(model=NO_DROPOUT, optim=optim | WELL_CONDITIONED | {"clip_norm": 0.1})
    one = run(base, one_device_mesh(base))
    cut = override(base, mesh={"data": 2, "fsdp": 2, "tensor": 2, "shard_optimizer": True})
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
    """Nor on which rows of a microbatch a shard has."""
    config = tiny(data={"batch_size": 16, "packing": 2}, optim=WELL_CONDITIONED | {"accumulate": 2})
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


POINTS = [
    {"optim": {"lr": lr, "warmup_steps": warmup}, "run": {"seed": seed, "steps": steps}}
    for lr, warmup, seed, steps in [(1e-3, 2, 0, 6), (1e-2, 0, 1, 6), (1e-2, 3, 1, 9), (3e-4, 1, 2**32 - 1, 4)]
]


def test_runs_of_other_rates_seeds_and_lengths_share_one_program():
    """Each is what it is with a step of its own: dropout by its seed, the rate by its own schedule."""
    base = tiny(model={"num_layers": 2})
    mesh, rows = one_device_mesh(base), [random_batch(base, seed=seed) for seed in range(3)]
    task = task_of(base)
    shared = Engine(base, task, mesh)
    seen = []

    def trained(engine, config):
        state, step = engine.fresh(config.run.seed), engine.step_of(config, task)
        values = []
        for batch in rows:
            state, found = step(state, sharding.put_batch(batch, mesh))
            values.append(jax.device_get(found))
        return jax.device_get((state, values))

    for point in POINTS:
        seen.append(trained(shared, override(base, **point)))
    assert shared.step.compiles() == 1
    for point, found in zip(POINTS[1:3], seen[1:3], strict=True):
        config = override(base, **point)
        assert_same(found, trained(Engine(config, task, mesh), config))
    losses = [float(values[0]["loss"]) for _, values in seen]
    assert len(set(losses)) == 3 and losses[1] == losses[2], "three seeds"
    assert [float(values[2]["lr"]) for _, values in seen][1:3] == pytest.approx([1e-2 * 4 / 6, 1e-2 * 2 / 3])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_frozen_costs_no_gradient(accumulate):
    """A frozen encoder: only the heads move, as they do beside one that learns; a third of the work is left."""
    pairs = {"objective": {"mlm": 0.0, "pair": 1.0}, "data": {"examples": "sop"}}
    optim = {"freeze": ("encoder",), "clip_norm": 0.0, "accumulate": accumulate}
    config = tiny(model=NO_DROPOUT, optim=optim | WELL_CONDITIONED, **pairs)
    mesh = one_device_mesh(config)
    batch, work = sharding.put_batch(random_batch(config), mesh), {}
    for freeze in (("encoder",), ()):
        engine = Engine(learning := override(config, optim={"freeze": freeze}), task_of(learning), mesh)
        begun = engine.fresh(0)
        before = jax.device_get(begun.params)
        work[freeze] = engine.step.compile(begun, batch).cost_analysis()["flops"]
        state, values = engine.step(begun, batch)
        after = jax.device_get(state.params)
        same = jax.tree.map(np.array_equal, before, after)
        assert all(jax.tree.leaves(same["encoder"])) is bool(freeze)
        assert not any(jax.tree.leaves({name: same[name] for name in ("pooler", "pair_head")}))
        heads = {name: after[name] for name in ("pooler", "pair_head")}
        if freeze:
            frozen, norm = heads, float(values["grad_norm"])
    assert_same(frozen, heads)
    assert 0.0 < norm < float(values["grad_norm"]), "of what moves alone"
    assert work[("encoder",)] < 0.5 * work[()]


def test_evaluation_sums_do_not_depend_on_the_batch():
    config = tiny()
    mesh = one_device_mesh(config)
    state, rows = fresh_state(config, mesh), random_batch(config)
    step = make_eval_step(network.forward(config.model, config.compute), terms(config.objective), mesh)
    whole = step(state.params, sharding.put_batch(rows, mesh))
    parts = [step(state.params, {k: v[i : i + 4] for k, v in rows.items()}) for i in (0, 4)]
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-5), whole, *parts)
    assert whole["mlm"]["weight"] == rows["mlm_weights"].sum() and set(whole) == {"mlm", "pair"}
