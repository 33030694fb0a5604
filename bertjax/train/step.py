"""The jitted steps: where a forward function, terms and an optimizer meet. They are arguments, and none is named here.

Shape letters: A microbatches.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bertjax.parallel import reduction, sharding
from bertjax.train import guard, objective
from bertjax.train.objective import Arrays, Terms, Values
from bertjax.train.optim import Optimizer
from bertjax.train.schedule import Point
from bertjax.train.state import TrainState

Forward = Callable[..., Arrays]
"""(params, batch, key) -> outputs. A pytree (`jax.tree_util.Partial`), so that arrays it carries are arguments of the
step and no constants in its program."""

OptimizerAt = Callable[[Point], Optimizer]
"""The optimizer at a point whose numbers are traced."""


@dataclass(frozen=True)
class Cut:
    """How an update is cut up, which changes nothing of what it computes but for rounding."""

    accumulate: int
    """Microbatches."""
    places: Any
    """Where the update of each parameter is computed: shardings, which may split it over the data axis too (ZeRO-1)."""
    reduce_dtype: str
    """In which gradients are sent over the data axis."""


def make_train_step(
    forward: Forward, terms: Terms, optimizer_at: OptimizerAt, mesh: Mesh, point: Point, cut: Cut
) -> "JittedStep":
    """The jitted update `(state, batch) -> (state, values)`; the state is donated, so use only the one returned.

    Values are float32 scalars: `loss`, `grad_norm` (before clipping, without what is frozen), `lr`, those of each term
    by kind, and `skipped`, 1 where something was not finite: then only the step is counted. At another forward function
    or point it is `step.given(forward, point)`.
    """

    def train_step(state: TrainState, forward: Forward, point: Point, batch: Arrays) -> tuple[TrainState, Any]:
        optimizer = optimizer_at(point)
        key = jax.random.fold_in(jax.random.key(point.seed), state.step)
        grad_fn = jax.grad(partial(_loss, terms, optimizer.hold), has_aux=True)
        by_shard = partial(accumulated, grad_fn, count=cut.accumulate)
        given = (state.params, key, forward, objective.total_weights(terms, batch))
        grads, values = reduction.summed(by_shard, batch, *given, places=cut.places, dtype=cut.reduce_dtype)
        loss, norm = objective.total_loss(terms, values), optax.tree.norm(grads)

        def update(old: tuple[Any, Any]) -> tuple[Any, Any]:
            params, opt_state = old
            updates, opt_state = optimizer.update(grads, opt_state, params, norm=norm)
            return optax.apply_updates(params, updates), opt_state

        split = jax.lax.with_sharding_constraint(state.params, cut.places)
        skipped, (params, opt_state) = guard.skip(update, (split, state.opt_state), loss, norm)
        whole = {"loss": loss, "grad_norm": norm, "lr": optimizer.schedule(state.step), "skipped": skipped}
        return replace(state, step=state.step + 1, params=params, opt_state=opt_state), whole | values

    replicated = sharding.replicated(mesh)
    return JittedStep(train_step, forward, mesh, point, out=lambda state: (state, replicated), donate_argnums=(0,))


def _loss(
    terms: Terms, hold: Any, params: Any, batch: Arrays, key: jax.Array, forward: Forward, totals: Arrays
) -> tuple[jax.Array, Values]:
    """What these rows add to the loss of the whole batch, whose weights are `totals`, and to its metrics."""
    outputs = forward(hold(params), batch, key)
    values = objective.normalise(objective.weighted_sums(terms, outputs, batch), totals)
    return objective.total_loss(terms, values), values


def accumulated(
    grad_fn: Callable[..., tuple[Any, Values]], batch: Arrays, params: Any, key: jax.Array, *given: Any, count: int
) -> tuple[Any, Values]:
    """Gradients and metrics by `grad_fn(params, batch, key, *given)` summed over `count` microbatches, in float32.

    Losses are already divided by the weights of the whole batch, so the sum is the gradient of one large batch, even
    where microbatches carry different numbers of masked tokens.
    """
    if count == 1:
        return grad_fn(params, batch, key, *given)

    def split(x: jax.Array) -> jax.Array:
        # Every count-th row: each microbatch then takes its share from each device, without moving any row.
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def body(sums: Any, inputs: Any) -> tuple[Any, None]:
        microbatch, micro_key = inputs
        return jax.tree.map(jnp.add, sums, grad_fn(params, microbatch, micro_key, *given)), None

    batch_A, keys_A = jax.tree.map(split, batch), jax.random.split(key, count)
    first = jax.tree.map(lambda x: x[0], batch_A)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad_fn, params, first, key, *given))
    sums, _ = jax.lax.scan(body, zeros, (batch_A, keys_A))
    return sums


def make_eval_step(forward: Forward, terms: Terms, mesh: Mesh) -> "JittedStep":
    """The jitted evaluation `(params, batch) -> sums`: for each term the weighted sums by kind, and its `weight`."""

    def eval_step(params: Any, forward: Forward, batch: Arrays) -> Values:
        sums = objective.weighted_sums(terms, forward(params, batch, None), batch)
        totals = objective.total_weights(terms, batch)
        return {name: kinds | {"weight": totals[name]} for name, kinds in sums.items()}

    return JittedStep(eval_step, forward, mesh, out=lambda params: sharding.replicated(mesh))


class JittedStep:
    """A jitted function of (state, forward, *more, batch), called as one of (state, batch) with its mesh set, where
    `sharding.constrain` finds it.

    `out(places)` says where the outputs live, given where the state of the first call does, as all later ones must.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        forward: Forward,
        mesh: Mesh,
        *more: Any,
        out: Callable[[Any], Any],
        **options: Any,
    ) -> None:
        self._function, self._given, self._mesh = function, (forward, *more), mesh
        self._out, self._options = out, options
        self._compiled = _Compiled()

    def given(self, forward: Forward, *more: Any) -> "JittedStep":
        """The same step with others of the same shapes in place of these arguments. What is compiled serves both."""
        other = copy.copy(self)
        other._given = (forward, *more)
        return other

    def __call__(self, state: Any, batch: Arrays) -> Any:
        program = self._compiled.programs.get(_shapes(batch)) or self._compiled_for(state)
        with jax.set_mesh(self._mesh):
            return program(state, *self._given, batch)

    def compile(self, state: Any, batch: Any) -> jax.stages.Compiled:
        """Compile for the shapes of `state` and `batch`, for which `jax.ShapeDtypeStruct`s are enough, once, and keep
        the program for the calls with a batch of these shapes.
        """
        programs, shapes = self._compiled.programs, _shapes(batch)
        if shapes not in programs:
            programs[shapes] = self.lower(state, batch).compile()
        return programs[shapes]

    def lower(self, state: Any, batch: Any) -> Any:
        """The lowered computation, as of `jax.jit`."""
        with jax.set_mesh(self._mesh):
            return self._compiled_for(state).lower(state, *self._given, batch)

    def compiles(self) -> int:
        """How many input shapes it has been compiled for."""
        jitted = self._compiled.jitted
        return len(self._compiled.programs) + (jitted._cache_size() if jitted else 0)

    def _compiled_for(self, state: Any) -> Any:
        if self._compiled.jitted is None:
            places = jax.tree.map(lambda x: x.sharding, state)
            free = (None,) * len(self._given)
            rows = sharding.rows_sharding(self._mesh)
            self._compiled.jitted = jax.jit(
                self._function,
                in_shardings=(places, *free, rows),
                out_shardings=self._out(places),
                **self._options,
            )
        return self._compiled.jitted


@dataclass
class _Compiled:
    """What steps share that were given other arguments."""

    jitted: Any = None
    programs: dict[Any, Any] = field(default_factory=dict)  # shapes of a batch -> what was compiled ahead of a call


def _shapes(batch: Any) -> Any:
    return tuple((name, x.shape) for name, x in sorted(batch.items()))
