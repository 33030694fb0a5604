"""`bertjax.parallel.sharding`: where arrays live, and what is refused."""

import jax
import pytest
from small import fresh_state, shapes_of_state, tiny

from bertjax.errors import ConfigError
from bertjax.parallel import sharding


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
