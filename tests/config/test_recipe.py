"""`bertjax.config.recipe`: what goes in comes out, and every mistake of type or name is reported at once."""

import json

import ml_collections
import pytest

from bertjax.config.recipe import default, fitted, from_dict, override, to_dict
from bertjax.config.schema import Config
from bertjax.errors import ConfigError


def test_round_trips():
    assert from_dict(default()) == Config()
    assert from_dict(json.loads(json.dumps(to_dict(Config())))) == Config()
    changed = override(Config(), run={"steps": 20_000}, model={"share": "all"})
    assert changed.run.steps == 20_000
    assert from_dict(to_dict(changed)) == changed


def test_lists_of_json_become_tuples_of_their_type():
    values = json.loads(json.dumps(to_dict(Config())))
    values["data"]["buckets"] = [64, 128]
    assert from_dict(values).data.buckets == (64, 128)
    values["data"]["buckets"] = [64, 128.0]
    with pytest.raises(ConfigError, match=r"data.buckets = \[64, 128.0\]: must be a tuple of int"):
        from_dict(values)
    values["data"]["buckets"] = "64,128"
    with pytest.raises(ConfigError, match="data.buckets = '64,128': must be a tuple of int"):
        from_dict(values)


def test_a_config_that_is_no_sections_is_refused():
    with pytest.raises(ConfigError, match="config: None"):
        from_dict(None)
    with pytest.raises(ConfigError, match="model = 3: must be a section"):
        from_dict({"model": 3})


def test_default_is_locked():
    with pytest.raises(AttributeError, match="lr"):
        default().optim.lrr = 1.0
    with pytest.raises((AttributeError, KeyError)):
        default().optim.update(lrr=1.0)


def test_no_field_defaults_to_none():
    assert all(value is not None for section in to_dict(Config()).values() for value in section.values())


def test_all_errors_at_once():
    values = to_dict(Config())
    values["model"]["hiden_size"] = 3
    values["modl"] = {}
    values["run"]["steps"] = True
    values["optim"]["lr"] = "fast"
    with pytest.raises(ConfigError) as error:
        from_dict(values)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    for text in ("did you mean model.hidden_size?", "did you mean model?", "run.steps = True", "optim.lr = 'fast'"):
        assert sum(text in line for line in lines) == 1


def test_int_becomes_float_but_not_the_reverse():
    config = ml_collections.ConfigDict(to_dict(Config()))
    config.optim.lr = 1
    assert from_dict(config).optim.lr == 1.0
    values = to_dict(Config())
    values["run"]["steps"] = 1e6
    with pytest.raises(ConfigError, match="run.steps"):
        from_dict(values)


def test_fitting_sees_what_is_given_and_the_rest_is_checked_behind_it():
    """Sizes that do not go together until the fitting has made them fit are no mistake."""
    values = to_dict(Config())
    values["data"]["seq_len"] = 1_024

    def fit(config, given):
        assert config.data.seq_len == 1_024 and set(given) == {"data.seq_len"}
        config.model.max_positions = config.data.seq_len
        yield "positions   1,024"

    with pytest.raises(ConfigError, match="data.seq_len = 1024: must be at most"):
        from_dict(values)
    config, lines = fitted(values, fit, {"data.seq_len"})
    assert config == override(Config(), data={"seq_len": 1_024}, model={"max_positions": 1_024})
    assert lines == ["positions   1,024"]


def test_what_a_fitting_sets_is_checked():
    def fit(config, given):
        config.model.num_heads = 7
        return []

    with pytest.raises(ConfigError, match="model.num_heads = 7: must divide"):
        fitted(default(), fit, ())


@pytest.mark.parametrize(("field", "value"), [("seq_len", -5), ("seq_len", "long"), ("sequence", 64)])
def test_a_field_that_is_wrong_by_itself_is_told_before_the_fitting(field, value):
    values = to_dict(Config())
    values["data"][field] = value
    with pytest.raises(ConfigError, match=f"data.{field}"):
        fitted(values, lambda config, given: pytest.fail("was fitted"), ())
