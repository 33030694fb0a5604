"""`bertjax.model.network` against an independent NumPy model, and against itself in its other forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import KINDS, make, run
from oracle import pretrain_outputs
from small import one_device_mesh, random_batch, shapes_of_state, tiny, train_step_of

from bertjax.model.network import Network, abstract_params, apply, init
from bertjax.tasks.terms import terms
from bertjax.train import objective


@pytest.mark.parametrize("kind", KINDS)
def test_equals_numpy_model(kind):
    config, batch, params = make(kind)
    outputs = run(config.model)(params, batch)
    params64 = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for row in range(config.data.batch_size):
        expected = pretrain_outputs(params64, config.model, batch, row)
        length, used = len(expected["hidden"]), len(expected["mlm_logits"])
        np.testing.assert_allclose(outputs["hidden"][row, :length], expected["hidden"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(outputs["mlm_logits"][row, :used], expected["mlm_logits"], atol=3e-5, rtol=0)
        if "pair_head" in config.model.heads:
            np.testing.assert_allclose(outputs["pair_logits"][row, 0], expected["pair_logits"], atol=1e-5, rtol=0)
    assert ("pair_logits" in outputs) == ("pair_head" in config.model.heads)


def test_bfloat16_computes_in_bfloat16_and_stays_near():
    config, batch, params = make("bert")
    outputs = [run(config.model, dtype=dtype)(params, batch) for dtype in ("float32", "bfloat16")]
    assert outputs[1]["hidden"].dtype == jnp.bfloat16
    assert outputs[1]["mlm_logits"].dtype == jnp.float32
    np.testing.assert_allclose(outputs[0]["hidden"], outputs[1]["hidden"].astype(np.float32), atol=0.15)


def test_initialisation_is_a_truncated_normal():
    config = tiny(model={"vocab_size": 5000, "initializer_range": 0.02})
    params = nn.meta.unbox(init(config.model, jax.random.key(0)))
    word = np.asarray(params["encoder"]["embeddings"]["word"])
    assert np.abs(word).max() <= 0.04
    np.testing.assert_allclose(word.std(), 0.02 * 0.8796, rtol=0.01)  # a unit normal cut at 2 has std 0.8796
    kernel = np.asarray(params["encoder"]["groups"]["ffn"]["up"]["kernel"])
    assert not np.array_equal(kernel[0], kernel[1])


def test_shared_memory_does_not_grow_with_depth():
    """Compiled arguments of an ALBERT update (parameters and optimizer state) at 2 and 8 layers; BERT's do grow."""

    def argument_bytes(share, layers):
        config = tiny(model={"share": share, "num_layers": layers})
        mesh = one_device_mesh(config)
        step, state = train_step_of(config, mesh), shapes_of_state(config, mesh)
        return step.lower(state, random_batch(config)).compile().memory_analysis().argument_size_in_bytes

    assert argument_bytes("all", 2) == argument_bytes("all", 8)
    assert argument_bytes("none", 2) < argument_bytes("none", 8)


def test_gradient_reaches_every_parameter():
    for kind in KINDS:
        config, batch, params = make(kind)

        def loss(params, config=config, batch=batch):
            learnt = terms(config.objective)
            outputs = apply(config.model, config.compute, params, batch)
            sums = objective.weighted_sums(learnt, outputs, batch)
            return objective.total_loss(learnt, objective.normalise(sums, objective.total_weights(learnt, batch)))

        grads = jax.jit(jax.grad(loss))(params)
        for path, g in jax.tree_util.tree_leaves_with_path(grads):
            assert np.isfinite(g).all()
            # A bias of the keys moves all scores of a query equally: softmax does not see it.
            if "key" not in str(path):
                assert np.abs(g).max() > 0, path


def test_only_the_heads_that_are_asked_for_are_built():
    """A classifier builds no MLM head: neither its parameters nor, without the table of words, its logits."""
    config = tiny(model={"heads": ("pooler", "mlm_head")}, objective={"pair": 0.0})
    batch = random_batch(config)
    network = Network(config.model, config.compute, ("pooler",))
    params = jax.eval_shape(network.init, jax.random.key(0), batch)["params"]
    assert set(params) == {"encoder", "pooler"}
    outputs = jax.eval_shape(network.apply, {"params": params}, batch)
    assert set(outputs) == {"hidden", "pooled"}
    assert set(abstract_params(config.model)) == {"encoder", "pooler", "mlm_head"}
