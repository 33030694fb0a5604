"""The teacher of a distillation run: opened, checked against the student, and put on the devices."""

import zlib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.trained import load as pretrained
from bertjax.config.schema import Config
from bertjax.data.tokenizer import Tokenizer
from bertjax.tasks.distill import Teacher, layer_map
from bertjax.errors import ConfigError
from bertjax.model.network import param_shardings


def load(config: Config, tokens: Tokenizer | None, mesh: Any) -> Teacher | None:
    """The model in `teacher.path`, in `teacher.dtype`, laid out over the mesh like any parameters; None without a path.

    `tokens` None: the batches hold no text, as those of a benchmark, and any vocabulary of the size will do.
    Raises ConfigError with a line for everything that keeps the run from learning from it, and what
    `pretrained.load` raises.
    """
    if not config.teacher.path:
        return None
    found = pretrained.load(config.teacher.path)
    check(found, config, tokens)
    shape = replace(found.model, dtype=config.teacher.dtype, attention="auto", dropout=0.0, attention_dropout=0.0)
    digest = 0
    for leaf in jax.tree.leaves(found.params):
        digest = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), digest)
    half = jax.tree.map(lambda x: x.astype(jnp.dtype(config.teacher.dtype)), found.params)
    return Teacher(shape, jax.device_put(half, param_shardings(shape, mesh)), f"{digest:08x}")


def check(found: pretrained.Pretrained, config: Config, tokens: Tokenizer | None) -> None:
    """Raise ConfigError with a line for everything about the teacher that does not go with the student."""
    m, t, o, c = config.model, found.model, config.objective, config.teacher
    name = f"teacher.path = {c.path!r}"
    width, hidden = c.projection or m.hidden_size, o.cosine > 0.0 or o.hidden_mse > 0.0
    rules = [
        (
            tokens is None or (found.tokenizer is not None and found.tokenizer.digest == tokens.digest),
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
        layer_map(c.layers, m.num_layers, t.num_layers)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
