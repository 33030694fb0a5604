"""Embeddings and layers: from BERT to ModernBERT, one encoder with different numbers.

Shape letters: B rows, L positions of a row, H hidden size, E embedding size, N heads, D head dimension, C numbers of
all heads (N D), F FFN size, V vocabulary, M positions of the table, T token types, S maps of one input (query, key
and value; gate and up), G groups of layers, R layers of a group, K kinds of layers (global, local).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.model.attention import attend
from bertjax.model.layers import Affine, Norm, linear, stacked, weights
from bertjax.model.ops import ACTIVATIONS, dropout
from bertjax.model.positions import Rotation, rotate, rotation
from bertjax.parallel.sharding import constrain, for_gather

REMAT_POLICIES: dict[str, Any] = {
    "dots": jax.checkpoint_policies.checkpoint_dots,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nn.Module):
    """The word table and, where there are such, those of positions and token types: sum -> norm, if it has one ->
    dropout -> E to H if they differ.
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
        x_BLE = for_gather(word_VE, "vocab")[tokens_BL]
        if c.positions == "learned":
            position_ME = self.param("position", weights(c, "table", "hidden"), (c.max_positions, c.embedding_size))
            x_BLE += for_gather(position_ME, "table")[positions_BL]
        if c.token_types:
            type_TE = self.param("token_type", weights(c, "table", "hidden"), (c.token_types, c.embedding_size))
            # A product instead of a look-up: its gradient is a matrix product, not a scatter into two rows.
            x_BLE += jax.nn.one_hot(token_types_BL, c.token_types) @ type_TE
        x_BLE = Norm(c, k, name="norm")(x_BLE) if c.embedding_norm else x_BLE.astype(k.dtype)
        x_BLE = dropout(x_BLE, c.dropout, key)
        if c.embedding_size != c.hidden_size:
            to_hidden = Affine(c, k, (c.embedding_size, c.hidden_size), ("hidden", "hidden_out"), name="to_hidden")
            return linear("BLE,EH->BLH", x_BLE, to_hidden()), word_VE
        return x_BLE, word_VE


class Places(NamedTuple):
    """Of each position of a row: which example it is in, [B, L], and how it is turned in each kind of layer, [K, B, L,
    D/2] (rotary positions).
    """

    segments: jax.Array
    rotations: Rotation | None


class Site(NamedTuple):
    """What tells one layer from another where they share their parameters: scalars, or stacks of them for a scan."""

    keys: jax.Array | None  # of the dropout of each part, [2]
    is_local: jax.Array | None  # None = no layer is local


class Attention(nn.Module):
    """Self-attention: norm(x + dropout(attention(x))), or, with norms before, x + dropout(attention(norm(x)))."""

    config: ModelConfig
    compute: ComputeConfig
    normed: bool = True  # False: of a layer without a norm before it

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, places: Places, is_local: jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        c, k = self.config, self.compute
        N, D = c.num_heads, c.hidden_size // c.num_heads
        prob_key, out_key = (None, None) if key is None else jax.random.split(key)

        in_BLH = Norm(c, k, name="norm")(x_BLH) if c.norm_place == "pre" and self.normed else x_BLH
        # Of all heads on one axis: a TPU fills the last two axes of what it stores up to 8 and 128 numbers.
        shape, axes = (c.hidden_size, N * D), ("hidden", "heads")
        maps = [Affine(c, k, shape, axes, name=name)() for name in ("query", "key", "value")]
        qkv_BLSC = linear("BLH,HSC->BLSC", in_BLH, stacked(maps))
        q_BLND, k_BLND, v_BLND = (qkv_BLSC[:, :, i].reshape(*in_BLH.shape[:2], N, D) for i in range(3))
        if places.rotations is not None:
            kind = 0 if is_local is None else is_local.astype(jnp.int32)
            turn = jax.tree.map(lambda x: x[kind], places.rotations)
            q_BLND, k_BLND = rotate(q_BLND, turn, c.rotary_pairs), rotate(k_BLND, turn, c.rotary_pairs)
        context_BLND = attend(
            q_BLND,
            k_BLND,
            v_BLND,
            places.segments,
            dropout_rate=c.attention_dropout,
            key=prob_key,
            backend=k.attention,
            window=c.window,
            is_local=is_local,
        )
        out = Affine(c, k, (N * D, c.hidden_size), ("heads", "hidden"), ends=True, name="out")
        y_BLH = linear("BLC,CH->BLH", context_BLND.reshape(*in_BLH.shape[:2], N * D), out())
        if c.attention_output_dropout:
            y_BLH = dropout(y_BLH, c.dropout, out_key)
        y_BLH = x_BLH + y_BLH
        return Norm(c, k, name="norm")(y_BLH) if c.norm_place == "post" else y_BLH


class FeedForward(nn.Module):
    """Feed-forward part: norm(x + dropout(ffn(x))), or, with norms before, x + dropout(ffn(norm(x)))."""

    config: ModelConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, places: Places, is_local: jax.Array | None, key: jax.Array | None
    ) -> jax.Array:
        del places, is_local  # every position by itself
        c, k = self.config, self.compute
        in_BLH = Norm(c, k, name="norm")(x_BLH) if c.norm_place == "pre" else x_BLH
        shape, axes = (c.hidden_size, c.ffn_size), ("hidden", "ffn")
        if c.ffn == "gated":
            maps = [Affine(c, k, shape, axes, name=name)() for name in ("gate", "up")]
            both_BLSF = linear("BLH,HSF->BLSF", in_BLH, stacked(maps))
            y_BLF = ACTIVATIONS[c.activation](both_BLSF[:, :, 0]) * both_BLSF[:, :, 1]
        else:
            y_BLF = ACTIVATIONS[c.activation](linear("BLH,HF->BLF", in_BLH, Affine(c, k, shape, axes, name="up")()))
        down = Affine(c, k, shape[::-1], axes[::-1], ends=True, name="down")
        y_BLH = x_BLH + dropout(linear("BLF,FH->BLH", y_BLF, down()), c.dropout, key)
        return Norm(c, k, name="norm")(y_BLH) if c.norm_place == "post" else y_BLH


PARTS: dict[str, type[nn.Module]] = {"attention": Attention, "ffn": FeedForward}
"""The sub-blocks of a layer in order. Each owns its norm, and shares as a whole."""

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
    first: bool = False  # without a norm before its attention

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, site: Site, shared: dict[str, Any], places: Places
    ) -> tuple[jax.Array, jax.Array | None]:
        for i, (name, part) in enumerate(PARTS.items()):
            key = None if site.keys is None else site.keys[i]
            if name in shared:
                block: Any = part(self.config, self.compute, parent=None)
                x_BLH = block.apply({"params": shared[name]}, x_BLH, places, site.is_local, key)
            else:
                options = {"normed": False} if self.first and name == "attention" else {}
                block = part(self.config, self.compute, name=name, **options)
                x_BLH = block(x_BLH, places, site.is_local, key)
            x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        return x_BLH, x_BLH if self.every_layer else None


class Group(nn.Module):
    """Consecutive layers with one copy of the shared parts, as the body of a scan over the groups."""

    config: ModelConfig
    compute: ComputeConfig
    every_layer: bool

    @nn.compact
    def __call__(self, x_BLH: jax.Array, site_R: Site, places: Places) -> tuple[jax.Array, jax.Array | None]:
        c, k = self.config, self.compute

        def declare(name: str) -> Any:
            # Declared here and applied as a function inside the scan: a module created here cannot be called there.
            block = PARTS[name](c, k, parent=None)
            return self.param(name, lambda key: block.init(key, x_BLH, places, None, None)["params"])

        shared = {name: declare(name) for name in SHARED[c.share]}
        layers = _scan(_remat(Layer, k, scanned=k.scan), k, c.repeats, in_axes=(0, nn.broadcast, nn.broadcast))
        return layers(c, k, self.every_layer, name="layers")(x_BLH, site_R, shared, places)


class Encoder(nn.Module):
    """Embeddings and `num_layers` layers.

    The outer scan stacks the groups on the first axis of every parameter; the inner one repeats the shared parts of a
    group and stacks the others on a second axis. BERT is the case of one layer a group. A first layer without a norm
    stands apart, before the groups; with norms before the sub-blocks, another follows the last layer.
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
        layer, [layers, B, L, H], the last of them after the norm that may follow it. `key` None = no dropout.
        """
        c, k = self.config, self.compute
        embed_key, layers_key = (None, None) if key is None else jax.random.split(key)
        x_BLH, word_VE = Embeddings(c, k, name="embeddings")(tokens_BL, positions_BL, token_types_BL, embed_key)
        x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        places, site_L = Places(segments_BL, _rotations(c, positions_BL)), _sites(c, layers_key)
        before = []
        if c.apart:
            site = jax.tree.map(lambda x: x[0], site_L)
            x_BLH, first = _remat(Layer, k, scanned=False)(c, k, self.every_layer, True, name="first")(
                x_BLH, site, {}, places
            )
            before = [first[None]] if self.every_layer else []
        site_GR = jax.tree.map(lambda x: x[c.apart :].reshape(c.copies, c.repeats, *x.shape[1:]), site_L)
        groups = _scan(Group, k, c.copies, in_axes=(0, nn.broadcast))
        x_BLH, after = groups(c, k, self.every_layer, name="groups")(x_BLH, site_GR, places)
        if c.norm_place == "pre":
            x_BLH = Norm(c, k, name="norm")(x_BLH)
        if after is None:
            return x_BLH, word_VE, None
        layers = jnp.concatenate([*before, after.reshape(-1, *x_BLH.shape)])
        return x_BLH, word_VE, layers.at[-1].set(x_BLH)


def _rotations(config: ModelConfig, positions_BL: jax.Array) -> Rotation | None:
    """How each kind of layer turns each place: [K, B, L, D/2]."""
    if config.positions != "rotary":
        return None
    bases = [config.rotary_base] + [config.rotary_base_local or config.rotary_base] * (config.window > 0)
    kinds = [rotation(positions_BL, config.hidden_size // config.num_heads, base) for base in bases]
    return jax.tree.map(lambda *x: jnp.stack(x), *kinds)


def _sites(config: ModelConfig, key: jax.Array | None) -> Site:
    """Of all layers, stacked."""
    layers = config.num_layers
    # One key for each part of each layer, as data of the scan: scan, unrolled and remat draw the same dropout.
    keys_L2 = None if key is None else jax.random.split(key, (layers, len(PARTS)))
    is_local_L = jnp.arange(layers) % config.global_every != 0 if config.window else None
    return Site(keys_L2, is_local_L)


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


def _remat(layer: Any, compute: ComputeConfig, *, scanned: bool) -> Any:
    if compute.remat == "none":
        return layer
    # Inside a scan the barrier against common subexpressions is not needed and would only block fusions.
    return nn.remat(layer, policy=REMAT_POLICIES[compute.remat], prevent_cse=not scanned)
