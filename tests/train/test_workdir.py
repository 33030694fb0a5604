"""`bertjax.train.workdir`: places, and what a run cannot change half-way."""

import pytest

from bertjax.config.recipe import override, to_dict
from bertjax.config.schema import Config, DataConfig
from bertjax.errors import ConfigError
from bertjax.train import workdir


def test_places(tmp_path):
    assert workdir.tokenizer_path(tmp_path, DataConfig()) == tmp_path / "tokenizer" / "spiece.model"
    assert workdir.prepared_path(tmp_path, DataConfig()) == tmp_path / "data"
    for data in (DataConfig(alphabet="dna"), DataConfig(format="ids")):
        assert workdir.tokenizer_path(tmp_path, data) == tmp_path / "tokenizer" / "tokenizer.json"
    named = DataConfig(tokenizer="vocab.txt", prepared="~/data")
    assert str(workdir.tokenizer_path(tmp_path, named)) == "vocab.txt"
    assert workdir.prepared_path(tmp_path, named).is_absolute()


def test_config_round_trip_and_damage(tmp_path):
    workdir.save_config(tmp_path, Config())
    assert workdir.load_config(tmp_path) == Config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        workdir.load_config(tmp_path)
    with pytest.raises(ConfigError, match="not found"):
        workdir.load_config(tmp_path / "none")


def test_what_may_change_half_way(tmp_path):
    fields = to_dict(Config())
    same = override(Config(), run={"steps": 2_000_000, "keep": 9}, compute={"scan": False}, mesh={"fsdp": 2})
    workdir.check_same_run(tmp_path, fields, same)
    other = override(Config(), optim={"lr": 0.5}, model={"dropout": 0.0})
    with pytest.raises(ConfigError) as error:
        workdir.check_same_run(tmp_path, fields, other)
    assert len(str(error.value).splitlines()) == 2 and "optim.lr = 0.5" in str(error.value)
    with pytest.raises(ConfigError, match="^model.dropout[^\n]*$"):
        workdir.check_same_run(tmp_path, fields, other, sections=("model",))
