"""`bertjax.config.schema`: every mistake is reported, each with its field, value and fix."""

import json

import ml_collections
import pytest

from bertjax.config.recipe import default, from_dict, override, to_dict, to_json
from bertjax.config.rules import CHOICES, FRACTIONS, MINIMUM
from bertjax.config.schema import Config
from bertjax.errors import ConfigError


def test_round_trips():
    assert from_dict(default()) == Config()
    assert from_dict(json.loads(to_json(Config()))) == Config()
    changed = override(Config(), run={"steps": 20_000}, model={"share": "all"})
    assert changed.run.steps == 20_000
    assert from_dict(to_dict(changed)) == changed


def test_default_is_locked():
    with pytest.raises(AttributeError, match="lr"):
        default().optim.lrr = 1.0
    with pytest.raises((AttributeError, KeyError)):
        default().optim.update(lrr=1.0)


def test_no_field_defaults_to_none():
    assert all(value is not None for section in to_dict(Config()).values() for value in section.values())


def test_tables_name_real_fields():
    fields = {f"{s}.{f}" for s, section in to_dict(Config()).items() for f in section}
    assert set(CHOICES) | set(MINIMUM) | set(FRACTIONS) <= fields


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


@pytest.mark.parametrize(
    ("section", "fields", "named"),
    [
        ("model", {"num_heads": 5}, "model.num_heads = 5"),
        ("run", {"init_layers": "first"}, "run.init_layers = 'first': needs run.init_from"),
        ("run", {"init_from": "x", "init_layers": "0,,2"}, "run.init_layers = '0,,2': must be"),
        ("model", {"share": "al"}, "one of none, attention, ffn, all"),
        ("model", {"share": "all", "num_groups": 5}, "model.num_groups = 5"),
        ("model", {"num_groups": 2}, "needs model.share"),
        ("model", {"embedding_size": 1024}, "model.embedding_size = 1024"),
        ("model", {"pooler": False}, "model.pair_head"),
        ("model", {"dropout": 1.0}, "below 1"),
        ("data", {"examples": "doc_sentences"}, "objective.pair"),
        ("data", {"seq_len": 1024}, "model.max_positions = 512"),
        ("data", {"max_predictions": 200}, "data.seq_len = 128"),
        ("data", {"mix": "0.5,x"}, "data.mix = '0.5,x'"),
        ("data", {"mix": "0.5,-1"}, "must be positive"),
        ("data", {"mix": "0.5,0.5"}, "data.source has 1 entries"),
        ("data", {"buckets": "64,100"}, "end with data.seq_len = 128"),
        ("data", {"buckets": "64,32,128"}, "ascending"),
        ("data", {"buckets": "64,128", "packing": 2}, "data.packing = 2"),
        ("data", {"buckets": "64,128", "mix": "1", "prepared": "x"}, "does not go with data.buckets"),
        ("data", {"packing": 26}, "data.packing = 26"),
        ("data", {"masking": "ngram", "mask_smoothing": 0.7}, "data.mask_smoothing = 0.7"),
        ("data", {"mask_together": True}, "data.mask_together"),
        ("data", {"mask_count": 21}, "data.max_predictions = 20"),
        ("optim", {"lr": float("nan")}, "finite"),
        ("optim", {"accumulate": 3}, "data.batch_size = 256"),
        ("run", {"steps": 5}, "optim.warmup_steps"),
        ("objective", {"mlm": 0.0, "pair": 0.0}, "objective"),
    ],
)
def test_impossible_values_are_named(section, fields, named):
    values = to_dict(Config())
    values[section].update(fields)
    with pytest.raises(ConfigError, match=named.replace(".", r"\.").replace("?", r"\?")):
        from_dict(values)


def test_original_flaws_are_of_pairs():
    values = to_dict(Config())
    values["data"].update(examples="full_sentences", original_flaws=True)
    values["objective"]["pair"] = 0.0
    with pytest.raises(ConfigError, match=r"data\.original_flaws = True"):
        from_dict(values)


def test_int_becomes_float_but_not_the_reverse():
    config = ml_collections.ConfigDict(to_dict(Config()))
    config.optim.lr = 1
    assert from_dict(config).optim.lr == 1.0
    values = to_dict(Config())
    values["run"]["steps"] = 1e6
    with pytest.raises(ConfigError, match="run.steps"):
        from_dict(values)
