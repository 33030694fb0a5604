"""`bertjax.train.state`: what is promised without memory is what is made."""

import jax
import numpy as np
from small import fresh_state, one_device_mesh, shapes_of_state, tiny

from bertjax.parallel import sharding


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


def test_the_average_of_the_parameters_lives_where_they_do():
    config = tiny(optim={"ema": 0.9}, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    promised = shapes_of_state(config, sharding.make_mesh(config.mesh))
    assert promised.trained is not promised.params
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.sharding, b.sharding), promised.trained, promised.params)
    plain = shapes_of_state(tiny(), one_device_mesh(tiny()))
    assert plain.trained is plain.params
