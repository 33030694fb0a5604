"""Learning from a teacher: its words and hidden states, computed inside the student's step and compared with its own.

Sanh et al. 2019 (arXiv 1910.01108) and the released distiller, whose KL divergence is a mean over the compared
positions, times the square of the temperature: then its gradient hardly depends on the temperature.

Shape letters: B rows, L positions of a row, P compared positions, H hidden size (S of the student, T of the teacher),
V vocabulary, N compared layers, C chunks of c positions.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config.schema import Config, ModelConfig, ObjectiveConfig, TeacherConfig
from bertjax.model import network
from bertjax.model.cost import flops_per_token, predicted_share
from bertjax.model.layers import Affine, linear
from bertjax.tasks.teacher import Teacher, layer_pairs
from bertjax.train.objective import Term
from bertjax.train.step import Forward
from bertjax.train.task import Task

Arrays = dict[str, jax.Array]

_CHUNK = 64  # positions of a row whose logits exist at one time, where all real tokens are compared


def distilled(task: Task, config: Config, teacher: Teacher) -> Task:
    """The task with this teacher beside it: its forward function wrapped, the terms that compare added."""
    weights = {"soft": words, "logit_mse": words, "cosine": real, "hidden_mse": real}
    compared = {
        name: (getattr(config.objective, name), Term(partial(weigh, config.teacher), partial(_items, name)))
        for name, weigh in weights.items()
        if getattr(config.objective, name) > 0.0
    }
    # What is fixed belongs to the program; the teacher's parameters are arguments of it.
    fixed = partial(_forward, config, replace(teacher, params=None))
    return replace(
        task,
        init=partial(_init, config, task.init),
        forward=jax.tree_util.Partial(fixed, task.forward, teacher.params),
        terms=dict(task.terms) | compared,
        identity=task.identity | {"teacher": teacher.digest},
        flops_per_token=task.flops_per_token + _more_flops(config, teacher.model),
    )


def real(config: TeacherConfig, batch: Arrays) -> jax.Array:
    """Weights [B, L] of the terms that compare hidden states: 1 for a real token."""
    return (batch["segments"] > 0).astype(jnp.float32)


def words(config: TeacherConfig, batch: Arrays) -> jax.Array:
    """Weights [B, P] of the terms that compare logits: of the predicted slots, or of all real tokens."""
    return batch["mlm_weights"] if config.tokens == "masked" else real(config, batch)


def _items(name: str, outputs: Arrays, batch: Arrays) -> Arrays:
    return {"loss": outputs[name]}


def _init(config: Config, init: Any, key: jax.Array) -> Any:
    params = init(key)
    if not config.teacher.projection:
        return params
    # The learned map from the student's hidden states to the width of the teacher's.
    shape = (config.model.hidden_size, config.teacher.projection)
    affine = Affine(config.model, config.compute, shape, ("hidden", "hidden_out"))
    return params | {"projection": affine.init(key)["params"]}


def _forward(
    config: Config,
    teacher: Teacher,
    own: Forward,
    teacher_params: Any,
    params: Any,
    batch: Arrays,
    key: jax.Array | None,
) -> Arrays:
    """The student's outputs, and the items of each term that compares, under its name."""
    outputs = own(params, batch, key, every_layer=bool(config.teacher.layers))
    return outputs | compare(config, params, outputs, replace(teacher, params=teacher_params), batch)


def compare(config: Config, params: Any, outputs: Arrays, teacher: Teacher, batch: Arrays) -> Arrays:
    """Items by position of each active term that compares; no gradient reaches the teacher.

    `outputs` are the student's for `params`. The teacher drops nothing and sees what the student sees.
    """
    o = config.objective
    teacher = replace(teacher, params=jax.lax.stop_gradient(teacher.params))
    every_layer = bool(config.teacher.layers)
    theirs = network.apply(teacher.model, teacher.compute, teacher.params, batch, every_layer=every_layer)
    found: Arrays = {}
    if o.soft > 0.0 or o.logit_mse > 0.0:
        if config.teacher.tokens == "masked":
            found |= compare_words(o, config.teacher, outputs["mlm_logits"], theirs["mlm_logits"])
        else:
            found |= _compare_all_words(config, params, outputs["hidden"], teacher, theirs["hidden"])
    if o.cosine > 0.0 or o.hidden_mse > 0.0:
        pairs = layer_pairs(config.teacher.layers, config.model.num_layers, teacher.model.num_layers)
        mine_NBLS = _states(outputs, [mine for mine, _ in pairs])
        if config.teacher.projection:
            mine_NBLS = linear("NBLS,ST->NBLT", mine_NBLS, tuple(params["projection"][x] for x in ("kernel", "bias")))
        found |= compare_states(o, mine_NBLS, _states(theirs, [other for _, other in pairs]))
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
        found["soft"] = T**2 * jnp.sum(jnp.exp(log_theirs_BPV) * (gap_BPV + jnp.expm1(-gap_BPV)), axis=-1)
    if o.logit_mse > 0.0:
        found["logit_mse"] = jnp.mean(jnp.square(mine_BPV - theirs_BPV), axis=-1)
    return found


def compare_states(o: ObjectiveConfig, mine_NBLH: jax.Array, theirs_NBLH: jax.Array) -> Arrays:
    """Items [B, L] of the terms that compare hidden states, each the mean over the layers; in float32."""
    mine_NBLH, theirs_NBLH = mine_NBLH.astype(jnp.float32), theirs_NBLH.astype(jnp.float32)
    found: Arrays = {}
    if o.cosine > 0.0:
        product_NBL = jnp.sum(mine_NBLH * theirs_NBLH, axis=-1)
        squares_NBL = jnp.sum(jnp.square(mine_NBLH), axis=-1) * jnp.sum(jnp.square(theirs_NBLH), axis=-1)
        # Of a LayerNorm's output, so never 0, except where padding could be anything.
        found["cosine"] = jnp.mean(1.0 - product_NBL * jax.lax.rsqrt(jnp.maximum(squares_NBL, 1e-16)), axis=0)
    if o.hidden_mse > 0.0:
        found["hidden_mse"] = jnp.mean(jnp.square(mine_NBLH - theirs_NBLH), axis=(0, -1))
    return found


def _states(outputs: Arrays, layers: list[int]) -> jax.Array:
    """Hidden states [N, B, L, H] of these layers; only the last are there where no others were asked for."""
    return outputs["layers"][np.array(layers)] if "layers" in outputs else outputs["hidden"][None]


def _compare_all_words(config: Config, params: Any, x_BLS: jax.Array, teacher: Teacher, x_BLT: jax.Array) -> Arrays:
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
        mine_BcV = network.mlm_logits(config.model, config.compute, params, x[0])
        theirs_BcV = network.mlm_logits(teacher.model, teacher.compute, teacher.params, x[1])
        return carry, compare_words(config.objective, config.teacher, mine_BcV, theirs_BcV)

    _, found_CBc = jax.lax.scan(body, None, (chunks(x_BLS), chunks(x_BLT)))
    return {name: jnp.swapaxes(x_CBc, 0, 1).reshape(x_CBc.shape[1], L) for name, x_CBc in found_CBc.items()}


def _more_flops(config: Config, teacher: ModelConfig) -> float:
    """Of a step for one real token, beside the student's own: the teacher's forward pass, and logits of all tokens."""
    length = config.data.seq_len
    logits = config.objective.soft > 0.0 or config.objective.logit_mse > 0.0
    if not logits or config.teacher.tokens == "masked":
        predicted = predicted_share(config.data) if logits else 0.0
        return flops_per_token(teacher, length, predicted=predicted)["total"] / 3.0
    # The student's logits of all tokens come beside those of the predicted slots.
    again = flops_per_token(config.model, length, predicted=1.0)["mlm_head"]
    return again + flops_per_token(teacher, length, predicted=1.0)["total"] / 3.0
