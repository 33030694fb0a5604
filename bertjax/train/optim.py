"""Optimizers as optax chains: AdamW and LAMB as BERT and ALBERT used them, schedules, and masks by parameter name.

optax's own `adamw` and `lamb` always correct the bias of the moments, and take one trust ratio for a whole leaf.
Google's optimizers do not correct, and a leaf here stacks many layers, each of which needs its own ratio.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bertjax.config.schema import OptimConfig
from bertjax.errors import ConfigError

NOT_DECAYED = ("bias", "scale")
"""Names of the leaves that get neither weight decay nor a trust ratio: every bias, and the LayerNorm scales."""

STACKS = ("groups", "layers")
"""Names of the modules that stack their parameters over a leading axis (`bertjax.model.encoder`)."""


def make_schedule(config: OptimConfig, *, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 to `lr`, then polynomial decay to 0 at `steps`.

    Unshifted (BERT): lr * (1 - step / steps)^power, which at the end of warm-up jumps down from lr. Shifted: the decay
    starts from lr when the warm-up ends.
    """

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        start = config.warmup_steps if config.shift_decay else 0
        progress = jnp.clip((step - start) / max(steps - start, 1), 0.0, 1.0)
        # With power 0 the base 1 - progress may be 0 and 0^0 is 1: a constant rate, also at the last step.
        decayed = config.lr * (1.0 - progress) ** config.power
        warm = config.lr * step / max(config.warmup_steps, 1)
        return jnp.where(step < config.warmup_steps, warm, decayed)

    return schedule


def decay_mask(params: Any) -> Any:
    """True for the leaves that are decayed and adapted: matrices and embedding tables, by name and never by rank."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] not in NOT_DECAYED, params)


def stacked_axes(params: Any) -> Any:
    """How many leading axes of each leaf only stack layers."""
    return jax.tree_util.tree_map_with_path(lambda path, _: sum(name in STACKS for name in _names(path)), params)


class Optimizer(NamedTuple):
    """A gradient transformation of optax, and the learning rate by step that is in it."""

    init: Any
    update: Any
    schedule: optax.Schedule


def make_optimizer(config: OptimConfig, *, steps: int) -> Optimizer:
    """The chain: clip the global norm, Adam moments, decay, (LAMB) trust ratio, learning rate."""
    parts = [
        scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps, bias_correction=config.bias_correction),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    ]
    if config.clip_norm > 0.0:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    parts += [optax.masked(part(), decay_mask) for part in ADAPTATIONS[config.name]]
    if config.freeze:
        # First, so that what is frozen does not count in the norm; last, so that it does not decay.
        frozen = partial(frozen_mask, config.freeze)
        parts = [optax.masked(optax.set_to_zero(), frozen), *parts, optax.masked(optax.set_to_zero(), frozen)]
    schedule = make_schedule(config, steps=steps)
    chain = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
    return Optimizer(chain.init, chain.update, schedule)


def frozen_mask(beginnings: tuple[str, ...], params: Any) -> Any:
    """True for the leaves whose path begins with one of these. Raises ConfigError for one of none."""
    paths = jax.tree_util.tree_map_with_path(lambda path, _: "/".join(_names(path)) + "/", params)
    unknown = [b for b in beginnings if not any(path.startswith(f"{b}/") for path in jax.tree.leaves(paths))]
    if unknown:
        known = ", ".join(sorted({"/".join(path.split("/")[:2]) for path in jax.tree.leaves(paths)}))
        raise ConfigError(f"optim.freeze = {beginnings}: no parameter is in {', '.join(unknown)}; there are {known}")
    return jax.tree.map(lambda path: any(path.startswith(f"{b}/") for b in beginnings), paths)


class AdamState(NamedTuple):
    """Updates made so far, and the first and second moments, shaped like the parameters."""

    updates: jax.Array
    mu: Any
    nu: Any


def scale_by_adam(*, b1: float, b2: float, eps: float, bias_correction: bool) -> optax.GradientTransformation:
    """m / (sqrt(v) + eps), with the bias of m and v corrected or, as in Google's BERT, not.

    Kingma and Ba (arXiv 1412.6980); google-research/bert `optimization.py` for the uncorrected form.
    """

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        count = state.updates + 1
        mu = jax.tree.map(lambda g, m: b1 * m + (1.0 - b1) * g, grads, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1.0 - b2) * jnp.square(g), grads, state.nu)
        steps = count.astype(jnp.float32)
        # 1 - b^t through expm1: at t = 1 the plain form loses four digits for b2 = 0.999.
        c1 = -jnp.expm1(steps * jnp.log(b1)) if bias_correction else 1.0
        c2 = -jnp.expm1(steps * jnp.log(b2)) if bias_correction else 1.0
        updates = jax.tree.map(lambda m, v: (m / c1) / (jnp.sqrt(v / c2) + eps), mu, nu)
        return updates, AdamState(count, mu, nu)

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


ADAPTATIONS: dict[str, tuple[Any, ...]] = {"adamw": (), "lamb": (scale_by_layer_trust_ratio,)}
"""`optim.name` -> what follows moments and decay, on the leaves that are decayed."""


def _names(path: tuple[Any, ...]) -> list[str]:
    # A leaf may be boxed with its logical axis names: the box adds an attribute to the path, not a key.
    return [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
