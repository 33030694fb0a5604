"""Models of every kind, small, with random parameters."""

import functools

import jax
import numpy as np
from small import random_batch, tiny

from bertjax.config.schema import ComputeConfig
from bertjax.model.network import abstract_params, apply

KINDS = {
    "bert": {},
    "albert": {"share": "all", "embedding_size": 16},
    "albert_2_groups": {"share": "all", "num_groups": 2, "embedding_size": 16, "activation": "relu"},
    "attention_shared": {"share": "attention", "num_groups": 2},
    "ffn_shared": {"share": "ffn"},
    "rotary": {"positions": "rotary", "share": "all", "embedding_size": 16, "rotary_base": 100.0},
    "modernbert": {
        "num_layers": 4,
        "positions": "rotary",
        "rotary_base": 500.0,
        "rotary_base_local": 50.0,
        "window": 4,
        "norm": "layer_no_bias",
        "norm_place": "pre",
        "first_norm": False,
        "layer_norm_eps": 1e-5,
        "ffn": "gated",
        "activation": "gelu_erf",
        "biases": "decoder",
        "token_types": 0,
    },
    "neobert": {
        "positions": "rotary",
        "rotary_pairs": "neighbours",
        "norm": "rms",
        "norm_place": "pre",
        "embedding_norm": False,
        "layer_norm_eps": 1e-5,
        "ffn": "gated",
        "activation": "silu",
        "biases": "decoder",
        "mlm_transform": False,
        "tie_words": False,
        "token_types": 0,
    },
    "nomic": {"positions": "rotary", "rotary_base": 1000.0, "ffn": "gated", "activation": "silu", "biases": "heads"},
    "albert_modern": {
        "positions": "rotary",
        "num_layers": 5,
        "window": 3,
        "global_every": 2,
        "share": "all",
        "num_groups": 2,
        "embedding_size": 16,
        "ffn": "gated",
        "norm_place": "pre",
        "first_norm": False,
        "biases": "none",
    },
    "distilbert": {
        "token_types": 0,
        "heads": ("mlm_head",),
        "activation": "gelu_erf",
        "attention_output_dropout": False,
    },
}


@functools.cache
def make(kind, **changes):
    """Config, batch and random parameters; LayerNorms too, since a wrong use of scale 1 and bias 0 would not show."""
    config = tiny(model={**KINDS[kind], **changes}, objective={"pair": 0.0} if kind == "distilbert" else {})
    batch = random_batch(config)
    rng = np.random.default_rng(0)

    def draw(path, x):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.1 * rng.normal(size=x.shape)).astype(np.float32)

    return config, batch, jax.tree_util.tree_map_with_path(draw, abstract_params(config.model))


@functools.cache
def run(model, dtype="float32"):
    """The jitted model: (params, batch, key) -> outputs."""
    return jax.jit(functools.partial(apply, model, ComputeConfig(dtype=dtype)))
