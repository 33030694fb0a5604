"""`configs/small.py` for texts and machines of many sizes: what it chooses can run, ends in time, and follows them."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from bertjax.bench.estimate import flops_a_second, step_bytes, step_flops
from bertjax.cli.overrides import configured
from bertjax.errors import ConfigError
from bertjax.model.cost import flops_per_token
from bertjax.parallel import machine
from bertjax.parallel.machine import Machine
from bertjax.report import survey
from bertjax.report.survey import Survey

RECIPE = str(Path(__file__).parents[2] / "configs" / "small.py")
MACHINES = {
    "laptop": Machine("cpu", "cpu", 1, 8_000_000_000, 2, False),
    "server": Machine("cpu", "cpu", 1, 256_000_000_000, 64, False),
    "small": Machine("cpu", "cpu", 1, 1_000_000_000, 1, False),
    "simulated": Machine("cpu", "cpu", 8, 3_000_000_000, 2, False),
    "h100": Machine("gpu", "NVIDIA H100 80GB HBM3", 1, 60_000_000_000, 16, True),
    "old": Machine("gpu", "Tesla T4", 1, 11_000_000_000, 4, False),
    "three": Machine("gpu", "NVIDIA A100-SXM4-40GB", 3, 30_000_000_000, 48, True),
    "tpu": Machine("tpu", "TPU v5 lite", 8, 16_000_000_000, 112, True),
    "unknown": Machine("gpu", "gfx1100", 1, 0, 16, True),
}
TEXTS = (1e4, 1e6, 1e7, 3e7, 1e8)


def english(characters, **others):
    """The survey of so much English."""
    counts = {"documents": max(1, int(characters / 4_500)), "distinct_words": int(30 * characters**0.5)}
    return Survey(
        **{**counts, "characters": int(characters), "alphabet": 100, "typical": 5_500, "whole": True} | others
    )


@pytest.fixture
def fitted(monkeypatch):
    """A function from a survey, a machine and flags to the fitted config."""

    def fit(text, here, *flags, time=""):
        monkeypatch.setattr(machine, "here", lambda: here)
        monkeypatch.setattr(survey, "survey", lambda data: text)
        return configured(RECIPE + time, None, [tuple(flag.split("=")) for flag in flags]).config

    return fit


def seconds(config, here):
    return config.run.steps * step_flops(config) / flops_a_second(config, here)


def layer_parameters(config):
    return flops_per_token(config.model, 1, predicted=0.0)["encoder"] / 6


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_chosen_ends_in_time_and_fits(fitted, name, capsys):
    here = MACHINES[name]
    for characters, (time, most) in itertools.product(TEXTS, {"": 1_500, ":5m": 300}.items()):
        text = english(characters)
        config = fitted(text, here, time=time)
        tokens = config.data.batch_size * config.data.seq_len
        assert seconds(config, here) < 1.05 * most or config.run.steps == 1
        assert config.run.steps * tokens <= 40 * text.tokens + tokens
        assert not here.memory or step_bytes(config, here.devices) <= here.memory / 2
        assert config.data.batch_size % (here.devices * config.optim.accumulate) == 0
        assert config.model.vocab_size == text.pieces
        assert 0.01 <= config.data.holdout <= 0.1
        assert (config.compute.dtype == "bfloat16") == here.bfloat16
        assert len(capsys.readouterr().err.splitlines()) == 6


def test_three_megabytes_on_two_cores(fitted, capsys):
    """The README's user: what is told is what is done, and it is enough to learn from."""
    config = fitted(english(3e6), MACHINES["laptop"])
    told = capsys.readouterr().err
    for shown in (
        "3.0 million characters",
        "3,712 pieces",
        "64 tokens",
        "4 layers of 128",
        "roughly 25 minutes on 2 CPU",
    ):
        assert shown in told
    assert f"{config.run.steps:,} steps of {config.data.batch_size} rows" in told
    assert 2_000 < config.run.steps < 4_000
    assert config.optim.warmup_steps + config.optim.decay_steps < config.run.steps
    fitted(english(3e6), MACHINES["laptop"], time=":1m")
    assert "roughly 1 minute on 2 CPU" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["laptop", "server", "h100"])
def test_more_text_and_more_time_never_make_a_smaller_model(fitted, name):
    times = (":5m", ":2h", ":9h")
    sizes = [[layer_parameters(fitted(english(n), MACHINES[name], time=t)) for n in TEXTS] for t in times]
    assert all(row == sorted(row) for row in sizes)
    assert all(list(column) == sorted(column) for column in zip(*sizes, strict=True))
    assert sizes[-1][-1] > sizes[0][0]


def test_the_same_text_and_machine_give_the_same_config(fitted):
    assert fitted(english(3e6), MACHINES["laptop"]) == fitted(english(3e6), MACHINES["laptop"])


def test_what_is_given_stays_and_the_rest_follows(fitted, capsys):
    given = {"data.seq_len": "128", "model.hidden_size": "256", "model.embedding_size": "256", "run.steps": "99"}
    given |= {"model.vocab_size": "9000", "data.holdout": "0.2", "optim.lr": "0.001", "data.batch_size": "24"}
    flags = [f"config.{name}={value}" for name, value in given.items()]
    config = fitted(english(3e6), MACHINES["laptop"], *flags)
    for name, value in given.items():
        section, field = name.split(".")
        assert str(getattr(getattr(config, section), field)) == value
    assert config.model.max_positions == 128 and config.data.max_predictions >= 0.15 * 128
    assert config.optim.warmup_steps <= 99 and config.run.log_every < 99
    told = capsys.readouterr().err
    assert told.count("(as given)") == 4 and "99 steps of 24 rows" in told


def test_memory_is_kept_by_microbatches(fitted):
    little = replace(MACHINES["h100"], memory=1_000_000_000)
    config, roomy = fitted(english(1e8), little), fitted(english(1e8), MACHINES["h100"])
    assert config.optim.accumulate > roomy.optim.accumulate == 1
    assert config.data.batch_size == roomy.data.batch_size and config.model == roomy.model


def test_short_documents_share_rows_of_the_least_length(fitted):
    assert fitted(english(3e6, typical=60), MACHINES["h100"]).data.seq_len == 64
    assert fitted(english(3e6, typical=400), MACHINES["h100"]).data.seq_len == 128
    config = fitted(english(3e6), MACHINES["h100"])
    assert config.data.seq_len == 256 and config.data.packing > 1


def test_a_text_read_often_is_learnt_with_dropout(fitted):
    assert fitted(english(1e6), MACHINES["laptop"]).model.dropout > 0.0
    assert fitted(english(3e7), MACHINES["laptop"]).model.dropout == 0.0


def test_a_tokenizer_that_is_there_says_how_many_pieces(fitted, tmp_path, capsys):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    config = fitted(english(3e6), MACHINES["laptop"], f"config.data.tokenizer={tmp_path / 'vocab.txt'}")
    assert config.model.vocab_size == 12 and f"12 pieces (as {tmp_path / 'vocab.txt'} has)" in capsys.readouterr().err
    absent = fitted(english(3e6), MACHINES["laptop"], f"config.data.tokenizer={tmp_path / 'to_make.model'}")
    assert absent.model.vocab_size == english(3e6).pieces


@pytest.mark.parametrize("time", ["", "0m", "25", "2 h", "-1m", "soon"])
def test_a_time_that_is_none_is_refused(time):
    with pytest.raises(ConfigError, match="is no time; say how long training may take, as 25m or 2h"):
        configured(f"{RECIPE}:{time}", None, [])


def test_what_is_no_words_has_another_recipe(fitted):
    flags = ["config.data.alphabet=dna", "config.data.format=lines", "config.data.case=cased"]
    with pytest.raises(ConfigError, match="is for words; for dna there is configs/sequences.py:dna$"):
        fitted(english(3e6), MACHINES["laptop"], *flags)
