"""`bertjax.model.heads`: one table that the config, the network and the parameters agree with."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from models import make, run
from oracle import biased, gelu, norm
from small import one_device_mesh, tiny

from bertjax.config.limits import limits
from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.finetuning.terms import TERMS
from bertjax.model.encoder import Encoder
from bertjax.model.heads import HEADS
from bertjax.model.network import abstract_params, apply, init, param_shardings
from bertjax.train import objective

LABELLED = {"num_layers": 1, "heads": ("pooler", "classifier", "tagger", "span_head"), "labels": ("a", "b", "c")}
POOLED = {
    "tanh": {},
    "relu": {"pooler_activation": "relu"},
    "mean": {"pooling": "mean", "biases": "none"},
    "modern": {
        "pooling": "mean",
        "pooler_activation": "gelu_erf",
        "pooler_norm": True,
        "token_transform": True,
        "biases": "decoder",
        "norm": "layer_no_bias",
    },
}
"""What stands before a classifier, and who has a bias."""


def test_the_table_names_what_a_config_may():
    assert tuple(HEADS) == limits(ModelConfig())["heads"].choices


def test_a_head_stands_below_what_it_reads():
    given = {"hidden"}
    for head in HEADS.values():
        assert head.of in given and head.gives not in given
        given.add(head.gives)


def test_heads_read_the_positions_that_the_batch_names():
    """Masked words at other places are other logits; pairs do not care, and the other way round."""
    config, batch, params = make("bert")
    outputs = jax.device_get(run(config.model)(params, batch))
    for at, moved, same in (("mlm_positions", "mlm_logits", "pooled"), ("pair_positions", "pooled", "mlm_logits")):
        other = jax.device_get(run(config.model)(params, batch | {at: batch[at] + 1}))
        assert not np.array_equal(outputs[moved], other[moved])
        np.testing.assert_array_equal(outputs[same], other[same])


# Heads for labels ---------------------------------------------------------------------------------------------------


@functools.cache
def labelled(kind, **changes):
    """A model with every head for labels, and random parameters."""
    model = replace(tiny().model, **LABELLED | POOLED[kind] | changes)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32)  # noqa: E731
    return model, jax.tree.map(draw, abstract_params(model))


@functools.cache
def network(model, dtype="float32"):
    return jax.jit(functools.partial(apply, model, ComputeConfig(dtype=dtype)))


def packed():
    """A row of three examples of 5, 9 and 12 tokens, with padding and a slot of none; and a row for each of them."""
    rng, lengths = np.random.default_rng(1), (5, 9, 12)
    rows = {name: np.zeros((1, 32), np.int32) for name in ("tokens", "segments", "positions", "token_types")}
    rows["pair_positions"] = np.zeros((1, 4), np.int32)
    alone = {name: np.zeros((3, 32), np.int32) for name in rows} | {"pair_positions": np.zeros((3, 1), np.int32)}
    start = 0
    for i, length in enumerate(lengths):
        values = {"tokens": rng.integers(5, 400, length), "positions": np.arange(length)}
        for name, x in (values | {"token_types": np.arange(length) % 2}).items():
            rows[name][0, start : start + length] = alone[name][i, :length] = x
        rows["segments"][0, start : start + length], alone["segments"][i, :length] = i + 1, 1
        rows["pair_positions"][0, i] = start
        start += length
    rows["tokens"][0, start:] = alone["tokens"][alone["segments"] == 0] = 7  # what padding holds does not matter
    return rows, alone, lengths


@pytest.mark.parametrize("kind", POOLED)
def test_examples_packed_in_a_row_give_what_they_give_alone(kind):
    model, params = labelled(kind)
    rows, alone, lengths = packed()
    together, apart = network(model)(params, rows), network(model)(params, alone)
    assert together["class_logits"].shape == (1, 4, 3) and together["span_logits"].shape == (1, 32, 2)
    np.testing.assert_allclose(together["class_logits"][0, :3], apart["class_logits"][:, 0], atol=2e-6)
    assert np.isfinite(together["class_logits"]).all()
    starts = rows["pair_positions"][0]
    for name in ("tag_logits", "span_logits"):
        for i, length in enumerate(lengths):
            mine = together[name][0, starts[i] : starts[i] + length]
            np.testing.assert_allclose(mine, apart[name][i, :length], atol=2e-6)
    # And not because all are alike.
    assert np.abs(np.diff(apart["class_logits"][:, 0], axis=0)).max() > 0.1


@pytest.mark.parametrize("kind", POOLED)
def test_heads_equal_numpy(kind):
    """From the hidden states on, with plain loops in float64."""
    model, params = labelled(kind)
    rows, _, _ = packed()
    outputs = jax.device_get(network(model)(params, rows))
    p, x = jax.tree.map(lambda x: np.asarray(x, np.float64), params), outputs["hidden"][0].astype(np.float64)

    def transformed(y, head):
        y = biased(y @ head["kernel"], head)
        y = np.tanh(y) if model.pooler_activation == "tanh" else gelu(y, model.pooler_activation)
        return norm(y, head["norm"], model) if model.pooler_norm else y

    for i in range(3):
        mine = x[rows["segments"][0] == i + 1]
        pooled = transformed(mine.mean(0) if model.pooling == "mean" else mine[0], p["pooler"])
        np.testing.assert_allclose(outputs["pooled"][0, i], pooled, atol=1e-5)
        logits = biased(pooled @ p["classifier"]["dense"]["kernel"], p["classifier"]["dense"])
        np.testing.assert_allclose(outputs["class_logits"][0, i], logits, atol=1e-5)
    for head, name in (("tagger", "tag_logits"), ("span_head", "span_logits")):
        y = transformed(x, p[head]["transform"]) if model.token_transform else x
        logits = biased(y @ p[head]["dense"]["kernel"], p[head]["dense"])
        np.testing.assert_allclose(outputs[name][0], logits, atol=1e-5)
    assert ("bias" in p["classifier"]["dense"]) == (model.biases != "none")
    assert ("bias" in p["pooler"]) == (model.biases == "all")


def test_dropout_of_a_head_is_its_own():
    """By its rate alone, the same for a key, and with the mean of none."""
    model, params = labelled("tanh", dropout=0.0, attention_dropout=0.0, classifier_dropout=0.5)
    rows, _, _ = packed()
    plain = network(model)(params, rows)
    keys = jax.random.split(jax.random.key(2), 400)
    many = jax.jit(jax.vmap(functools.partial(apply, model, ComputeConfig(), params, rows)))(keys)
    again = jax.jit(jax.vmap(functools.partial(apply, model, ComputeConfig(), params, rows)))(keys[:2])
    for name in ("hidden", "pooled"):
        np.testing.assert_allclose(many[name][0], plain[name], atol=1e-6)
    for name in ("class_logits", "tag_logits", "span_logits"):
        assert np.abs(many[name][0] - plain[name]).max() > 0.05
        np.testing.assert_allclose(many[name][:2], again[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(many[name].mean(0), plain[name], atol=0.35)


def test_two_heads_of_the_same_weights_drop_different_values():
    model, params = labelled("tanh", dropout=0.0, attention_dropout=0.0, classifier_dropout=0.5, labels=("a", "b"))
    params = params | {"span_head": params["tagger"]}
    rows, _, _ = packed()
    plain, dropped = network(model)(params, rows), network(model)(params, rows, jax.random.key(1))
    np.testing.assert_array_equal(plain["tag_logits"], plain["span_logits"])
    assert np.abs(dropped["tag_logits"] - dropped["span_logits"]).max() > 0.1


def test_the_encoder_drops_the_same_whatever_stands_on_it():
    """Its keys are not those of a head, and it is given the key of the network as it is."""
    model, params = labelled("tanh")
    rows, _, _ = packed()
    of_rows = [rows[name] for name in ("tokens", "segments", "positions", "token_types")]
    encoder = Encoder(model, ComputeConfig())
    hidden, _, _ = jax.jit(encoder.apply)({"params": params["encoder"]}, *of_rows, jax.random.key(1))
    outputs = network(model)(params, rows, jax.random.key(1))
    np.testing.assert_allclose(outputs["hidden"], hidden, atol=1e-6)


@pytest.mark.parametrize(("labels", "classes"), [((), 1), (("score",), 1), (("a", "b"), 2)])
def test_there_is_a_logit_for_each_label_or_one(labels, classes):
    model = replace(tiny().model, **LABELLED | {"labels": labels})
    params = jax.eval_shape(functools.partial(init, model), jax.random.key(0))  # by a batch of pretraining
    assert params["classifier"]["dense"]["kernel"].value.shape == (32, classes)
    assert params["classifier"]["dense"]["kernel"].names == ("hidden", "labels")
    assert params["span_head"]["dense"]["bias"].value.shape == (2,)
    assert param_shardings(model, one_device_mesh(tiny()))["tagger"]["dense"]["kernel"].spec == P("fsdp", None)


def test_logits_are_float32_in_half_precision():
    model, params = labelled("modern")
    rows, _, _ = packed()
    exact, half = (network(model, dtype)(params, rows) for dtype in ("float32", "bfloat16"))
    for name in ("class_logits", "tag_logits", "span_logits"):
        assert half[name].dtype == jnp.float32
        np.testing.assert_allclose(half[name], exact[name], atol=0.5)


@pytest.mark.parametrize("kind", ["tanh", "modern"])
def test_a_gradient_reaches_every_parameter_of_the_heads(kind):
    model, params = labelled(kind)
    batch, _, _ = packed()
    rng = np.random.default_rng(0)
    labels = {
        "classify": (rng.integers(0, 3, (1, 4)), np.array([[1.0, 1.0, 1.0, 0.0]], np.float32)),
        "tag": (rng.integers(0, 3, (1, 32)), (batch["segments"] > 0).astype(np.float32)),
        "span": (np.array([[[1, 3], [6, 6], [14, 20], [0, 0]]]), np.array([[1.0, 1.0, 1.0, 0.0]], np.float32)),
    }

    def loss(params):
        outputs, total = apply(model, ComputeConfig(), params, batch), 0.0
        for kind, (y, weights) in labels.items():
            terms, given = {kind: (1.0, TERMS[kind])}, batch | {"labels": y, "label_weights": weights}
            sums = objective.weighted_sums(terms, outputs, given)
            total += objective.total_loss(terms, objective.normalise(sums, objective.total_weights(terms, given)))
        return total

    for path, g in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(g).all(), path
        if path[0].key != "encoder":
            assert np.abs(g).max() > 0, path
