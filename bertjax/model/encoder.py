"""Embeddings and layers: BERT, ALBERT and DistilBERT are one encoder with different numbers.

Shape letters: B rows, L positions of a row, H hidden size, E embedding size, N heads, D head dimension, F FFN size,
V vocabulary, M positions of the table, T token types, S the three projections (query, key, value), G groups of layers,
R layers of a group.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.model.attention import attend
from bertjax.model.layers import Affine, LayerNorm, linear, weights
from bertjax.model.ops import ACTIVATIONS, dropout
from bertjax.model.positions import Rotation, rotate, rotation
from bertjax.parallel.sharding import constrain

REMAT_POLICIES: dict[str, Any] = {
    "dots": jax.checkpoint_policies.checkpoint_dots,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nn.Module):
    """The word table and, where there are such, those of positions and token types: sum -> LayerNorm -> dropout -> E to
    H if they differ.
    """

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, token_types_BL: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns hidden states [B, L, H] and the word table [V, E], which the MLM head ties to."""
        c, k = self.config, self.compute
        word_VE = self.param("word", weights(c, "vocab", "hidden"), (c.vocab_size, c.embedding_size))
        x_BLE = word_VE[tokens_BL]
        if c.positions == "learned":
            position_ME = self.param("position", weights(c, "table", "hidden"), (c.max_positions, c.embedding_size))
            x_BLE += position_ME[positions_BL]
        if c.token_types:
            type_TE = self.param("token_type", weights(c, "table", "hidden"), (c.token_types, c.embedding_size))
            # A product instead of a look-up: its gradient is a matrix product, not a scatter into two rows.
            x_BLE += jax.nn.one_hot(token_types_BL, c.token_types) @ type_TE
        x_BLE = dropout(LayerNorm(c, k, name="norm")(x_BLE), c.dropout, key)
        if c.embedding_size != c.hidden_size:
            to_hidden = Affine(c, k, (c.embedding_size, c.hidden_size), ("hidden", "hidden_out"), name="to_hidden")
            return linear("BLE,EH->BLH", x_BLE, to_hidden()), word_VE
        return x_BLE, word_VE


class Places(NamedTuple):
    """Of each position of a row: which example it is in, [B, L], and how it is turned (rotary positions)."""

    segments: jax.Array
    rotation: Rotation | None


class Attention(nn.Module):
    """Self-attention sub-block, post-LN: LayerNorm(x + dropout(attention(x)))."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BLH: jax.Array, places: Places, key: jax.Array | None) -> jax.Array:
        c, k = self.config, self.compute
        N, D = c.num_heads, c.hidden_size // c.num_heads
        prob_key, out_key = (None, None) if key is None else jax.random.split(key)

        shape, axes = (c.hidden_size, N, D), ("hidden", "heads", "head_dim")
        projections = [Affine(c, k, shape, axes, bias_ndim=2, name=name)() for name in ("query", "key", "value")]
        # One product instead of three: 1.4 times faster on CPU. Stacked, so that heads stay split.
        kernel_HSND = jnp.stack([kernel for kernel, _ in projections], axis=1)
        bias_SND = jnp.stack([bias for _, bias in projections])
        qkv_BLSND = linear("BLH,HSND->BLSND", x_BLH, (kernel_HSND, bias_SND))
        q_BLND, k_BLND, v_BLND = (qkv_BLSND[:, :, i] for i in range(3))
        if places.rotation is not None:
            q_BLND, k_BLND = rotate(q_BLND, places.rotation), rotate(k_BLND, places.rotation)
        context_BLND = attend(
            q_BLND,
            k_BLND,
            v_BLND,
            places.segments,
            dropout_rate=c.attention_dropout,
            key=prob_key,
            backend=k.attention,
        )
        out = Affine(c, k, (N, D, c.hidden_size), ("heads", "head_dim", "hidden"), name="out")
        y_BLH = linear("BLND,NDH->BLH", context_BLND, out())
        if c.attention_output_dropout:
            y_BLH = dropout(y_BLH, c.dropout, out_key)
        return LayerNorm(c, k, name="norm")(x_BLH + y_BLH)


class FeedForward(nn.Module):
    """Feed-forward sub-block, post-LN: LayerNorm(x + dropout(W2 act(W1 x)))."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, x_BLH: jax.Array, places: Places, key: jax.Array | None) -> jax.Array:
        del places  # every position by itself
        c, k = self.config, self.compute
        up = Affine(c, k, (c.hidden_size, c.ffn_size), ("hidden", "ffn"), name="up")
        down = Affine(c, k, (c.ffn_size, c.hidden_size), ("ffn", "hidden"), name="down")
        y_BLF = ACTIVATIONS[c.activation](linear("BLH,HF->BLF", x_BLH, up()))
        y_BLH = dropout(linear("BLF,FH->BLH", y_BLF, down()), c.dropout, key)
        return LayerNorm(c, k, name="norm")(x_BLH + y_BLH)


PARTS: dict[str, type[nn.Module]] = {"attention": Attention, "ffn": FeedForward}
"""The sub-blocks of a layer in order. Each owns the LayerNorm that follows it, and shares as a whole."""

SHARED: dict[str, tuple[str, ...]] = {
    "none": ("attention", "ffn"),  # in groups of one layer
    "attention": ("attention",),
    "ffn": ("ffn",),
    "all": ("attention", "ffn"),
}
"""`model.share` -> the parts that all layers of a group have in common."""


class Layer(nn.Module):
    """One encoder layer, as the body of a scan: shared parts use the weights they are given, others own theirs."""

    config: ModelConfig
    compute: ComputeConfig
    every_layer: bool  # whether the scan stacks the hidden states

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, keys_2: jax.Array | None, shared: dict[str, Any], places: Places
    ) -> tuple[jax.Array, jax.Array | None]:
        for i, (name, part) in enumerate(PARTS.items()):
            key = None if keys_2 is None else keys_2[i]
            if name in shared:
                block: Any = part(self.config, self.compute, parent=None)
                x_BLH = block.apply({"params": shared[name]}, x_BLH, places, key)
            else:
                x_BLH = part(self.config, self.compute, name=name)(x_BLH, places, key)
            x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        return x_BLH, x_BLH if self.every_layer else None


class Group(nn.Module):
    """Consecutive layers with one copy of the shared parts, as the body of a scan over the groups."""

    config: ModelConfig
    compute: ComputeConfig
    every_layer: bool

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, keys_R2: jax.Array | None, places: Places
    ) -> tuple[jax.Array, jax.Array | None]:
        c, k = self.config, self.compute

        def declare(name: str) -> Any:
            # Declared here and applied as a function inside the scan: a module created here cannot be called there.
            block = PARTS[name](c, k, parent=None)
            return self.param(name, lambda key: block.init(key, x_BLH, places, None)["params"])

        shared = {name: declare(name) for name in SHARED[c.share]}
        repeats = c.num_layers // c.copies
        layers = _scan(_remat(Layer, k), k, repeats, in_axes=(0, nn.broadcast, nn.broadcast))
        return layers(c, k, self.every_layer, name="layers")(x_BLH, keys_R2, shared, places)


class Encoder(nn.Module):
    """Embeddings and `num_layers` layers.

    The outer scan stacks the groups on the first axis of every parameter; the inner one repeats the shared parts of a
    group and stacks the others on a second axis. BERT is the case of one layer a group.
    """

    config: ModelConfig
    compute: ComputeConfig
    every_layer: bool = False

    @nn.compact
    def __call__(
        self,
        tokens_BL: jax.Array,
        segments_BL: jax.Array,
        positions_BL: jax.Array,
        token_types_BL: jax.Array,
        key: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Returns hidden states [B, L, H], the word table [V, E] and, if `every_layer`, the hidden states after each
        layer, [layers, B, L, H]. `key` None = no dropout.
        """
        c, k = self.config, self.compute
        embed_key, layers_key = (None, None) if key is None else jax.random.split(key)
        x_BLH, word_VE = Embeddings(c, k, name="embeddings")(tokens_BL, positions_BL, token_types_BL, embed_key)
        x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        repeats = c.num_layers // c.copies
        # One key for each part of each layer, as data of the scan: scan, unrolled and remat draw the same dropout.
        keys_GR2 = None if layers_key is None else jax.random.split(layers_key, (c.copies, repeats, len(PARTS)))
        turned = c.positions == "rotary"
        places = Places(
            segments_BL, rotation(positions_BL, c.hidden_size // c.num_heads, c.rotary_base) if turned else None
        )
        groups = _scan(Group, k, c.copies, in_axes=(0, nn.broadcast))
        x_BLH, layers = groups(c, k, self.every_layer, name="groups")(x_BLH, keys_GR2, places)
        return x_BLH, word_VE, None if layers is None else layers.reshape(c.num_layers, *x_BLH.shape)


def _scan(body: Any, compute: ComputeConfig, length: int, *, in_axes: tuple[Any, ...]) -> Any:
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        unroll=1 if compute.scan else length,
        metadata_params={nn.PARTITION_NAME: "stack"},
    )


def _remat(layer: Any, compute: ComputeConfig) -> Any:
    if compute.remat == "none":
        return layer
    # Inside a scan the barrier against common subexpressions is not needed and would only block fusions.
    return nn.remat(layer, policy=REMAT_POLICIES[compute.remat], prevent_cse=not compute.scan)
