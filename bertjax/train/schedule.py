"""The rate by step; and the numbers in which runs of one compiled step may differ, which are data of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bertjax.config.phases import Stretch
from bertjax.config.schema import Config, OptimConfig


class Point(NamedTuple):
    """What a step is given beside its state and batch, as scalar arrays. Runs that differ in nothing else share what is
    compiled.
    """

    seed: Any
    lr: Any
    begin: Any
    """The step behind which the schedule begins; the others count from there."""
    steps: Any
    warmup_steps: Any
    decay_steps: Any


def point_of(config: Config, rate: Stretch | None = None) -> Point:
    """The point at which a run is, on the host, whose schedule runs over the steps `rate`; None = over all of them."""
    o, rate = config.optim, rate or Stretch(0, config.run.steps)
    whole = (np.int32(x) for x in (rate.begin, rate.steps, o.warmup_steps, o.decay_steps))
    return Point(np.uint32(config.run.seed), np.float32(o.lr), *whole)


SCHEDULES: dict[str, tuple[Callable[[OptimConfig, Point], Any], Callable[[OptimConfig, jax.Array], jax.Array]]] = {
    # Unshifted, as in BERT, the rate drops from lr to its place in the decay as the warm-up ends. With power 0 the base
    # may be 0 and 0^0 is 1: a constant rate, also at the last step.
    "power": (lambda c, p: p.warmup_steps if c.shift_decay else 0, lambda c, t: (1.0 - t) ** c.power),
    "cosine": (lambda c, p: p.warmup_steps, lambda c, t: 0.5 * (1.0 + jnp.cos(jnp.pi * t))),
    "wsd_linear": (lambda c, p: p.steps - p.decay_steps, lambda c, t: 1.0 - t),
    "wsd_sqrt": (lambda c, p: p.steps - p.decay_steps, lambda c, t: 1.0 - jnp.sqrt(t)),
}
"""`optim.schedule` -> the step at which the decay starts, and what is left of the rate after its share t, from 0 to 1.

Warm-up, stable, decay: Hu et al. (arXiv 2404.06395), and Haegele et al. (arXiv 2405.18392) for 1 - sqrt(t).
"""


def make_schedule(config: OptimConfig, point: Point) -> optax.Schedule:
    """Linear warm-up from 0 to `lr`, then the decay of `optim.schedule` to `final_lr` of it at `steps`; both `lr` and
    `steps`, where they begin, and those of warm-up and decay, are the point's.
    """
    begin, left = SCHEDULES[config.schedule]
    start = begin(config, point)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step - point.begin, jnp.float32)
        progress = jnp.clip((step - start) / jnp.maximum(point.steps - start, 1), 0.0, 1.0)
        decayed = point.lr * (config.final_lr + (1.0 - config.final_lr) * left(config, progress))
        warm = point.lr * step / jnp.maximum(point.warmup_steps, 1)
        return jnp.where(step < point.warmup_steps, warm, decayed)

    return schedule
