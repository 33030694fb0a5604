"""`bertjax.train.guard`: nothing that is not finite is saved, used or shown, and the error says what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import fresh_state, tiny

from bertjax.errors import NumericError
from bertjax.parallel import sharding
from bertjax.train import guard


def spoiled(tree, path, value):
    """A copy with one element of one leaf replaced."""

    def one(name, x):
        return x.at[(0,) * x.ndim].set(value) if jax.tree_util.keystr(name, simple=True, separator="/") == path else x

    return jax.tree_util.tree_map_with_path(one, tree)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_part_of_a_state_is_looked_at(value):
    """Parameters and both moments, on any mesh: the first that is bad is named, and the step."""
    config = tiny(model={"num_layers": 2}, mesh={"fsdp": 4})
    state = fresh_state(config, sharding.make_mesh(config.mesh))
    guard.check_state(7, state)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(n, simple=True, separator="/") for n, x in leaves if x.dtype == jnp.float32]
    moments = [name for name in names if name.startswith("opt_state")]
    assert len(moments) * 3 == len(names) * 2
    for name in (names[0], moments[0], moments[-1]):
        with pytest.raises(NumericError, match=f"step 7: {name} is no longer finite") as error:
            guard.check_state(7, spoiled(state, name, value))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_arrays_of_the_host_and_of_a_device_of_any_type(kind):
    good = {"count": kind(np.int32(3)), "half": kind(jnp.full(3, 1e38, jnp.bfloat16)), "w": kind(np.ones((2, 3)))}
    guard.check_restored("runs/x/9", good)
    for name in ("half", "w"):
        bad = good | {name: kind(good[name] * np.inf)}
        with pytest.raises(NumericError, match=f"runs/x/9: {name} is not finite"):
            guard.check_restored("runs/x/9", bad)


def test_values_are_numbers_or_are_not_there():
    guard.check_values("step 3", {"loss": 2.5, "mfu": None})
    with pytest.raises(NumericError, match="step 3: mlm_loss nan, grad_norm inf: no longer a number"):
        guard.check_values("step 3", {"loss": 2.5, "mfu": None, "mlm_loss": np.nan, "grad_norm": np.inf})
