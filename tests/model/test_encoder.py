"""`bertjax.model.encoder`: one function in every form, its dropout, and who sees whom."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import make, run
from small import one_device_mesh, random_batch, shapes_of_state, tiny, train_step_of

from bertjax.config.schema import ComputeConfig
from bertjax.model.encoder import Layer, Places, Site
from bertjax.model.network import apply, init

CHANGES = [{"scan": False}, {"remat": "full"}, {"remat": "dots", "scan": False}]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, changes) for kind in ("bert", "albert_2_groups", "attention_shared") for changes in CHANGES),
        *((kind, CHANGES[-1]) for kind in ("modernbert", "albert_modern")),
    ],
)
def test_scan_unrolled_and_remat_are_one_function(kind, changes):
    """Outputs and gradients with dropout: the same keys reach the same layers in every form."""
    config, batch, params = make(kind)

    def loss(params, compute):
        outputs = apply(config.model, compute, params, batch, jax.random.key(3))
        return jnp.mean(outputs["mlm_logits"] ** 2) + jnp.mean(outputs["pair_logits"] ** 2)

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, grads = both(params, config.compute)
    other_value, other_grads = both(params, dataclasses.replace(config.compute, **changes))
    np.testing.assert_allclose(value, other_value, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), grads, other_grads)


def test_every_layer_and_part_draws_its_own_dropout():
    """With one set of weights for all layers and no input difference, equal keys would drop equally."""
    config, batch, params = make("albert", dropout=0.5)
    runs = [run(config.model)(params, batch, jax.random.key(k))["hidden"] for k in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert", "neobert"])
def test_padding_and_neighbours_change_nothing(kind):
    """[A, padding] equals [A | B] packed at A, whatever the padding holds: exactly, not nearly."""
    config, batch, params = make(kind)
    batch = {name: array.copy() for name, array in batch.items()}
    hidden = run(config.model)
    length = config.data.seq_len // 2
    batch["segments"][:, :length], batch["segments"][:, length:] = 1, 0
    alone = hidden(params, batch)["hidden"][:, :length]
    garbage = dict(batch, tokens=np.where(batch["segments"] > 0, batch["tokens"], 7))
    np.testing.assert_array_equal(alone, hidden(params, garbage)["hidden"][:, :length])
    packed = dict(garbage, segments=np.where(batch["segments"] > 0, 1, 2))
    np.testing.assert_array_equal(alone, hidden(params, packed)["hidden"][:, :length])


def test_a_local_layer_reaches_its_window_and_not_a_step_further():
    """By gradient, in the middle and at both ends of a row of 150 with a window of 64."""
    config = tiny(model={"window": 64, "hidden_size": 16, "embedding_size": 16, "num_heads": 1})
    layer = Layer(config.model, ComputeConfig(), every_layer=False)
    x = jax.random.normal(jax.random.key(0), (1, 150, 16))
    places = Places(jnp.ones((1, 150), jnp.int32), None)
    init = functools.partial(layer.init, jax.random.key(1), x)
    params = jax.jit(init)(Site(None, jnp.array(True)), {}, places)

    def output(x, i, is_local):
        y, _ = layer.apply(params, x, Site(None, is_local), {}, places)
        # A sum over the numbers of a hidden state would be a constant after the norm.
        return y[0, i, 0]

    gradient = jax.jit(jax.grad(output))
    for i in (0, 70, 149):
        reached = np.abs(np.asarray(gradient(x, i, jnp.array(True)))[0]).max(axis=-1) > 0
        np.testing.assert_array_equal(reached, np.abs(np.arange(150) - i) <= 64)
        assert (np.abs(np.asarray(gradient(x, i, jnp.array(False)))[0]).max(axis=-1) > 0).all()


@pytest.mark.parametrize("kind", ["modernbert", "neobert", "albert_modern", "bert"])
def test_rows_of_padding_alone_are_finite(kind):
    config, batch, params = make(kind)
    empty = {name: np.zeros_like(array) for name, array in batch.items()}

    def loss(params):
        return jnp.mean(jnp.square(apply(config.model, config.compute, params, empty)["mlm_logits"]))

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("kind", ["modernbert", "albert_modern", "bert"])
def test_every_layer_is_told_and_the_last_is_the_output(kind):
    config, batch, params = make(kind)
    outputs = apply(config.model, config.compute, params, batch, every_layer=True)
    assert outputs["layers"].shape == (config.model.num_layers, *outputs["hidden"].shape)
    np.testing.assert_array_equal(outputs["layers"][-1], outputs["hidden"])
    assert len({np.asarray(layer).tobytes() for layer in outputs["layers"]}) == config.model.num_layers


def test_a_deep_model_is_no_longer_program():
    """28 layers of three kinds lower to the program of 7 of them, numbers apart: the scan has one body."""

    def lines(layers):
        config = make("modernbert", num_layers=layers)[0]
        step = train_step_of(config, one_device_mesh(config))
        state = shapes_of_state(config, one_device_mesh(config))
        return len(step.lower(state, random_batch(config)).as_text().splitlines())

    assert lines(28) == lines(7)


def test_megatron_begins_smaller_where_a_sub_block_ends():
    model = tiny(model={"initializer": "megatron", "hidden_size": 128, "embedding_size": 128, "num_layers": 8}).model
    params = nn.meta.unbox(jax.jit(functools.partial(init, model))(jax.random.key(0)))["encoder"]["groups"]
    whole = 0.1 * 0.8796  # a unit normal cut at 2 has std 0.8796
    for part, module, std in [
        ("attention", "query", whole),
        ("attention", "out", whole / 4),
        ("ffn", "up", whole),
        ("ffn", "down", whole / 4),
    ]:
        np.testing.assert_allclose(np.std(params[part][module]["kernel"]), std, rtol=0.05)
