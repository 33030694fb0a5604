"""`bertjax.model.beside`: where the heads of a new model look."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from oracle import norm, softmax
from small import tiny

from bertjax.model.beside import rotations, waves
from bertjax.model.network import init

SIZES = {"hidden_size": 128, "embedding_size": 128, "num_heads": 4, "max_positions": 64, "vocab_size": 500}


@functools.cache
def fresh(initializer, **numbers):
    model = tiny(model=SIZES | {"initializer": initializer, "initializer_range": 0.02} | numbers).model
    params = nn.meta.unbox(jax.jit(functools.partial(init, model))(jax.random.key(0)))["encoder"]
    return model, jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def looked_at(initializer, **numbers):
    """Of the first layer and each head: the mean probability [N, distance from -3 to 3] of random words."""
    model, params = fresh(initializer, **numbers)
    tokens = np.random.default_rng(0).integers(5, 500, 64)
    tables = params["embeddings"]
    x = norm(tables["word"][tokens] + tables["position"] + tables["token_type"][0], tables["norm"], model)
    if "to_hidden" in tables:
        x = x @ tables["to_hidden"]["kernel"]
    maps = (params["groups"]["attention"][name]["kernel"][0] for name in ("query", "key"))
    q, k = (np.einsum("lh,hnd->nld", x, kernel.reshape(len(kernel), -1, 32)) for kernel in maps)
    probs = softmax(q @ k.swapaxes(1, 2) / np.sqrt(32))
    return np.array([[np.diagonal(p, d).mean() for d in range(-3, 4)] for p in probs])


@pytest.mark.parametrize("numbers", [{}, {"share": "all"}, {"share": "all", "embedding_size": 64}])
def test_a_head_begins_at_a_word_beside(numbers):
    shares = looked_at("beside", **numbers)
    for head, distance in enumerate([-1, 1, -2, 2]):
        assert shares[head].argmax() == distance + 3 and shares[head].max() > 0.15, shares[head]
    assert looked_at("constant").max() < 0.05


def test_a_rotation_takes_a_row_to_the_one_beside():
    table = np.asarray(waves(64, 128), np.float64)
    for turn, distance in zip(np.asarray(rotations(4, 128), np.float64), [-1, 1, -2, 2], strict=True):
        inner = table[8:56]
        np.testing.assert_allclose(inner @ turn, table[8 + distance : 56 + distance], atol=1e-5)
    # Near places are all but orthogonal, so a head sees one of them and not the next.
    products = table @ table.T / (table[0] @ table[0])
    assert np.abs(products - np.eye(64)).max() < 0.03


def test_words_and_places_begin_with_one_size():
    _, params = fresh("beside")
    tables = params["embeddings"]
    sizes = [np.std(tables[name]) for name in ("word", "position", "token_type")]
    np.testing.assert_allclose(sizes, 0.88 * 128**-0.5, rtol=0.1)
    rest = params["groups"]["ffn"]["up"]["kernel"]
    np.testing.assert_allclose(np.std(rest), 0.88 * 0.02, rtol=0.02)
