"""The jitted steps: where model, objective and optimizer meet. Nothing here knows one of them by name.

Shape letters: A microbatches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bertjax import batch as batch_contract
from bertjax.model import network as model
from bertjax.parallel import sharding
from bertjax.tasks import distill
from bertjax.train import objective
from bertjax.config.schema import Config
from bertjax.train.optim import make_optimizer, make_schedule

Arrays = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that training changes. Random keys are folded from (seed, step), so none is stored."""

    step: jax.Array
    params: Any
    opt_state: Any


def _build_state(config: Config) -> TrainState:
    """A fresh state whose parameters are boxed with their logical axes."""
    fields = batch_contract.spec(config.data, rows=1)
    example = {name: jnp.zeros(f.shape, f.dtype) for name, f in fields.items()}
    key = jax.random.key(config.run.seed)
    params = model.Pretrainer(config.model).init(key, example)["params"]
    if config.teacher.projection:
        params |= {"projection": distill.projection(config).init(key)["params"]}
    opt_state = make_optimizer(config.optim, steps=config.run.steps).init(params)
    return TrainState(step=jnp.zeros([], jnp.int32), params=params, opt_state=opt_state)


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, without any memory: what a checkpoint is restored into."""
    boxed = jax.eval_shape(partial(_build_state, config))
    shardings = sharding.tree_shardings(boxed, mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.meta.unbox(boxed), shardings
    )


def init_state(config: Config, mesh: Mesh) -> TrainState:
    """A fresh state, created where it will live: shapes -> shardings -> jit(init)."""
    with jax.set_mesh(mesh):
        return jax.jit(lambda: nn.meta.unbox(_build_state(config)), out_shardings=_shardings(config, mesh))()


def make_train_step(
    config: Config, mesh: Mesh, teacher: distill.Teacher | None = None
) -> Callable[[TrainState, Arrays], tuple[TrainState, Arrays]]:
    """The jitted update `(state, batch) -> (state, metrics)`; the state is donated, so use only the one returned.

    `teacher` is needed where the objective has a term that compares with it (`bertjax.tasks.distill`).

    Metrics are float32 scalars: `loss`, loss and accuracy of each term, `grad_norm` (before clipping), `lr`.
    """
    optimizer = make_optimizer(config.optim, steps=config.run.steps)
    schedule = make_schedule(config.optim, steps=config.run.steps)

    def train_step(state: TrainState, batch: Arrays, teacher_params: Any) -> tuple[TrainState, Arrays]:
        key = jax.random.fold_in(jax.random.key(config.run.seed), state.step)
        if teacher:
            batch = distill.with_weights(config.teacher, batch)
        totals = objective.total_weights(config.objective, batch)

        def loss_fn(params: Any, microbatch: Arrays, key: jax.Array) -> tuple[jax.Array, Arrays]:
            every_layer = distill.needs_every_layer(config)
            outputs = model.apply(config.model, params, microbatch, key, every_layer=every_layer)
            if teacher:
                outputs |= distill.items(config, params, outputs, teacher, teacher_params, microbatch)
            sums = objective.weighted_sums(config.objective, outputs, microbatch)
            metrics = objective.normalise(sums, totals)
            return objective.total_loss(config.objective, metrics), metrics

        grads, metrics = accumulate(loss_fn, state.params, batch, key, count=config.optim.accumulate)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {
            "loss": objective.total_loss(config.objective, metrics),
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    state, rows = _shardings(config, mesh), sharding.rows_sharding(mesh)
    taught = model.param_shardings(teacher.model, mesh) if teacher else None
    out = (state, sharding.replicated(mesh))
    jitted = jax.jit(train_step, in_shardings=(state, rows, taught), out_shardings=out, donate_argnums=(0,))
    return _InMesh(jitted, mesh, teacher.params if teacher else None)


def accumulate(
    loss_fn: Callable[..., tuple[jax.Array, Arrays]], params: Any, batch: Arrays, key: jax.Array, *, count: int
) -> tuple[Any, Arrays]:
    """Gradients and metrics of `loss_fn` summed over `count` microbatches, in float32.

    Losses are already divided by the weights of the whole batch, so the sum is the gradient of one large batch, even
    where microbatches carry different numbers of masked tokens.
    """
    grad_fn = jax.grad(loss_fn, has_aux=True)
    if count == 1:
        return grad_fn(params, batch, key)

    def split(x: jax.Array) -> jax.Array:
        # Every count-th row: each microbatch then takes its share from each device, without moving any row.
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def body(sums: Any, inputs: Any) -> tuple[Any, None]:
        microbatch, micro_key = inputs
        return jax.tree.map(jnp.add, sums, grad_fn(params, microbatch, micro_key)), None

    batch_A, keys_A = jax.tree.map(split, batch), jax.random.split(key, count)
    first = jax.tree.map(lambda x: x[0], batch_A)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad_fn, params, first, key))
    sums, _ = jax.lax.scan(body, zeros, (batch_A, keys_A))
    return sums


def make_eval_step(config: Config, mesh: Mesh) -> Callable[[Any, Arrays], Arrays]:
    """The jitted evaluation `(params, batch) -> sums`: for each term the weighted sums and `NAME_weight`.

    `params` may hold more than the model's own, such as the map that a teacher needs.
    """

    def eval_step(params: Any, batch: Arrays) -> Arrays:
        outputs = model.apply(config.model, params, batch)
        totals = objective.total_weights(config.objective, batch)
        sums = objective.weighted_sums(config.objective, outputs, batch)
        return sums | {f"{name}_weight": total for name, total in totals.items()}

    own, rows = model.param_shardings(config.model, mesh), sharding.rows_sharding(mesh)
    jitted = _InMesh(jax.jit(eval_step, in_shardings=(own, rows), out_shardings=sharding.replicated(mesh)), mesh)
    return lambda params, batch: jitted({name: params[name] for name in own}, batch)


def _shardings(config: Config, mesh: Mesh) -> TrainState:
    return jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))


class _InMesh:
    """A jitted function that is traced, lowered and called with its mesh set, where `sharding.constrain` finds it.

    `last` are its last arguments, the same at every call.
    """

    def __init__(self, jitted: Any, mesh: Mesh, *last: Any) -> None:
        self._jitted, self._mesh, self._last = jitted, mesh, last

    def __call__(self, *args: Any) -> Any:
        with jax.set_mesh(self._mesh):
            return self._jitted(*args, *self._last)

    def lower(self, *args: Any) -> Any:
        """The lowered computation, as of `jax.jit`."""
        with jax.set_mesh(self._mesh):
            return self._jitted.lower(*args, *self._last)

    def compiles(self) -> int:
        """How many input shapes it has been compiled for."""
        return self._jitted._cache_size()
