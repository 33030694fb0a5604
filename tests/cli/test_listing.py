"""`bertjax.cli.listing`: every field, and values in a form that the command line takes back."""

import dataclasses
import shlex

import pytest

from bertjax.cli.listing import fields, table, written
from bertjax.cli.overrides import configured, kinds
from bertjax.config.limits import limits
from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.errors import ConfigError
from bertjax.train.workdir import save_config

ODD = {
    "data": {"source": ("a b/*.txt", "c,d.txt", " e"), "mix": (0.5, 2.0, 1e-9), "text_field": "it's"},
    "run": {"pairs": ("(x)",), "init_layers": (0, 2), "init_from": "x"},
    "optim": {"freeze": ("a/b", "c")},
}


@pytest.fixture
def resolved(tmp_path):
    """Of a run, with values that are hard to write."""
    save_config(tmp_path, override(Config(), **ODD))
    return configured(None, tmp_path, [])


def test_every_field_is_there_with_its_meaning(resolved):
    found = fields(resolved, [])
    assert found.keys() == kinds().keys()
    for section in dataclasses.fields(Config):
        for name, limit in limits(section.type).items():
            about = found[f"{section.name}.{name}"]
            assert about["meaning"] == limit.meaning
            assert about["value"] == getattr(getattr(resolved.config, section.name), name)
            assert ("at any time" in about["limits"]) <= limit.may_change
            assert all(choice in about["limits"] for choice in limit.choices)
            assert limit.least is None or f"at least {limit.least:g}" in about["limits"]
            assert limit.below is None or f"below {limit.below:g}" in about["limits"]
            # Nowhere else is all of it to be read.
            lines = table({"x": about}).splitlines()
            assert " ".join(" ".join(lines[1:]).split()) == f"{limit.meaning} {about['limits']}"


def test_what_is_listed_can_be_given(resolved):
    """The first line of each field, behind `--config.`, gives the same config."""
    found = fields(resolved, [])
    listed = [line for line in table(found).splitlines() if not line.startswith(" ")]
    assert len(listed) == len(found)
    words = [shlex.split(line)[0].split("=", 1) for line in listed]
    overrides = [(f"config.{name}", text) for name, text in words]
    assert configured(None, None, overrides, default=True).config == resolved.config
    assert written(("a", "b")) == "a,b" and written(()) == ""


def test_some_are_listed_by_section_or_name(resolved):
    assert {name.split(".")[0] for name in fields(resolved, ["mesh"])} == {"mesh"}
    assert fields(resolved, ["mesh.fsdp", "run.seed"]).keys() == {"mesh.fsdp", "run.seed"}
    with pytest.raises(ConfigError, match=r"run.sed: .* did you mean run.seed\?\nx: there is no such section"):
        fields(resolved, ["run.sed", "run", "x"])
