"""The encoder of the BERT family and its pretraining heads: one model, many numbers.

Shape letters: B rows, L positions of a row, H hidden size, E embedding size, N heads, D head dimension, F FFN size,
V vocabulary, P prediction slots, K examples of a row, S the three projections (query, key, value).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax import batch as batch_contract
from bertjax.model.attention import attend
from bertjax.config.schema import DataConfig, ModelConfig
from bertjax.model.ops import dropout
from bertjax.parallel.sharding import constrain, tree_shardings


def _from_input(activation: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The same function, whose backward pass needs the input alone.

    Autodiff keeps every intermediate value of a GELU, six arrays of [B, L, F] a layer: on CPU, writing and reading them
    was a tenth of a BERT-base step.
    """
    function = jax.custom_vjp(activation)
    function.defvjp(lambda x: (activation(x), x), lambda x, g: jax.vjp(activation, x)[1](g))
    return function


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": _from_input(lambda x: nn.gelu(x, approximate=True)),
    "gelu_erf": _from_input(lambda x: nn.gelu(x, approximate=False)),
    "relu": nn.relu,
}

REMAT_POLICIES: dict[str, Any] = {
    "dots": jax.checkpoint_policies.checkpoint_dots,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def weights(config: ModelConfig, *names: str) -> Any:
    """BERT's initialiser (truncated normal, not rescaled) for a parameter with these logical axes."""
    # Cut at two standard deviations, as in TensorFlow; the std of what is left is 0.88 of the number given.
    return nn.with_logical_partitioning(jax.nn.initializers.truncated_normal(config.initializer_range), names)


def zeros(*names: str) -> Any:
    """Zeros for a parameter with these logical axes."""
    return nn.with_logical_partitioning(jax.nn.initializers.zeros, names)


class Affine(nn.Module):
    """The parameters of a linear map in the compute dtype: a kernel, and a bias for its last `bias_ndim` axes."""

    config: ModelConfig
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    bias_ndim: int = 1

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", weights(self.config, *self.axes), self.shape)
        bias = self.param("bias", zeros(*self.axes[-self.bias_ndim :]), self.shape[-self.bias_ndim :])
        return kernel.astype(self.config.dtype), bias.astype(self.config.dtype)


def linear(equation: str, x: jax.Array, affine: tuple[jax.Array, jax.Array]) -> jax.Array:
    """`einsum(equation, x, kernel) + bias`; the equation says which axes are contracted and made."""
    kernel, bias = affine
    y = jnp.einsum(equation, x.astype(kernel.dtype), kernel)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics; the epsilon of 1e-12 would vanish in half precision."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones: Any = nn.with_logical_partitioning(jax.nn.initializers.ones, ("hidden_out",))
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros("hidden_out"), (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.config.layer_norm_eps)
        broadcast = (1,) * (x.ndim - 1) + scale.shape
        return (y * scale.reshape(broadcast) + bias.reshape(broadcast)).astype(self.config.dtype)


class Embeddings(nn.Module):
    """Sum of the word, position and (if any) token type tables -> LayerNorm -> dropout -> E to H if they differ."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens_BL: jax.Array, positions_BL: jax.Array, token_types_BL: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns hidden states [B, L, H] and the word table [V, E], which the MLM head ties to."""
        c = self.config
        word_VE = self.param("word", weights(c, "vocab", "hidden"), (c.vocab_size, c.embedding_size))
        position_ME = self.param("position", weights(c, "table", "hidden"), (c.max_positions, c.embedding_size))
        x_BLE = word_VE[tokens_BL] + position_ME[positions_BL]
        if c.token_types:
            type_TE = self.param("token_type", weights(c, "table", "hidden"), (c.token_types, c.embedding_size))
            # A product instead of a look-up: its gradient is a matrix product, not a scatter into two rows.
            x_BLE += jax.nn.one_hot(token_types_BL, c.token_types) @ type_TE
        x_BLE = dropout(LayerNorm(c, name="norm")(x_BLE), c.dropout, key)
        if c.embedding_size != c.hidden_size:
            to_hidden = Affine(c, (c.embedding_size, c.hidden_size), ("hidden", "hidden_out"), name="to_hidden")
            return linear("BLE,EH->BLH", x_BLE, to_hidden()), word_VE
        return x_BLE, word_VE


class Attention(nn.Module):
    """Self-attention sub-block, post-LN: LayerNorm(x + dropout(attention(x)))."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BLH: jax.Array, segments_BL: jax.Array, key: jax.Array | None) -> jax.Array:
        c = self.config
        N, D = c.num_heads, c.hidden_size // c.num_heads
        prob_key, out_key = (None, None) if key is None else jax.random.split(key)

        shape, axes = (c.hidden_size, N, D), ("hidden", "heads", "head_dim")
        projections = [Affine(c, shape, axes, bias_ndim=2, name=name)() for name in ("query", "key", "value")]
        # One product instead of three: 1.4 times faster on CPU. Stacked, so that heads stay split.
        kernel_HSND = jnp.stack([kernel for kernel, _ in projections], axis=1)
        bias_SND = jnp.stack([bias for _, bias in projections])
        qkv_BLSND = linear("BLH,HSND->BLSND", x_BLH, (kernel_HSND, bias_SND))
        q_BLND, k_BLND, v_BLND = (qkv_BLSND[:, :, i] for i in range(3))
        context_BLND = attend(
            q_BLND,
            k_BLND,
            v_BLND,
            segments_BL,
            dropout_rate=c.attention_dropout,
            key=prob_key,
            backend=c.attention,
        )
        out = Affine(c, (N, D, c.hidden_size), ("heads", "head_dim", "hidden"), name="out")
        y_BLH = linear("BLND,NDH->BLH", context_BLND, out())
        if c.attention_output_dropout:
            y_BLH = dropout(y_BLH, c.dropout, out_key)
        return LayerNorm(c, name="norm")(x_BLH + y_BLH)


class FeedForward(nn.Module):
    """Feed-forward sub-block, post-LN: LayerNorm(x + dropout(W2 act(W1 x)))."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BLH: jax.Array, segments_BL: jax.Array, key: jax.Array | None) -> jax.Array:
        del segments_BL  # every position by itself
        c = self.config
        up = Affine(c, (c.hidden_size, c.ffn_size), ("hidden", "ffn"), name="up")
        down = Affine(c, (c.ffn_size, c.hidden_size), ("ffn", "hidden"), name="down")
        y_BLF = ACTIVATIONS[c.activation](linear("BLH,HF->BLF", x_BLH, up()))
        y_BLH = dropout(linear("BLF,FH->BLH", y_BLF, down()), c.dropout, key)
        return LayerNorm(c, name="norm")(x_BLH + y_BLH)


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
    every_layer: bool  # whether the scan stacks the hidden states

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, keys_2: jax.Array | None, shared: dict[str, Any], segments_BL: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        for i, (name, part) in enumerate(PARTS.items()):
            key = None if keys_2 is None else keys_2[i]
            if name in shared:
                block: Any = part(self.config, parent=None)
                x_BLH = block.apply({"params": shared[name]}, x_BLH, segments_BL, key)
            else:
                x_BLH = part(self.config, name=name)(x_BLH, segments_BL, key)
            x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        return x_BLH, x_BLH if self.every_layer else None


class Group(nn.Module):
    """Consecutive layers with one copy of the shared parts, as the body of a scan over the groups."""

    config: ModelConfig
    every_layer: bool

    @nn.compact
    def __call__(
        self, x_BLH: jax.Array, keys_R2: jax.Array | None, segments_BL: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        c = self.config

        def declare(name: str) -> Any:
            # Declared here and applied as a function inside the scan: a module created here cannot be called there.
            block = PARTS[name](c, parent=None)
            return self.param(name, lambda key: block.init(key, x_BLH, segments_BL, None)["params"])

        shared = {name: declare(name) for name in SHARED[c.share]}
        repeats = c.num_layers // c.copies
        layers = _scan(_remat(Layer, c), c, repeats, in_axes=(0, nn.broadcast, nn.broadcast))
        return layers(c, self.every_layer, name="layers")(x_BLH, keys_R2, shared, segments_BL)


class Encoder(nn.Module):
    """Embeddings and `num_layers` layers.

    The outer scan stacks the groups on the first axis of every parameter; the inner one repeats the shared parts of a
    group and stacks the others on a second axis. BERT is the case of one layer a group.
    """

    config: ModelConfig
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
        c = self.config
        embed_key, layers_key = (None, None) if key is None else jax.random.split(key)
        x_BLH, word_VE = Embeddings(c, name="embeddings")(tokens_BL, positions_BL, token_types_BL, embed_key)
        x_BLH = constrain(x_BLH, "rows", "length", "hidden_activation")
        repeats = c.num_layers // c.copies
        # One key for each part of each layer, as data of the scan: scan, unrolled and remat draw the same dropout.
        keys_GR2 = None if layers_key is None else jax.random.split(layers_key, (c.copies, repeats, len(PARTS)))
        groups = _scan(Group, c, c.copies, in_axes=(0, nn.broadcast))
        x_BLH, layers = groups(c, self.every_layer, name="groups")(x_BLH, keys_GR2, segments_BL)
        return x_BLH, word_VE, None if layers is None else layers.reshape(c.num_layers, *x_BLH.shape)


class MlmHead(nn.Module):
    """Vocabulary logits of the predicted slots only: dense -> activation -> LayerNorm -> tied decoder + bias."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BPH: jax.Array, word_VE: jax.Array) -> jax.Array:
        c = self.config
        dense = Affine(c, (c.hidden_size, c.embedding_size), ("hidden", "hidden_out"), name="dense")
        y_BPE = LayerNorm(c, name="norm")(ACTIVATIONS[c.activation](linear("BPH,HE->BPE", x_BPH, dense())))
        bias_V = self.param("bias", zeros("vocab"), (c.vocab_size,), jnp.float32)
        return decode(y_BPE, word_VE.astype(c.dtype), bias_V)


@jax.custom_vjp
def decode(y_BPE: jax.Array, word_VE: jax.Array, bias_V: jax.Array) -> jax.Array:
    """Float32 logits [B, P, V] of the tied decoder.

    Its backward pass is written out for the largest arrays of a small model: the gradient of the table is formed as
    [E, V], so that `y` is transposed and not the gradient of the logits, and that of the bias is a matrix product too.
    """
    return jnp.einsum("BPE,VE->BPV", y_BPE, word_VE, preferred_element_type=jnp.float32) + bias_V[None, None, :]


def _decode_backward(kept: tuple[jax.Array, jax.Array], g_BPV: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    y_BPE, word_VE = kept
    g_BPV = g_BPV.astype(word_VE.dtype)
    # A column of ones makes the bias a row of the table.
    ones_BPE = jnp.concatenate([y_BPE, jnp.ones((*y_BPE.shape[:2], 1), y_BPE.dtype)], axis=-1)
    table_EV = jnp.einsum("BPE,BPV->EV", ones_BPE, g_BPV, preferred_element_type=jnp.float32)
    return jnp.einsum("BPV,VE->BPE", g_BPV, word_VE), table_EV[:-1].T.astype(word_VE.dtype), table_EV[-1]


decode.defvjp(lambda y_BPE, word_VE, bias_V: (decode(y_BPE, word_VE, bias_V), (y_BPE, word_VE)), _decode_backward)


class PairHead(nn.Module):
    """Two logits of the pooled [CLS] of each example, for NSP and SOP alike; no dropout."""

    config: ModelConfig

    @nn.compact
    def __call__(self, pooled_BKH: jax.Array) -> jax.Array:
        dense = Affine(self.config, (self.config.hidden_size, 2), ("hidden", "pair"), name="dense")
        kernel_HC, bias_C = dense()
        logits_BKC = jnp.einsum("BKH,HC->BKC", pooled_BKH, kernel_HC, preferred_element_type=jnp.float32)
        return logits_BKC + bias_C.astype(jnp.float32)[None, None, :]


class Pretrainer(nn.Module):
    """The encoder with its pooler and pretraining heads, reading a batch (`bertjax.batch`)."""

    config: ModelConfig
    every_layer: bool = False

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns `hidden` [B, L, H], `mlm_logits` [B, P, V] and, where the model has them, `pooled` [B, K, H] and
        `pair_logits` [B, K, 2]; if `every_layer`, `layers` [layers, B, L, H]. Logits are float32. What a caller does
        not use, jit removes. `key` None = no dropout.
        """
        c = self.config
        x_BLH, word_VE, layers = Encoder(c, self.every_layer, name="encoder")(
            batch["tokens"], batch["segments"], batch["positions"], batch["token_types"], key
        )
        outputs = {"hidden": x_BLH} | ({} if layers is None else {"layers": layers})
        outputs["mlm_logits"] = MlmHead(c, name="mlm_head")(gather(x_BLH, batch["mlm_positions"]), word_VE)
        if c.pooler:
            pooler = Affine(c, (c.hidden_size, c.hidden_size), ("hidden", "hidden_out"), name="pooler")
            outputs["pooled"] = jnp.tanh(linear("BKH,HG->BKG", gather(x_BLH, batch["pair_positions"]), pooler()))
        if c.pair_head:
            outputs["pair_logits"] = PairHead(c, name="pair_head")(outputs["pooled"])
        return outputs


def apply(
    config: ModelConfig, params: Any, batch: Any, key: jax.Array | None = None, *, every_layer: bool = False
) -> dict[str, jax.Array]:
    """The outputs of `Pretrainer` with these parameters."""
    outputs: Any = Pretrainer(config, every_layer).apply({"params": params}, batch, key)
    return outputs


def mlm_logits(config: ModelConfig, params: Any, x_BPH: jax.Array) -> jax.Array:
    """Vocabulary logits [B, P, V] of hidden states, by the MLM head of these parameters."""
    word_VE = params["encoder"]["embeddings"]["word"]
    logits: Any = MlmHead(config).apply({"params": params["mlm_head"]}, x_BPH, word_VE)
    return logits


def abstract_params(config: ModelConfig, mesh: Any = None) -> Any:
    """Shape and dtype of every parameter of `Pretrainer`, and its sharding on a mesh; nothing is allocated."""
    shapes = nn.meta.unbox(_boxed_params(config))
    if mesh is None:
        return shapes
    places = param_shardings(config, mesh)
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)


def param_shardings(config: ModelConfig, mesh: Any) -> Any:
    """Where every parameter of `Pretrainer` lives on a mesh."""
    return tree_shardings(_boxed_params(config), mesh)


@functools.cache
def _boxed_params(config: ModelConfig) -> Any:
    config = dataclasses.replace(config, attention="reference")  # which can be traced for any device
    fields = batch_contract.spec(DataConfig(), rows=1, length=1)
    example = {name: jax.ShapeDtypeStruct(field.shape, field.dtype) for name, field in fields.items()}
    return jax.eval_shape(Pretrainer(config).init, jax.random.key(0), example)["params"]


def gather(x_BLH: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """The states at `positions_BP` of each row: [B, P, H]."""
    return jnp.take_along_axis(x_BLH, positions_BP[:, :, None], axis=1, mode="clip")


def _scan(body: Any, config: ModelConfig, length: int, *, in_axes: tuple[Any, ...]) -> Any:
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=length,
        unroll=1 if config.scan else length,
        metadata_params={nn.PARTITION_NAME: "stack"},
    )


def _remat(layer: Any, config: ModelConfig) -> Any:
    if config.remat == "none":
        return layer
    # Inside a scan the barrier against common subexpressions is not needed and would only block fusions.
    return nn.remat(layer, policy=REMAT_POLICIES[config.remat], prevent_cse=not config.scan)
