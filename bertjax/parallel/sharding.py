"""Where arrays live: mesh axes, and the one table from logical axis names to mesh axes.

Model code names logical axes only. Data parallel, FSDP and tensor parallel are three shapes of one mesh, and one device
is the mesh (1, 1, 1). No other file names a PartitionSpec.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from bertjax.config.schema import MeshConfig, ModelConfig
from bertjax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
    # Activations.
    "rows": ("data", "fsdp"),
    "shards": "data",
    "length": None,
    "hidden_activation": None,
    # Parameters. A stack of layers is never split: each step of the scan would fetch its slice from another device.
    "stack": None,
    "vocab": "tensor",
    "hidden": "fsdp",
    "hidden_out": None,
    "heads": "tensor",
    "head_dim": None,
    "ffn": "tensor",
    "table": None,
    "pair": None,
    "labels": None,
}
"""Logical axis name -> mesh axis or axes."""


def slice_index(device: Any) -> int:
    """Which slice of TPUs it is in, or which GPUs it has the fast links with, as JAX numbers them; 0 for a CPU."""
    return getattr(device, "slice_index", 0)


def make_mesh(
    config: MeshConfig, devices: list[Any] | None = None, slice_of: Callable[[Any], int] = slice_index
) -> Mesh:
    """The mesh over `devices` (default: all). From one slice (`slice_of` a device) to another, where links are slower
    than inside, goes the data axis alone.

    Raises ConfigError if the axes do not multiply to the device count, or a slice has no room for the other two.
    """
    devices = jax.devices() if devices is None else devices
    others = config.fsdp * config.tensor
    data = config.data or len(devices) // others
    if data < 1 or data * others != len(devices):
        raise ConfigError(
            f"mesh = data {config.data}, fsdp {config.fsdp}, tensor {config.tensor}: must multiply to the"
            f" {len(devices)} devices seen here (mesh.data = 0 takes what the others leave)"
        )
    slices = [[d for d in devices if slice_of(d) == one] for one in sorted(set(map(slice_of, devices)))]
    least = min(map(len, slices))
    if any(len(one) % others for one in slices):
        raise ConfigError(
            f"mesh = fsdp {config.fsdp}, tensor {config.tensor}: must together divide the {least} devices of each of"
            f" the {len(slices)} slices or hosts, since only mesh.data goes from one to another; set mesh.fsdp lower"
        )
    # Linen fails under the Explicit axis type that newer JAX makes the default.
    auto = (AxisType.Auto,) * 3
    shapes = [(len(one) // others, config.fsdp, config.tensor) for one in slices]
    within = [jax.make_mesh(s, AXES, axis_types=auto, devices=one) for s, one in zip(shapes, slices, strict=True)]
    return Mesh(np.concatenate([mesh.devices for mesh in within]), AXES, axis_types=auto)


def check(model: ModelConfig, rows: int, mesh: Mesh) -> None:
    """Refuse sizes that the mesh does not divide, all in one report; `rows` is of a microbatch."""
    size = dict(mesh.shape)
    m = model
    divided = [
        ("data.batch_size / optim.accumulate", rows, "mesh.data * mesh.fsdp", row_ways(mesh)),
        ("model.hidden_size", m.hidden_size, "mesh.fsdp", size["fsdp"]),
        ("model.embedding_size", m.embedding_size, "mesh.fsdp", size["fsdp"]),
        ("model.num_heads", m.num_heads, "mesh.tensor", size["tensor"]),
        ("model.ffn_size", m.ffn_size, "mesh.tensor", size["tensor"]),
    ]
    errors = [
        f"{name} = {value}: must be a multiple of {axis} = {by}" for name, value, axis, by in divided if value % by
    ]
    if errors:
        raise ConfigError("\n".join(errors))


def spec(names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The PartitionSpec of an array of `shape` whose axes have these logical names.

    A dimension that its mesh axis does not divide (a vocabulary of 30,522 over 4) stays whole. An unknown name raises
    KeyError: Flax would silently replicate it.
    """
    free, axes = free_axes(mesh), []
    for name, dim in zip(names, shape, strict=True):
        found = tuple(axis for axis in _mesh_axes(None if name is None else RULES[name]) if axis in free)
        axes.append(found if dim % _ways(found, mesh) == 0 else ())
    return PartitionSpec(*map(_entry, axes))


def free_axes(mesh: Mesh | AbstractMesh) -> set[str]:
    """The axes over which arrays can be split here: all, but the data axis where each of its shards computes by itself
    (`bertjax.parallel.reduction`).
    """
    return set(mesh.axis_names) - set(mesh.manual_axes if isinstance(mesh, AbstractMesh) else ())


def split_over_data(place: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """The place of an array of this shape that is split over the data axis too: along the first dimension that the
    number of shards divides, if there is one. Where that is the stack of layers, each shard has whole layers.
    """
    mesh, axes = place.mesh, [_mesh_axes(entry) for entry in place.spec]
    axes += [()] * (len(shape) - len(axes))
    for i, dim in enumerate(shape):
        if dim % _ways((*axes[i], "data"), mesh) == 0:
            return NamedSharding(mesh, PartitionSpec(*map(_entry, [*axes[:i], (*axes[i], "data"), *axes[i + 1 :]])))
    return place


def split_axis(place: NamedSharding) -> int | None:
    """Which dimension is split over the data axis."""
    return next((i for i, entry in enumerate(place.spec) if "data" in _mesh_axes(entry)), None)


def stacked_spec(place: NamedSharding) -> PartitionSpec:
    """Of an array [D, ..] whose first axis is one of data shards, and whose others live as `place` says."""
    others = [tuple(axis for axis in _mesh_axes(entry) if axis != "data") for entry in place.spec]
    return PartitionSpec(*map(_entry, [("data",), *others]))


def mesh_of(places: Any) -> Mesh:
    """The mesh of a tree of shardings."""
    return jax.tree.leaves(places)[0].mesh


def _mesh_axes(entry: Any) -> tuple[str, ...]:
    """An entry of a PartitionSpec, or of `RULES`, as the mesh axes in it."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _entry(axes: tuple[str, ...]) -> Any:
    return axes[0] if len(axes) == 1 else axes or None


def _ways(axes: tuple[str, ...], mesh: Mesh | AbstractMesh) -> int:
    return math.prod(mesh.shape[axis] for axis in axes)


def tree_shardings(abstract_tree: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree of abstract arrays, boxed with logical names where they have any."""

    def one(leaf: Any) -> NamedSharding:
        if isinstance(leaf, nn.LogicallyPartitioned):
            return NamedSharding(mesh, spec(leaf.names, leaf.value.shape, mesh))
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree.map(one, abstract_tree, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def row_ways(mesh: Mesh) -> int:
    """Over how many devices the rows of a batch are split: their number must be a multiple of it."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Of a batch array: its first axis (rows) split over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(RULES["rows"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: Any, *names: str | None) -> Any:
    """Pin an activation to the sharding of its logical axes; nothing to do outside `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names, x.shape, mesh))


def for_gather(table: jax.Array, name: str | None) -> jax.Array:
    """A table [.., width] whose rows have this logical axis, to gather rows from.

    Where the data axis is manual and both others split something, its width is made whole, which costs an exchange of
    the table: XLA (jax 0.10, 0.11) dies of a gather from a table that is split there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    dies = mesh.manual_axes and all(mesh.shape[axis] > 1 for axis in free_axes(mesh))
    return constrain(table, name, None) if dies else table


def row_numbers(rows: int) -> jax.Array:
    """int32 [rows] which rows of the whole microbatch these are: all, or those of the data shard that computes them."""
    own = jnp.arange(rows, dtype=jnp.int32)
    apart = "data" in jax.sharding.get_abstract_mesh().manual_axes
    return own + jax.lax.axis_index("data") * rows if apart else own


def put_whole(value: np.ndarray, place: Sharding) -> jax.Array:
    """An array that each process has whole, the same, onto the devices. `jax.device_put` would compare them first."""
    return jax.make_array_from_callback(value.shape, place, lambda part: value[part])


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """int [r] which of the `rows` of a batch the devices of this process hold, in order."""
    places = rows_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Move a batch to the devices, split by rows, of which each process takes its own."""
    return {key: _put(value, mesh, len(value), np.arange(len(value))) for key, value in batch.items()}


def put_rows(batch: Mapping[str, np.ndarray], mesh: Mesh, rows: int) -> dict[str, jax.Array]:
    """The same of a batch of `rows` rows, of which each process has but its `own_rows`."""
    own_r = own_rows(mesh, rows)
    return {key: _put(value, mesh, rows, own_r) for key, value in batch.items()}


def _put(value: np.ndarray, mesh: Mesh, rows: int, held_r: np.ndarray) -> jax.Array:
    def part(place: tuple[slice, ...] | None) -> np.ndarray:
        assert place is not None  # which it is of arrays without axes
        start, stop, _ = place[0].indices(rows)
        # The rows of a device are one stretch, and so they are among those that this process has.
        first = int(np.searchsorted(held_r, start))
        return value[first : first + stop - start]

    return jax.make_array_from_callback((rows, *value.shape[1:]), rows_sharding(mesh), part)
