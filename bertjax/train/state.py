"""Everything that training changes, and its birth: abstract shapes -> shardings -> jit(init)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax.parallel import sharding
from bertjax.train.optim import Averaged, Optimizer

Init = Callable[[jax.Array], Any]
"""Key -> fresh parameters, boxed with their logical axes."""


@flax.struct.dataclass
class Best:
    """The best evaluation so far of a run that selects by one: its value, its step (0 = there was none yet), how many
    there were since, and the parameters that were evaluated, unless the run goes by its last (None).
    """

    value: jax.Array
    step: jax.Array
    since: jax.Array
    params: Any

    @property
    def number(self) -> float:
        """The value, in as few digits as tell it from others in float32."""
        return float(str(np.float32(self.value)))


@flax.struct.dataclass
class TrainState:
    """Random keys are folded from (seed, step), so none is stored."""

    step: jax.Array
    params: Any
    opt_state: Any
    best: Best | None = None  # None = the run selects nothing

    @property
    def trained(self) -> Any:
        """The parameters to evaluate as they are now: their average where one is kept."""
        return self.opt_state.average if isinstance(self.opt_state, Averaged) else self.params

    @property
    def model(self) -> Any:
        """The parameters to use: those of the best evaluation where they are kept, else `trained`."""
        return self.trained if self.best is None or not self._selected else self.best.params

    @property
    def place_of_model(self) -> tuple[str, ...]:
        """Where `model` is in the state: names, from the outermost."""
        if self._selected:
            return ("best", "params")
        return ("opt_state", "average") if isinstance(self.opt_state, Averaged) else ("params",)

    @property
    def _selected(self) -> bool:
        return self.best is not None and self.best.params is not None and int(self.best.step) > 0

    def evaluated(self, value: float) -> tuple["TrainState", Best]:
        """After an evaluation of `trained` that gave this value; and the best: the largest, of equal ones the first."""
        assert self.best is not None, "the run selects nothing"
        best = self.best
        if int(best.step) > 0 and not np.float32(value) > np.float32(best.value):
            best = replace(best, since=_put(int(best.since) + 1, best.since))
        else:
            # A copy: the next step takes the memory of the state that it is given.
            params = None if best.params is None else jax.tree.map(jnp.copy, self.trained)
            best = Best(_put(value, best.value), _put(int(self.step), best.step), _put(0, best.since), params)
        return replace(self, best=best), best


def _put(number: float, old: jax.Array) -> jax.Array:
    return sharding.put_whole(np.asarray(number, old.dtype), old.sharding)


class Birth:
    """How states of one shape are born. The seed is an argument of the program, which so is compiled once."""

    def __init__(
        self, init: Init, optimizer: Optimizer, mesh: Mesh, *, select: str = "", shard_optimizer: bool = False
    ) -> None:
        """`select` says which parameters are the model in the end: "best" or "last" of a run that selects by an
        evaluation, "" of one that does not. `shard_optimizer`: what the optimizer keeps is split over the data axis.
        """
        self._mesh = mesh
        fresh = partial(_fresh, init, optimizer, select)
        boxed = jax.eval_shape(fresh, 0)
        shapes, shardings = nn.meta.unbox(boxed), sharding.tree_shardings(boxed, mesh)
        split = jax.tree.map(lambda s, x: sharding.split_over_data(s, x.shape), shardings, shapes)
        if shard_optimizer:
            # The best weights are a copy of the trained ones, and live where those do.
            best = split.best if isinstance(shapes.opt_state, Averaged) else shardings.best
            shardings = replace(shardings, opt_state=split.opt_state, best=best)
        self.shapes: TrainState = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
        )
        """Shapes, dtypes and shardings, without any memory: what a checkpoint is restored into."""
        self.updates = split.params if shard_optimizer else shardings.params
        """Where the update of each parameter is computed: where the moments of it are."""
        self._jitted = jax.jit(lambda seed: nn.meta.unbox(fresh(seed)), out_shardings=shardings)

    def __call__(self, seed: int) -> TrainState:
        """A fresh state, created where it will live."""
        with jax.set_mesh(self._mesh):
            return self._jitted(np.uint32(seed))


def _fresh(init: Init, optimizer: Optimizer, select: str, seed: Any) -> TrainState:
    params, nothing = init(jax.random.key(seed)), jnp.zeros([], jnp.int32)
    best = None
    if select:
        kept = jax.tree.map(jnp.zeros_like, params) if select == "best" else None
        best = Best(value=jnp.zeros([]), step=nothing, since=nothing, params=kept)
    return TrainState(step=nothing, params=params, opt_state=optimizer.init(params), best=best)
