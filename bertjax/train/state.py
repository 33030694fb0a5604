"""Everything that training changes, and its birth: abstract shapes -> shardings -> jit(init)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bertjax.parallel import sharding
from bertjax.train.optim import Averaged, Optimizer

Init = Callable[[jax.Array], Any]
"""Key -> fresh parameters, boxed with their logical axes."""


@flax.struct.dataclass
class TrainState:
    """Random keys are folded from (seed, step), so none is stored."""

    step: jax.Array
    params: Any
    opt_state: Any

    @property
    def trained(self) -> Any:
        """The parameters to evaluate and to use: their average where one is kept."""
        return self.opt_state.average if isinstance(self.opt_state, Averaged) else self.params


def abstract_state(init: Init, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, without any memory: what a checkpoint is restored into."""
    boxed = jax.eval_shape(lambda: _fresh(init, optimizer, 0))
    shardings = sharding.tree_shardings(boxed, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.meta.unbox(boxed), shardings
    )


def init_state(init: Init, optimizer: Optimizer, mesh: Mesh, *, seed: int) -> TrainState:
    """A fresh state, created where it will live."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(init, optimizer, mesh))
    with jax.set_mesh(mesh):
        return jax.jit(lambda: nn.meta.unbox(_fresh(init, optimizer, seed)), out_shardings=shardings)()


def _fresh(init: Init, optimizer: Optimizer, seed: int) -> TrainState:
    params = init(jax.random.key(seed))
    return TrainState(step=jnp.zeros([], jnp.int32), params=params, opt_state=optimizer.init(params))
