"""`bertjax.config.schema`: every field says what it means and what it may hold."""

import dataclasses

import pytest

from bertjax.config.limits import limits
from bertjax.config.schema import Config

SECTIONS = {f.name: f.default_factory() for f in dataclasses.fields(Config)}
FIELDS = [(section, f) for section, values in SECTIONS.items() for f in dataclasses.fields(values)]


@pytest.mark.parametrize(("section", "field"), FIELDS, ids=[f"{s}.{f.name}" for s, f in FIELDS])
def test_fields(section, field):
    limit = limits(SECTIONS[section])[field.name]
    assert limit.meaning
    assert field.default is not None
    # What is a number has a least value, and a name that is one of a few says which.
    numbers = field.type in (int, float) or field.type in (tuple[int, ...], tuple[float, ...])
    assert (limit.least is not None) == numbers
    assert limit.below is None or limit.least is not None


def test_what_a_run_may_change_is_not_what_it_computes():
    may_change = {
        f"{s}.{n}" for s, values in SECTIONS.items() for n, limit in limits(values).items() if limit.may_change
    }
    forms = {"compute.scan", "compute.remat", "compute.attention"}
    assert forms | {"run.steps", "mesh.fsdp", "data.prepared"} <= may_change
    assert not {"run.seed", "compute.dtype", "data.batch_size", "optim.lr"} & may_change
    assert not any(name.startswith(("model.", "objective.", "teacher.")) for name in may_change)
    # The end of the schedule, which moves with run.steps.
    assert {name for name in may_change if name.startswith("optim.")} == {"optim.decay_steps", "optim.final_lr"}
