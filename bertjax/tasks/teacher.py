"""The teacher of a distillation run: opened, checked against the student, and put on the devices."""

import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax.config.phases import phases
from bertjax.config.schema import ComputeConfig, Config, ModelConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import ConfigError
from bertjax.model.network import param_shardings
from bertjax.parallel import sharding
from bertjax.trained.load import Trained
from bertjax.trained.load import load as load_trained


@dataclass(frozen=True)
class Teacher:
    """A model to learn from: what it is, how it is computed, its parameters on the devices, a fingerprint of them."""

    model: ModelConfig
    compute: ComputeConfig
    params: Any
    digest: str


def load(config: Config, tokenizer: Tokenizer | None, mesh: Mesh) -> Teacher:
    """The model in `teacher.path`, in `teacher.dtype`, laid out over the mesh like any parameters.

    `tokenizer` None: the batches hold no text, as those of a benchmark, and any vocabulary of the size will do.
    Raises ConfigError with a line for everything that keeps the run from learning from it, and what
    `trained.load` raises.
    """
    found = load_trained(config.teacher.path)
    for phase in phases(config):
        with phase.naming():
            check(found, phase.config, tokenizer)
    digest = 0
    for leaf in jax.tree.leaves(found.params):
        digest = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), digest)
    compute = ComputeConfig(dtype=config.teacher.dtype)
    params = jax.tree.map(lambda x: x.astype(jnp.dtype(compute.dtype)), found.params)
    places = param_shardings(found.config, mesh)
    return Teacher(found.config, compute, jax.tree.map(sharding.put_whole, params, places), f"{digest:08x}")


def check(found: Trained, config: Config, tokenizer: Tokenizer | None) -> None:
    """Raise ConfigError with a line for everything about the teacher that does not go with the student."""
    m, t, o, c = config.model, found.config, config.objective, config.teacher
    name = f"teacher.path = {c.path!r}"
    width, hidden = c.projection or m.hidden_size, o.cosine > 0.0 or o.hidden_mse > 0.0
    rules = [
        (
            tokenizer is None or (found.tokenizer is not None and found.tokenizer.digest == tokenizer.digest),
            f"data.tokenizer: is not that of {name}, whose words would be others; train the student with that one",
        ),
        (
            m.vocab_size == t.vocab_size,
            f"model.vocab_size = {m.vocab_size}: {name} has {t.vocab_size}; set it to that",
        ),
        (
            config.data.seq_len <= t.max_positions,
            f"data.seq_len = {config.data.seq_len}: {name} has {t.max_positions} positions; set it to that or less",
        ),
        (
            "mlm_head" in found.heads or (o.soft == 0.0 and o.logit_mse == 0.0),
            f"{name}: has no MLM head, so it names no words; set objective.soft and objective.logit_mse to 0.0",
        ),
        (
            t.token_types != 1 or not config.data.pairs,
            f"{name}: has one token type, data.examples = {config.data.examples} has two; use doc_sentences",
        ),
        (
            not hidden or width == t.hidden_size,
            f"teacher.projection = {c.projection}: the model's hidden states are {m.hidden_size} wide, those of {name}"
            f" {t.hidden_size}; set it to {t.hidden_size if m.hidden_size != t.hidden_size else 0}",
        ),
    ]
    errors = [message for holds, message in rules if not holds]
    try:
        layer_pairs(c.layers, m.num_layers, t.num_layers)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))


def layer_pairs(layers: tuple[int, ...], students: int, teachers: int) -> list[tuple[int, int]]:
    """Pairs of a student's and a teacher's layer, from 0, whose hidden states are compared (`teacher.layers`).

    Without `layers` the last two. Raises ConfigError if they are not a layer of the teacher for each of the student's.
    """
    if not layers:
        return [(students - 1, teachers - 1)]
    if len(layers) != students or max(layers) >= teachers:
        raise ConfigError(
            f"teacher.layers = {layers}: must be a layer of the teacher, 0 to {teachers - 1}, for each of the"
            f" {students} layers of the model"
        )
    return list(enumerate(layers))
