"""`bertjax.batch`: the contract's shapes, and that the model can be built from it alone."""

import numpy as np
from small import tiny

from bertjax import batch
from bertjax.bench.step import synthetic


def test_shapes_follow_the_config():
    data = tiny().data
    fields = batch.spec(data)
    assert fields["tokens"].shape == (8, 32) and fields["mlm_labels"].shape == (8, 5)
    assert fields["pair_weights"].shape == (8, 1) and fields["pair_weights"].dtype is np.float32
    assert {field.shape[0] for field in batch.spec(data, rows=3).values()} == {3}


def test_every_field_is_explained_and_filled():
    rows = synthetic(tiny())
    for name, field in batch.spec(tiny().data).items():
        assert field.meaning and rows[name].shape == field.shape and rows[name].dtype == field.dtype
