"""The encoder with its heads: parameters, outputs, and where each parameter lives.

Shape letters: B rows, L positions of a row, H hidden size, P prediction slots, K examples of a row, V vocabulary,
C classes.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax import batch as batch_contract
from bertjax.config.schema import ComputeConfig, DataConfig, ModelConfig
from bertjax.model.beside import beside
from bertjax.model.encoder import Encoder
from bertjax.model.heads import HEADS, MlmHead
from bertjax.parallel.sharding import tree_shardings

Arrays = dict[str, jax.Array]


class Network(nn.Module):
    """The encoder and some of the heads of `bertjax.model.heads`, reading a batch (`bertjax.batch`)."""

    config: ModelConfig
    compute: ComputeConfig
    heads: tuple[str, ...]
    every_layer: bool = False

    @nn.compact
    def __call__(self, batch: Arrays, key: jax.Array | None = None) -> Arrays:
        """Returns `hidden` [B, L, H] and what the heads give: `mlm_logits` [B, P, V], `pooled` [B, K, H], `pair_logits`
        [B, K, 2], `class_logits` [B, K, C], `tag_logits` [B, L, C], `span_logits` [B, L, 2]; if `every_layer`, `layers`
        [layers, B, L, H]. Logits are float32. What a caller does not use, jit removes, and what no head reads, the
        batch need not have. `key` None = no dropout.
        """
        encoder = Encoder(self.config, self.compute, self.every_layer, name="encoder")
        x_BLH, word_VE, layers = encoder(
            batch["tokens"], batch["segments"], batch["positions"], batch["token_types"], key
        )
        outputs = {"hidden": x_BLH} | ({} if layers is None else {"layers": layers})
        # The encoder splits the key into two: these are other ones.
        keys = {name: None if key is None else jax.random.fold_in(key, 2 + i) for i, name in enumerate(HEADS)}
        for name, head in HEADS.items():
            if name in self.heads:
                x = head.read(self.config, outputs[head.of], batch)
                module: Any = head.module
                outputs[head.gives] = module(self.config, self.compute, name=name)(x, word_VE, keys[name])
        return outputs


def apply(
    config: ModelConfig,
    compute: ComputeConfig,
    params: Any,
    batch: Any,
    key: jax.Array | None = None,
    *,
    heads: tuple[str, ...] | None = None,
    every_layer: bool = False,
) -> Arrays:
    """The outputs of `Network` with these parameters; `heads` None = those of the config."""
    network = Network(config, compute, config.heads if heads is None else heads, every_layer)
    outputs: Any = network.apply({"params": params}, batch, key)
    return outputs


def forward(config: ModelConfig, compute: ComputeConfig) -> jax.tree_util.Partial:
    """`apply` for this model, as (params, batch, key) -> outputs: a pytree without leaves, for the steps to take."""
    return jax.tree_util.Partial(functools.partial(apply, config, compute))


def init(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh parameters, boxed with their logical axes."""
    fields = batch_contract.spec(DataConfig(), rows=1, length=1)
    example = {name: jnp.zeros(field.shape, field.dtype) for name, field in fields.items()}
    # With the attention that can be traced for any device.
    network = Network(config, ComputeConfig(attention="reference"), config.heads)
    params = network.init(key, example)["params"]
    if config.initializer != "beside":
        return params
    return nn.meta.replace_boxed(params, beside(config, nn.meta.unbox(params)))


def mlm_logits(config: ModelConfig, compute: ComputeConfig, params: Any, x_BPH: jax.Array) -> jax.Array:
    """Vocabulary logits [B, P, V] of hidden states, by the MLM head of these parameters."""
    word_VE = params["encoder"]["embeddings"]["word"]
    logits: Any = MlmHead(config, compute).apply({"params": params["mlm_head"]}, x_BPH, word_VE)
    return logits


def abstract_params(config: ModelConfig, mesh: Any = None) -> Any:
    """Shape and dtype of every parameter, and its sharding on a mesh; nothing is allocated."""
    shapes = nn.meta.unbox(_boxed_params(config))
    if mesh is None:
        return shapes
    places = param_shardings(config, mesh)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


def param_shardings(config: ModelConfig, mesh: Any) -> Any:
    """Where every parameter lives on a mesh."""
    return tree_shardings(_boxed_params(config), mesh)


@functools.cache
def _boxed_params(config: ModelConfig) -> Any:
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))
