"""`bertjax.parallel.sharding`: where arrays live, and what is refused."""

from dataclasses import dataclass

import jax
import numpy as np
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
    assert params["encoder"]["groups"]["attention"]["query"]["kernel"] == (4, 16, 8)  # [4, 32, 32]
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


@pytest.mark.parametrize("mesh", [{"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 4}], ids=str)
def test_fsdp_over_eight_devices(mesh):
    """Each holds its share of the state but for what no axis divides, and fetches no more than a layer at a time."""
    sizes = {"hidden_size": 128, "embedding_size": 128, "ffn_size": 256}
    config = tiny(model=sizes, mesh=mesh)
    program, taken, state = compiled(config, sharding.make_mesh(config.mesh))
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.params, state.opt_state)))
    rows = sum(x.size * x.dtype.itemsize for x in fit.shapes(config, config.data.batch_size).values()) / 8
    assert taken.argument_size_in_bytes - rows <= 8 / 7 * whole / mesh["fsdp"]
    gathered = [one for one in collectives(program) if one.kind == "all-gather"]
    in_loops = [one for one in gathered if one.times > 1]
    stack = state.params["encoder"]["groups"]["ffn"]["up"]["kernel"]
    layer = stack.size * 4 // config.model.num_layers
    assert any(one.bytes == layer for one in in_loops)  # of a layer's feed-forward part, for example
    assert max(one.bytes for one in in_loops) < 2 * layer
    assert all(one.times % config.model.num_layers == 0 for one in in_loops)


@dataclass(frozen=True)
class OnSlice:
    """A device of one of several slices, or hosts of GPUs."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"


@pytest.mark.parametrize("shape", [(8, 1, 1), (4, 2, 1), (2, 2, 2), (2, 1, 4)])
def test_only_the_data_axis_goes_from_slice_to_slice(shape):
    """In whatever order their devices are listed."""
    devices = [OnSlice(i, i % 2) for i in range(8)]
    mesh = sharding.make_mesh(tiny(mesh=dict(zip(sharding.AXES, shape, strict=True))).mesh, devices)
    assert mesh.devices.shape == shape and len({d.id for d in mesh.devices.flat}) == 8
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (slices == slices[:, :1, :1]).all()
    assert (np.diff(slices[:, 0, 0]) >= 0).all(), "neighbours along it are mostly in one slice"


def test_what_does_not_fit_into_a_slice_is_refused():
    config, refused = (
        tiny(mesh={"fsdp": 4, "tensor": 2}),
        "fsdp 4, tensor 2: must together divide the 4 devices of each",
    )
    with pytest.raises(ConfigError, match=refused):
        sharding.make_mesh(config.mesh, [OnSlice(i, i // 4) for i in range(8)])
    with pytest.raises(ConfigError, match=refused):  # where the devices do not tell, as those of no machine here
        sharding.make_mesh(config.mesh, jax.devices(), lambda device: device.id // 4)
    assert sharding.make_mesh(config.mesh, [OnSlice(i, 1) for i in range(8)]).devices.shape == (1, 4, 2)


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ((), (6,), ()),  # 4 does not divide it
        ((), (12, 6), ("data",)),
        ((None, "fsdp"), (6, 8, 16), (None, ("fsdp", "data"), None)),
        (("tensor", "fsdp"), (6, 16), ("tensor", ("fsdp", "data"))),
        ((), (), ()),
    ],
)
def test_what_is_split_over_the_data_axis_too(axes, shape, expected):
    mesh = sharding.make_mesh(tiny(mesh={"data": 4, "fsdp": 2}).mesh)
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
    split = sharding.split_over_data(place, shape)
    assert tuple(split.spec) == expected + (None,) * (len(tuple(split.spec)) - len(expected))
    found = sharding.split_axis(split)
    assert (found is None) == (split.shard_shape(shape) == place.shard_shape(shape))
    assert found is None or split.shard_shape(shape)[found] * 4 == place.shard_shape(shape)[found]
