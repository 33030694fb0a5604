"""What a student is compared with: the teacher's words and hidden states, computed inside the student's step.

Sanh et al. 2019 (arXiv 1910.01108) and the released distiller, whose KL divergence is a mean over the compared
positions, times the square of the temperature: then its gradient hardly depends on the temperature.

Shape letters: B rows, L positions of a row, P compared positions, H hidden size (S of the student, T of the teacher),
V vocabulary, N compared layers, C chunks of c positions.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.model import network as model
from bertjax.config.schema import Config, ModelConfig, ObjectiveConfig, TeacherConfig
from bertjax.errors import ConfigError
from bertjax.model.network import Affine, linear

Arrays = dict[str, jax.Array]

_CHUNK = 64  # positions of a row whose logits exist at one time, where all real tokens are compared


@dataclass(frozen=True)
class Teacher:
    """A model to learn from: its shape, its parameters on the devices, and a fingerprint of them."""

    model: ModelConfig
    params: Any
    digest: str


def layer_map(rule: str, students: int, teachers: int) -> list[tuple[int, int]]:
    """Pairs of a student's and a teacher's layer, from 0, whose hidden states are compared (`teacher.layers`).

    last: the last two. every: each of the student's with the one at the same depth, so of 12 and 6 layers the 2nd, 4th,
    ... 12th. Else the teacher's layers, one for each of the student's. Raises ConfigError for a list that is not that.
    """
    if rule == "last":
        return [(students - 1, teachers - 1)]
    every = [round((i + 1) * teachers / students) - 1 for i in range(students)]
    layers = every if rule == "every" else [int(layer) for layer in rule.split(",")]
    if len(layers) != students or not 0 <= min(layers) <= max(layers) < teachers:
        raise ConfigError(
            f"teacher.layers = {rule!r}: must be a layer of the teacher, 0 to {teachers - 1}, for each of the"
            f" {students} layers of the model"
        )
    return list(enumerate(layers))


def projection(config: Config) -> Affine:
    """The learned map from the student's hidden states to the width of the teacher's."""
    shape = (config.model.hidden_size, config.teacher.projection)
    return Affine(config.model, shape, ("hidden", "hidden_out"))


def with_weights(config: TeacherConfig, batch: Arrays) -> Arrays:
    """The batch and what weighs the items of the taught terms: 1 for a real token."""
    token_weights_BL = (batch["segments"] > 0).astype(jnp.float32)
    soft = batch["mlm_weights"] if config.tokens == "masked" else token_weights_BL
    return batch | {"token_weights": token_weights_BL, "soft_weights": soft}


def needs_every_layer(config: Config) -> bool:
    """Whether hidden states other than the last are compared."""
    return bool(config.teacher.path) and config.teacher.layers != "last"


def items(config: Config, params: Any, outputs: Arrays, teacher: Teacher, teacher_params: Any, batch: Arrays) -> Arrays:
    """`NAME_items` of each active taught term, by position; no gradient reaches the teacher.

    `outputs` are the student's for `params`. The teacher drops nothing and sees what the student sees.
    """
    o = config.objective
    teacher_params = jax.lax.stop_gradient(teacher_params)
    theirs = model.apply(teacher.model, teacher_params, batch, every_layer=needs_every_layer(config))
    found: Arrays = {}
    if o.soft > 0.0 or o.logit_mse > 0.0:
        if config.teacher.tokens == "masked":
            found |= compare_words(o, config.teacher, outputs["mlm_logits"], theirs["mlm_logits"])
        else:
            found |= _compare_all_words(config, params, outputs["hidden"], teacher, teacher_params, theirs["hidden"])
    if o.cosine > 0.0 or o.hidden_mse > 0.0:
        pairs = layer_map(config.teacher.layers, config.model.num_layers, teacher.model.num_layers)
        mine_NBLS = _states(config, outputs, [mine for mine, _ in pairs])
        if config.teacher.projection:
            mine_NBLS = linear("NBLS,ST->NBLT", mine_NBLS, tuple(params["projection"][x] for x in ("kernel", "bias")))
        found |= compare_states(o, mine_NBLS, _states(config, theirs, [other for _, other in pairs]))
    return found


def compare_words(o: ObjectiveConfig, teacher: TeacherConfig, mine_BPV: jax.Array, theirs_BPV: jax.Array) -> Arrays:
    """Items [B, P] of the terms that compare logits."""
    found: Arrays = {}
    if o.soft > 0.0:
        T = teacher.temperature
        log_theirs_BPV = jax.nn.log_softmax(theirs_BPV / T)
        gap_BPV = log_theirs_BPV - jax.nn.log_softmax(mine_BPV / T)
        # p log(p / q) - p + q, where p and q cancel in the sum: every item is positive, and none is a small difference
        # of large numbers, which T^2 would blow up.
        found["soft_items"] = T**2 * jnp.sum(jnp.exp(log_theirs_BPV) * (gap_BPV + jnp.expm1(-gap_BPV)), axis=-1)
    if o.logit_mse > 0.0:
        found["logit_mse_items"] = jnp.mean(jnp.square(mine_BPV - theirs_BPV), axis=-1)
    return found


def compare_states(o: ObjectiveConfig, mine_NBLH: jax.Array, theirs_NBLH: jax.Array) -> Arrays:
    """Items [B, L] of the terms that compare hidden states, each the mean over the layers; in float32."""
    mine_NBLH, theirs_NBLH = mine_NBLH.astype(jnp.float32), theirs_NBLH.astype(jnp.float32)
    found: Arrays = {}
    if o.cosine > 0.0:
        product_NBL = jnp.sum(mine_NBLH * theirs_NBLH, axis=-1)
        squares_NBL = jnp.sum(jnp.square(mine_NBLH), axis=-1) * jnp.sum(jnp.square(theirs_NBLH), axis=-1)
        # Of a LayerNorm's output, so never 0, except where padding could be anything.
        found["cosine_items"] = jnp.mean(1.0 - product_NBL * jax.lax.rsqrt(jnp.maximum(squares_NBL, 1e-16)), axis=0)
    if o.hidden_mse > 0.0:
        found["hidden_mse_items"] = jnp.mean(jnp.square(mine_NBLH - theirs_NBLH), axis=(0, -1))
    return found


def _states(config: Config, outputs: Arrays, layers: list[int]) -> jax.Array:
    """Hidden states [N, B, L, H] of the compared layers."""
    return outputs["layers"][np.array(layers)] if needs_every_layer(config) else outputs["hidden"][None]


def _compare_all_words(
    config: Config, params: Any, x_BLS: jax.Array, teacher: Teacher, teacher_params: Any, x_BLT: jax.Array
) -> Arrays:
    """`compare_words` at every position of the rows, a chunk at a time and again in the backward pass.

    No array has a logit for each token: at BERT-base's 30,522 words and 16 rows of 512 that would be 1 GB.
    """
    L = x_BLS.shape[1]
    size = next(size for size in range(min(_CHUNK, L), 0, -1) if L % size == 0)

    def chunks(x_BLH: jax.Array) -> jax.Array:
        B, _, H = x_BLH.shape
        return jnp.swapaxes(x_BLH.reshape(B, L // size, size, H), 0, 1)

    @jax.checkpoint
    def body(carry: None, x: tuple[jax.Array, jax.Array]) -> tuple[None, Arrays]:
        mine_BcV = model.mlm_logits(config.model, params, x[0])
        theirs_BcV = model.mlm_logits(teacher.model, teacher_params, x[1])
        return carry, compare_words(config.objective, config.teacher, mine_BcV, theirs_BcV)

    _, found_CBc = jax.lax.scan(body, None, (chunks(x_BLS), chunks(x_BLT)))
    return {name: jnp.swapaxes(x_CBc, 0, 1).reshape(x_CBc.shape[1], L) for name, x_CBc in found_CBc.items()}
