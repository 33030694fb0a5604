"""`bertjax.parallel.reduction`: one sum over the data axis, wherever it goes and whatever is added up before it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from small import task_of, tiny

from bertjax.ahead import hlo
from bertjax.ahead.traffic import collectives
from bertjax.config.recipe import override
from bertjax.parallel import reduction, sharding
from bertjax.tasks import fit
from bertjax.train.session import Engine


def mesh_of(*shape):
    return sharding.make_mesh(tiny(mesh=dict(zip(sharding.AXES, shape, strict=True))).mesh)


def products(rows, w_HF, scale):
    """What shards add up in a step, small: the gradient of a product, and a scalar."""
    rows = sharding.constrain(rows, "rows", None)
    return {"w": scale * jnp.einsum("BH,BF->HF", rows, jnp.tanh(rows @ w_HF))}, {"rows": jnp.sum(rows)}


def numbered(rows, w_HF, scale):
    """The same of rows that are weighed by which they are in the whole batch."""
    return products(rows * (1.0 + sharding.row_numbers(rows.shape[0])[:, None]), w_HF, scale)


ROWS, WEIGHTS = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32), np.eye(8, 16, dtype=np.float32)


def lowered(mesh, function, *, split, dtype="float32"):
    place = NamedSharding(mesh, sharding.spec(("hidden", "ffn"), (8, 16), mesh))
    place = sharding.split_over_data(place, (8, 16)) if split else place
    rows = jax.device_put(ROWS, sharding.rows_sharding(mesh))

    def whole(rows, w_HF, scale):
        return reduction.summed(function, rows, w_HF, scale, places={"w": place}, dtype=dtype)

    with jax.set_mesh(mesh):
        return jax.jit(whole).lower(rows, WEIGHTS, np.float32(0.5)), (rows, WEIGHTS, np.float32(0.5)), place


@pytest.mark.parametrize("shape", [(1, 8, 1), (8, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("split", [False, True])
def test_the_sum_does_not_depend_on_the_mesh(shape, split):
    expected = numbered(ROWS, WEIGHTS, 0.5)
    program, arguments, place = lowered(mesh_of(*shape), numbered, split=split)
    actual = program.compile()(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5), actual, expected)
    assert shape[0] == 1 or actual[0]["w"].sharding.is_equivalent_to(place, 2)


def test_half_precision_is_for_the_way_alone():
    """Each shard's part is rounded before it is sent, what arrives is float32, and the scalars are not touched."""
    mesh = mesh_of(2, 2, 2)
    program, arguments, _ = lowered(mesh, products, split=False, dtype="bfloat16")
    sent = re.findall(r"all_reduce.*?-> tensor<([^>]*)>", program.as_text(), re.S)
    assert [kind.rpartition("x")[2] for kind in sent] == ["bf16"]
    (sums, scalars), parts = (
        program.compile()(*arguments),
        [products(half, WEIGHTS, 0.5)[0]["w"] for half in (ROWS[:8], ROWS[8:])],
    )
    rounded = sum(part.astype(jnp.bfloat16).astype(jnp.float32) for part in parts)
    # The sum of two such numbers is rounded once more, to 8 bits.
    np.testing.assert_allclose(sums["w"], rounded, rtol=2**-8, atol=1e-6)
    assert sums["w"].dtype == jnp.float32 and np.abs(sums["w"] - sum(parts)).max() > 1e-4
    np.testing.assert_allclose(scalars["rows"], ROWS.sum(), rtol=1e-5)


def compiled(config):
    """The exchanges of an update, its arguments in bytes, and the state."""
    engine = Engine(config, task_of(config), sharding.make_mesh(config.mesh))
    found = engine.step.lower(engine.shapes, fit.shapes(config, config.data.batch_size)).compile()
    return collectives(hlo.parse(found.as_text())), found.memory_analysis(), engine.shapes


SMALL = tiny(data={"batch_size": 32}, model={"num_layers": 1}, optim={"accumulate": 4})


def size(tree):
    return sum(4 * x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_are_reduced_once_a_step(parts):
    """In data parallel: as many bytes as the parameters have, those of the table once, and some scalars."""
    found, _, state = compiled(override(SMALL, optim={"accumulate": parts}))
    assert {(one.kind, one.times) for one in found} == {("all-reduce", 1)}
    assert sum(one.bytes for one in found) == pytest.approx(size(state.params), rel=1e-3)
    assert sum(one.bytes > 4 * 16 for one in found) <= 2, "the compiler combines what is reduced at one time"


def test_the_optimizer_over_the_data_axis():
    """ZeRO-1: each of 8 devices holds an eighth of the moments and gets that of the sums; what it has made of its part
    of the parameters, the others gather.
    """
    found, taken, state = compiled(override(SMALL, mesh={"shard_optimizer": True}))
    sent = {
        kind: sum(one.times * one.bytes for one in found if one.kind == kind)
        for kind in ("reduce-scatter", "all-gather")
    }
    assert sent["reduce-scatter"] == pytest.approx(size(state.params), rel=0.01)
    assert sent["all-gather"] == pytest.approx(size(state.params), rel=0.01)
    assert all(one.times == 1 for one in found)
    held = size(state.params) + size(state.opt_state) / 8
    rows = size(fit.shapes(SMALL, SMALL.data.batch_size)) / 8
    assert taken.argument_size_in_bytes == pytest.approx(held + rows, rel=0.02)
    moments = jax.tree.leaves(state.opt_state)
    assert all(np.prod(x.sharding.shard_shape(x.shape)) * 8 == x.size for x in moments if x.size > 8)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
