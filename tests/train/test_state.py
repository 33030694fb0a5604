"""`bertjax.train.state`: what is promised without memory is what is made."""

import jax
import numpy as np
from small import fresh_state, one_device_mesh, shapes_of_state, tiny


def test_the_abstract_state_is_that_of_the_real_one():
    config = tiny(optim={"name": "lamb"})
    mesh = one_device_mesh(config)
    real, promised = fresh_state(config, mesh), shapes_of_state(config, mesh)
    jax.tree.map(lambda x, p: np.testing.assert_equal((x.shape, x.dtype), (p.shape, p.dtype)), real, promised)
    assert jax.tree.structure(real) == jax.tree.structure(promised)


def test_a_seed_gives_the_same_state():
    config = tiny()
    one, same = (fresh_state(config, one_device_mesh(config)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    other = fresh_state(tiny(run={"seed": 1}), one_device_mesh(config))
    word = ("encoder", "embeddings", "word")
    assert not np.array_equal(*(s.params[word[0]][word[1]][word[2]] for s in (one, other)))
