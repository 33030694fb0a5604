"""Optimizers as optax chains: AdamW and LAMB as BERT and ALBERT used them, StableAdamW, Muon; and which parameters they
move, by name and layer.

optax's own `adamw` and `lamb` always correct the bias of the moments, and take one trust ratio for a whole leaf.
Google's optimizers do not correct, and a leaf here stacks many layers, each of which needs its own ratio.
"""

import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from optax.contrib import MuonDimensionNumbers

from bertjax.config.schema import Config, ModelConfig, OptimConfig
from bertjax.errors import ConfigError
from bertjax.train.schedule import Point, make_schedule, point_of

NOT_DECAYED = ("bias", "scale")
"""Names of the leaves that get neither weight decay nor a trust ratio: every bias, and the LayerNorm scales."""

STACKS = ("groups", "layers")
"""Names of the modules that stack their parameters over a leading axis (`bertjax.model.encoder`)."""

LAYERS = ("groups", "first")
"""Names of the modules that hold layers."""


def decay_mask(params: Any) -> Any:
    """True for the leaves that are decayed and adapted: matrices and embedding tables, by name and never by rank."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] not in NOT_DECAYED, params)


def stacked_axes(params: Any) -> Any:
    """How many leading axes of each leaf only stack layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: sum(name in STACKS for name in _names(path)), params)


class Optimizer(NamedTuple):
    """A gradient transformation of optax, whose update also takes the global norm of the gradients, as `norm`; the
    learning rate by step that is in it; and `hold`, which gives the parameters with a stop before those that are
    frozen, for which then no gradient is computed.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    schedule: optax.Schedule
    hold: Callable[[Any], Any]


def make_optimizer(config: Config, point: Point | None = None) -> Optimizer:
    """The chain: clip the global norm, the optimizer's own part with its weight decay, what is left of the rate in each
    layer, learning rate. It is made for `config`, but at `point`, whose numbers may be traced; None = that of `config`.
    """
    o, point = config.optim, point_of(config) if point is None else point
    parts = list(OPTIMIZERS[o.name](o, point.lr))
    if o.clip_norm > 0.0:
        parts.insert(0, clipped(o.clip_norm))
    if o.layer_decay < 1.0:
        parts.append(optax.stateless(partial(_scale_by_layer, config)))
    if o.freeze:
        # First, so that what is frozen does not count in the norm; last, so that it does not decay.
        frozen = partial(frozen_mask, o.freeze)
        parts = [optax.masked(optax.set_to_zero(), frozen), *parts, optax.masked(optax.set_to_zero(), frozen)]
    schedule = make_schedule(o, point)
    chain = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
    if o.ema > 0.0:
        chain = averaging(chain, decay=o.ema)
    return Optimizer(chain.init, chain.update, schedule, partial(_held, o.freeze))


def clipped(most: float) -> optax.GradientTransformationExtraArgs:
    """Gradients whose global norm is at most this, by the `norm` that the step has: to compute it once more would be
    to read all of them again.
    """

    def update(grads: Any, state: Any, params: Any = None, *, norm: jax.Array, **_: Any) -> tuple[Any, Any]:
        scale = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda x: x * scale, grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class Averaged(NamedTuple):
    """Updates made so far, the state of an optimizer, and the average of the parameters that it made."""

    updates: jax.Array
    optimizer: Any
    average: Any


def averaging(
    optimizer: optax.GradientTransformationExtraArgs, *, decay: float
) -> optax.GradientTransformationExtraArgs:
    """The same updates, with a moving average of the parameters beside them.

    Its bias towards its beginning is taken out as in Adam's moments: after one update it is the parameters themselves,
    and the initial ones are never in it.
    """

    def init(params: Any) -> Averaged:
        return Averaged(jnp.zeros([], jnp.int32), optimizer.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: Averaged, params: Any = None, **more: Any) -> tuple[Any, Averaged]:
        updates, inner = optimizer.update(grads, state.optimizer, params, **more)
        count = state.updates + 1
        share = (1.0 - decay) / debias(decay, count)
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, w: a + share * (w - a), state.average, new)
        return updates, Averaged(count, inner, average)

    return optax.GradientTransformationExtraArgs(init, update)


def frozen_mask(beginnings: tuple[str, ...], params: Any) -> Any:
    """True for the leaves whose path begins with one of these. Raises ConfigError for one of none."""
    paths = jax.tree_util.tree_map_with_path(lambda path, _: "/".join(_names(path)) + "/", params)
    unknown = [b for b in beginnings if not any(path.startswith(f"{b}/") for path in jax.tree.leaves(paths))]
    if unknown:
        known = ", ".join(sorted({"/".join(path.split("/")[:2]) for path in jax.tree.leaves(paths)}))
        raise ConfigError(f"optim.freeze = {beginnings}: no parameter is in {', '.join(unknown)}; there are {known}")
    return jax.tree.map(lambda path: any(path.startswith(f"{b}/") for b in beginnings), paths)


def _held(beginnings: tuple[str, ...], params: Any) -> Any:
    stop = jax.lax.stop_gradient
    return jax.tree.map(lambda frozen, x: stop(x) if frozen else x, frozen_mask(beginnings, params), params)


def layers_above(config: ModelConfig, params: Any) -> Any:
    """How many layers of the encoder are above each leaf: a number for each layer that it stacks, in an array that fits
    it. None are above the last layer and the heads, all of them above the embeddings.

    A part that layers share is as high as the topmost of them.
    """

    def above(path: Any, x: jax.Array) -> np.ndarray:
        names = set(_names(path))
        groups = config.repeats * np.arange(config.copies)[::-1]  # above each group
        if names.issuperset(STACKS):
            found = groups[:, None] + np.arange(config.repeats)[::-1]
        elif "groups" in names:
            found = groups
        else:
            found = np.array(config.num_layers * ("embeddings" in names) + (config.num_layers - 1) * ("first" in names))
        return found.reshape(found.shape + (1,) * (x.ndim - found.ndim))

    return jax.tree_util.tree_map_with_path(above, params)


def _scale_by_layer(config: Config, updates: Any, params: Any) -> Any:
    """Take `layer_decay` of the rate for each layer above: Sun et al. (arXiv 1905.05583). ELECTRA's code counts two
    more above every layer, and none above the head.
    """
    del params
    decay = config.optim.layer_decay
    return jax.tree.map(lambda u, above: u * np.float32(decay**above), updates, layers_above(config.model, updates))


class AdamState(NamedTuple):
    """Updates made so far, and the first and second moments, shaped like the parameters."""

    updates: jax.Array
    mu: Any
    nu: Any


def scale_by_adam(config: OptimConfig) -> optax.GradientTransformation:
    """m / (sqrt(v) + eps), with the bias of m and v corrected or, as in Google's BERT, not.

    Kingma and Ba (arXiv 1412.6980); google-research/bert `optimization.py` for the uncorrected form.
    """
    b1, b2 = config.b1, config.b2

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        count = state.updates + 1
        mu = jax.tree.map(lambda g, m: b1 * m + (1.0 - b1) * g, grads, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1.0 - b2) * jnp.square(g), grads, state.nu)
        c1 = debias(b1, count) if config.bias_correction else 1.0
        c2 = debias(b2, count) if config.bias_correction else 1.0
        updates = jax.tree.map(lambda m, v: (m / c1) / (jnp.sqrt(v / c2) + config.eps), mu, nu)
        return updates, AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def debias(decay: float, count: jax.Array) -> jax.Array:
    """1 - decay^count: the weights of a moving average of `count` values that began at zero, added up."""
    # Through expm1: at 1 the plain form loses four digits for a decay of 0.999.
    return -jnp.expm1(count.astype(jnp.float32) * jnp.log(decay))


def add_decay(config: OptimConfig, lr: Any) -> optax.GradientTransformation:
    """Add the share of each weight that a step at the rate 1 takes away."""
    share = config.weight_decay if config.decay_by_lr else config.weight_decay / lr
    return optax.add_decayed_weights(share, mask=decay_mask)


def scale_by_stable_adam(config: OptimConfig, lr: Any) -> optax.GradientTransformation:
    """Adam and weight decay, divided for each layer of each leaf by max(1, sqrt(mean(g^2 / max(v, eps^2)))).

    Wortsman et al. (arXiv 2304.13013): a gradient that v does not know yet makes a small step. As in optimi's
    `stableadamw.py`, which trained ModernBERT, the decay is cut too, and so are biases and norms.
    """
    adam, decay = scale_by_adam(config), add_decay(config, lr)

    def init(params: Any) -> tuple[AdamState, Any]:
        return adam.init(params), decay.init(params)

    def update(grads: Any, state: tuple[AdamState, Any], params: Any = None) -> tuple[Any, tuple[AdamState, Any]]:
        updates, moments = adam.update(grads, state[0])
        updates, decayed = decay.update(updates, state[1], params)
        unbiased = debias(config.b2, moments.updates)

        def cut(u: jax.Array, g: jax.Array, v: jax.Array, stacked: int) -> jax.Array:
            ratio = jnp.square(g) / jnp.maximum(v / unbiased, config.eps**2)
            return u / jnp.maximum(1.0, jnp.sqrt(jnp.mean(ratio, tuple(range(stacked, u.ndim)), keepdims=True)))

        return jax.tree.map(cut, updates, grads, moments.nu, stacked_axes(updates)), (moments, decayed)

    return optax.GradientTransformation(init, update)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """LAMB's ratio ||w|| / ||u|| for each layer of each leaf; 1 where either norm is 0, no clamp.

    You et al. (arXiv 1904.00962). The norms run over all axes but the stacked ones; under jit they are global norms of
    sharded leaves.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def scale(u: jax.Array, w: jax.Array, stacked: int) -> jax.Array:
            axes = tuple(range(stacked, u.ndim))
            norm_w = jnp.sqrt(jnp.sum(jnp.square(w), axes, keepdims=True))
            norm_u = jnp.sqrt(jnp.sum(jnp.square(u), axes, keepdims=True))
            usable = (norm_w > 0.0) & (norm_u > 0.0)
            return u * jnp.where(usable, norm_w / jnp.where(usable, norm_u, 1.0), 1.0)

        return jax.tree.map(scale, updates, params, stacked_axes(updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def matrix_axes(params: Any) -> Any:
    """Which axes of each kernel of the layers are its rows (summed over) and its columns; None of the other leaves.

    The axes in front stack layers, each of which has matrices of its own.
    """

    def axes(path: Any, _: jax.Array, stacked: int) -> MuonDimensionNumbers | None:
        names = _names(path)
        if not set(names) & set(LAYERS) or names[-1] != "kernel":
            return None
        return MuonDimensionNumbers((stacked,), (stacked + 1,))

    return jax.tree_util.tree_map_with_path(axes, params, stacked_axes(params))


def orthogonalised(config: OptimConfig, lr: Any) -> tuple[optax.GradientTransformation, ...]:
    """Muon for the matrices of the layers, Adam for all else; weight decay.

    Jordan et al. (github.com/KellerJordan/Muon), with the sizes of updates of Liu et al. (arXiv 2502.16982): 0.2
    sqrt(max(rows, columns)), which makes them as large as Adam's, so that one rate and one decay serve both.
    """

    def matrices(params: Any) -> Any:
        # Without the boxes of logical names: what is masked then takes the place of a box, and is not in one.
        axes = matrix_axes(nn.meta.unbox(params))
        return jax.tree.map(lambda one: one is not None, axes, is_leaf=_is_axes)

    def others(params: Any) -> Any:
        return jax.tree.map(operator.not_, matrices(params))

    scale = optax.contrib.scale_by_muon(beta=config.momentum, weight_dimension_numbers=matrix_axes)
    return (
        optax.masked(optax.chain(scale, optax.stateless(_scale_by_size)), matrices),
        optax.masked(scale_by_adam(config), others),
        add_decay(config, lr),
    )


def _scale_by_size(updates: Any, params: Any) -> Any:
    del params

    def scale(u: jax.Array, axes: MuonDimensionNumbers) -> jax.Array:
        rows, columns = (math.prod(u.shape[i] for i in one) for one in axes)
        return 0.2 * math.sqrt(max(rows, columns)) * u

    return jax.tree.map(scale, updates, matrix_axes(updates))


def _is_axes(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)


OPTIMIZERS: dict[str, Callable[[OptimConfig, Any], tuple[optax.GradientTransformation, ...]]] = {
    "adamw": lambda c, lr: (scale_by_adam(c), add_decay(c, lr)),
    "lamb": lambda c, lr: (scale_by_adam(c), add_decay(c, lr), optax.masked(scale_by_layer_trust_ratio(), decay_mask)),
    "stableadamw": lambda c, lr: (scale_by_stable_adam(c, lr),),
    "muon": orthogonalised,
}
"""`optim.name` -> what stands between the clipped gradients and the learning rate; also of `optim.lr`, which a decay
that does not follow the rate is measured by.
"""


def _names(path: tuple[Any, ...]) -> list[str]:
    # A leaf may be boxed with its logical axis names: the box adds an attribute to the path, not a key.
    return [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
