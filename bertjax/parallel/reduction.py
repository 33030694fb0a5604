"""What the shards of the data axis compute by themselves, and its one sum over them.

Under `jax.jit` alone the compiler sums a gradient over the data axis where it arises: once for each microbatch, and for
a table with two uses twice. Here each shard first adds up its own, whatever the number of its microbatches.

Shape letters: D shards of the data axis.
"""

from collections.abc import Callable
from typing import Any

import jax

from bertjax.parallel import sharding


def summed(
    function: Callable[..., tuple[Any, Any]], rows: Any, *whole: Any, places: Any, dtype: str
) -> tuple[Any, Any]:
    """`function(rows, *whole)` by each data shard on its own rows, where it gives large arrays and scalars: the sums of
    both over the shards.

    `places`: where the sums of the large arrays live, over the data axis whole (by an all-reduce) or split (by a
    reduce-scatter, which sends half as much). `dtype`: in which the large ones are sent. The other mesh axes stay with
    the compiler, which also splits the rows of a shard over fsdp.
    """
    mesh = sharding.mesh_of(places)
    if mesh.shape["data"] == 1:
        return function(rows, *whole)

    def by_shard(rows: Any, *whole: Any) -> Any:
        return jax.tree.map(lambda x: x[None], function(rows, *whole))

    by_data, everywhere = sharding.spec(("shards",), (mesh.shape["data"],), mesh), sharding.spec((), (), mesh)
    in_specs = (by_data, *(everywhere for _ in whole))
    options: dict[str, Any] = {"axis_names": {"data"}, "check_vma": False}
    arrays_D, scalars_D = jax.shard_map(by_shard, in_specs=in_specs, out_specs=by_data, **options)(rows, *whole)
    return _total(arrays_D, places, dtype), jax.tree.map(lambda x_D: x_D.sum(axis=0), scalars_D)


def _total(arrays_D: Any, places: Any, dtype: str) -> Any:
    """The sums over the first axis, where `places` says. Every mesh axis is manual here: the compiler for CPUs cannot
    sum half precision over some of them alone.
    """

    def total(arrays_D: Any) -> Any:
        return jax.tree.map(one, arrays_D, places)

    def one(x_1: jax.Array, place: Any) -> jax.Array:
        x, axis = x_1[0].astype(dtype), sharding.split_axis(place)
        if axis is None:
            return jax.lax.psum(x, "data").astype(x_1.dtype)
        return jax.lax.psum_scatter(x, "data", scatter_dimension=axis, tiled=True).astype(x_1.dtype)

    in_specs, out_specs = jax.tree.map(sharding.stacked_spec, places), jax.tree.map(lambda place: place.spec, places)
    return jax.shard_map(total, in_specs=(in_specs,), out_specs=out_specs, check_vma=False)(arrays_D)
