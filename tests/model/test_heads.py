"""`bertjax.model.heads`: one table that the config, the network and the parameters agree with."""

import jax
import numpy as np
from models import make, run

from bertjax.config.limits import limits
from bertjax.config.schema import ModelConfig
from bertjax.model.heads import HEADS


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
