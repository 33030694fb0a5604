"""`bertjax.parallel.sharding`: where arrays live, and what is refused."""

import jax
import pytest
from small import fresh_state, shapes_of_state, task_of, tiny

from bertjax.ahead import hlo
from bertjax.ahead.traffic import collectives
from bertjax.errors import ConfigError
from bertjax.parallel import sharding
from bertjax.tasks import fit
from bertjax.train.session import Engine


def test_state_is_split_as_the_rules_say():
    config = tiny(mesh={"data": 1, "fsdp": 2, "tensor": 4})
    state = fresh_state(config, sharding.make_mesh(config.mesh))
    shard_shapes = jax.tree.map(lambda x: x.sharding.shard_shape(x.shape), (state.params, state.opt_state))
    params, moments = shard_shapes[0], shard_shapes[1][1].mu
    assert params["encoder"]["groups"]["attention"]["query"]["kernel"] == (4, 16, 1, 8)  # [4, 32, 4, 8]
    assert params["encoder"]["groups"]["ffn"]["up"]["kernel"] == (4, 16, 16)  # [4, 32, 64]
    assert params["encoder"]["embeddings"]["word"] == (100, 16)  # [400, 32]
    assert moments == params


def test_a_vocabulary_that_the_mesh_does_not_divide_stays_whole():
    config = tiny(model={"vocab_size": 401}, mesh={"data": 2, "fsdp": 1, "tensor": 4})
    state = shapes_of_state(config, sharding.make_mesh(config.mesh))
    word = state.params["encoder"]["embeddings"]["word"]
    assert word.sharding.shard_shape(word.shape) == (401, 32)


def test_impossible_meshes_are_refused():
    with pytest.raises(ConfigError, match="8 devices"):
        sharding.make_mesh(tiny(mesh={"data": 3}).mesh)
    config = tiny(
        data={"batch_size": 6},
        model={"num_heads": 2, "ffn_size": 66, "hidden_size": 30, "embedding_size": 30},
        mesh={"data": 1, "fsdp": 4, "tensor": 2},
    )
    with pytest.raises(ConfigError) as error:
        sharding.check(config.model, 6, sharding.make_mesh(config.mesh))
    assert "data.batch_size" in str(error.value) and "model.hidden_size" in str(error.value)


def test_an_unknown_logical_axis_raises():
    mesh = sharding.make_mesh(tiny().mesh)
    with pytest.raises(KeyError, match="hiden"):
        sharding.spec(("hiden",), (8,), mesh)


def compiled(config, mesh):
    """The program of an update, and what the compiler says of its memory."""
    engine = Engine(config, task_of(config), mesh)
    found = engine.step.lower(engine.shapes, fit.shapes(config, config.data.batch_size)).compile()
    return hlo.parse(found.as_text()), found.memory_analysis(), engine.shapes


def test_fsdp_over_eight_devices():
    """Each holds an eighth of the state but for what no axis divides, and fetches no more than a layer at a time."""
    sizes = {"hidden_size": 128, "embedding_size": 128, "ffn_size": 256}
    config = tiny(model=sizes, mesh={"fsdp": 8})
    program, taken, state = compiled(config, sharding.make_mesh(config.mesh))
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.params, state.opt_state)))
    rows = sum(x.size * x.dtype.itemsize for x in fit.shapes(config, config.data.batch_size).values()) / 8
    assert taken.argument_size_in_bytes - rows <= whole / 7
    gathered = [one for one in collectives(program) if one.kind == "all-gather"]
    in_loops = [one for one in gathered if one.times > 1]
    stack = state.params["encoder"]["groups"]["ffn"]["up"]["kernel"]
    layer = stack.size * 4 // config.model.num_layers
    assert any(one.bytes == layer for one in in_loops)  # of a layer's feed-forward part, for example
    assert max(one.bytes for one in in_loops) < 2 * layer
    assert all(one.times % config.model.num_layers == 0 for one in in_loops)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_are_reduced_once_for_each_microbatch(parts):
    """In data parallel: as many bytes as the parameters have, and the sums of the losses."""
    config = tiny(data={"batch_size": 16}, optim={"accumulate": parts})
    program, _, state = compiled(config, sharding.make_mesh(config.mesh))
    found = collectives(program)
    parameters = sum(4 * x.size for x in jax.tree.leaves(state.params))
    words = 4 * state.params["encoder"]["embeddings"]["word"].size  # reduced from the head and from the embeddings
    assert {one.kind for one in found} == {"all-reduce"}
    assert sum(one.times * one.bytes for one in found) == pytest.approx(parts * (parameters + words), rel=0.02)
