"""`bertjax.model.encoder`: one function in every form, its dropout, and who sees whom."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import make, run

from bertjax.model.network import apply


@pytest.mark.parametrize("kind", ["bert", "albert_2_groups", "attention_shared"])
@pytest.mark.parametrize("changes", [{"scan": False}, {"remat": "full"}, {"remat": "dots", "scan": False}])
def test_scan_unrolled_and_remat_are_one_function(kind, changes):
    """Outputs and gradients with dropout: the same keys reach the same layers in every form."""
    config, batch, params = make(kind)

    def loss(params, compute):
        outputs = apply(config.model, compute, params, batch, jax.random.key(3))
        return jnp.mean(outputs["mlm_logits"] ** 2) + jnp.mean(outputs["pair_logits"] ** 2)

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, grads = both(params, config.compute)
    other_value, other_grads = both(params, dataclasses.replace(config.compute, **changes))
    np.testing.assert_allclose(value, other_value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), grads, other_grads)


def test_every_layer_and_part_draws_its_own_dropout():
    """With one set of weights for all layers and no input difference, equal keys would drop equally."""
    config, batch, params = make("albert", dropout=0.5)
    runs = [run(config.model)(params, batch, jax.random.key(k))["hidden"] for k in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


@pytest.mark.parametrize("kind", ["bert", "albert"])
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
