"""`bertjax.bench.own_step`: a step is what a run does, and what is told of it agrees with counts made otherwise."""

import jax
import pytest
from small import tiny

from bertjax.bench import own_step
from bertjax.config.recipe import override

WIDE = {
    "model": {"hidden_size": 512, "embedding_size": 512, "num_heads": 8, "ffn_size": 2048, "vocab_size": 8_000},
    "data": {"seq_len": 32, "max_predictions": 5, "batch_size": 2},
}


def test_flops_are_those_of_xla():
    """Its count has the elementwise work as well, which is little at a real width; and no loops are counted once."""
    from bertjax.tasks.pretraining import pretraining

    config = tiny(**WIDE)
    formula = pretraining(config, batches=lambda row: iter(())).flops_per_token
    rows = override(config, data={"batch_size": 64})
    assert own_step.flops_by_xla(rows) == pytest.approx(formula, rel=0.05)
    same = override(rows, compute={"scan": False, "remat": "full"}, optim={"accumulate": 2}, mesh={"data": 8})
    assert own_step.flops_by_xla(same) == pytest.approx(formula, rel=0.05)


def test_whatever_compiles_is_noticed():
    compiled = own_step._compilations()
    double = jax.jit(lambda x: x * 2.0 + 1.0)
    double(jax.numpy.ones(7))
    count = len(compiled)
    double(jax.numpy.ones(7))
    assert len(compiled) == count > 0
    double(jax.numpy.ones(9))
    assert len(compiled) > count


def test_versions_are_of_what_is_installed():
    assert own_step.versions(("jax", "no-such-package")) == {"jax": jax.__version__}
