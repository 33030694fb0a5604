"""`bertjax.finetuning.finetune`: each kind of task is learnt from files, resumed to the last bit, swept, and leaves its
result, and whatever does not fit is one line.
"""

import json
import shutil

import jax
import labelled_files
import numpy as np
import pytest
from labelled_files import config_of

import bertjax
from bertjax.cli.main import main
from bertjax.config.recipe import override
from bertjax.errors import ConfigError, DataError
from bertjax.finetuning.finetune import finetune, table
from bertjax.model.network import abstract_params
from bertjax.steps import numbers
from bertjax.train import checkpoint
from bertjax.train.workdir import load_config

CHANCE = {"classify": 0.5, "regress": 0.0, "tag": 0.0, "span": 0.3, "choice": 0.5}


def params(directory):
    model = load_config(directory).model
    return jax.tree.leaves(checkpoint.restore_params(directory / "checkpoints", abstract_params(model)).state)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each kind that was asked for: its config, directory and result."""
    made = {}

    def run(kind):
        if kind not in made:
            directory = tmp_path_factory.mktemp(kind)
            config = config_of(directory, kind, task={"test": (labelled_files.write(directory, kind, 41, 3),)})
            made[kind] = (config, directory / "run", finetune(config, directory / "run"))
        return made[kind]

    return run


@pytest.mark.parametrize("kind", labelled_files.OWN)
def test_the_rule_of_a_file_is_learnt(kind, runs):
    """From random weights; dev and test are of other examples. Predictions on disk are what the metrics say."""
    config, directory, result = runs(kind)
    metric = result["metric"]
    for split, count in (("dev", 40), ("test", 41)):
        assert result["metrics"][split][metric] > CHANCE[kind] + 0.25, result
        lines = (directory / f"predictions.{split}.jsonl").read_text().splitlines()
        assert len(lines) == count and all(json.loads(line) for line in lines)
    assert result["examples"] == {"train": 160, "dev": 40, "test": 41} and result["seeds"] == [config.run.seed]
    assert json.loads((directory / "result.json").read_text()) == result
    assert metric in table(result)


def test_the_weights_of_the_best_evaluation_are_the_model(runs):
    _, directory, result = runs("classify")
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    dev = [line["dev_accuracy"] for line in lines if "dev_accuracy" in line]
    assert len(dev) == 3 and result["metrics"]["dev"]["accuracy"] == pytest.approx(max(dev))


def test_a_run_that_is_done_says_so_and_gives_the_same(runs, capsys):
    config, directory, result = runs("classify")
    before = [np.array(x) for x in params(directory)]
    assert finetune(load_config(directory), directory) == result == finetune(config, directory)
    assert "is done" in capsys.readouterr().err
    assert all(np.array_equal(a, b) for a, b in zip(before, params(directory), strict=True))


def test_it_goes_on_to_the_same_bits(runs, tmp_path):
    """After a stop in the second epoch, with packed rows and dropout."""
    packed = {"data": {"packing": 3}, "model": {"dropout": 0.1}, "run": {"save_every": 7}, "task": {"epochs": 0.0}}
    config = config_of(tmp_path, "classify", **packed)
    whole = override(config, run={"steps": 20, "eval_every": 5})
    finetune(whole, tmp_path / "whole")
    finetune(whole, tmp_path / "parts")
    for step in numbers(tmp_path / "parts" / "checkpoints")[1:]:
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / str(step))
    assert numbers(tmp_path / "parts" / "checkpoints") == [7]
    finetune(whole, tmp_path / "parts")
    assert all(
        np.array_equal(a, b) for a, b in zip(params(tmp_path / "whole"), params(tmp_path / "parts"), strict=True)
    )


def test_a_trained_model_gives_its_structure_and_its_tokenizer(trained, tmp_path, capsys):
    """And is not needed afterwards: not by what goes on, and not by predictions."""
    _, directory = trained
    shutil.copytree(directory, tmp_path / "source")
    config = config_of(tmp_path, "classify", run={"init_from": str(tmp_path / "source")}, task={"epochs": 1.0})
    finetune(config, tmp_path / "run")
    err = capsys.readouterr().err
    assert "layers 0, 1, 2, 3 of 4" in err and "new: classifier" in err and "random weights" not in err
    model, source = load_config(tmp_path / "run").model, load_config(directory).model
    assert (model.num_layers, model.positions) == (source.num_layers, source.positions)
    assert model.labels == ("bad", "good") and model.heads == ("pooler", "classifier")
    shutil.rmtree(tmp_path / "source")
    finetune(config, tmp_path / "run")
    (answer,) = bertjax.load(tmp_path / "run").classify(["the good king"])
    assert answer.label in ("bad", "good") and sum(answer.scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_sweep_ends_with_the_best_of_its_runs(tmp_path, capsys):
    config = config_of(tmp_path, "classify", sweep={"lr": (1e-5, 1e-2), "seeds": (0, 1)}, task={"epochs": 2.0})
    result = finetune(config, tmp_path / "run")
    assert [(one["lr"], one["seed"]) for one in result["runs"]] == [(1e-5, 0), (1e-2, 0), (1e-5, 1), (1e-2, 1)]
    assert result["metrics"]["dev"]["accuracy"] == pytest.approx(max(one["value"] for one in result["runs"]))
    assert result["metrics"]["dev"]["accuracy"] > 0.75 and result["seeds"] == [0, 1]
    assert capsys.readouterr().err.count("compiling") == 1
    assert finetune(config, tmp_path / "run") == result


def test_by_command(tmp_path, capsys):
    """As the README says it, and what stands at the end is one object with what others read."""
    train, dev = (labelled_files.write(tmp_path, "classify", count, count) for count in (160, 40))
    small = [f"--config.model.{name}=32" for name in ("hidden_size", "embedding_size", "ffn_size", "max_positions")]
    small += ["--config.model.num_heads=2", "--config.data.seq_len=32", "--config.data.buckets=32"]
    workdir = f"--workdir={tmp_path / 'run'}"
    first = ["--config=finetune/classify", f"--config.task.train={train}", f"--config.task.dev={dev}", *small]
    for given in (first, [], first):
        with pytest.raises(SystemExit) as end:
            main(["finetune", workdir, "--json", "--config.task.epochs=1", *given])
        assert not end.value.code
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert {"task", "metrics", "seeds", "examples", "workdir"} <= result.keys()
        assert set(result["metrics"]) == {"dev"}


@pytest.mark.parametrize(
    ("kind", "sections", "error", "named"),
    [
        ("classify", {"task": {"kind": "", "train": ()}}, ConfigError, "name a recipe of configs/finetune"),
        ("classify", {"task": {"train": ()}}, ConfigError, "task.train = \\(\\): name the files"),
        ("classify", {"task": {"text": "body"}}, ConfigError, "task.text = 'body'"),
        ("classify", {"task": {"labels": ("good", "fine")}}, DataError, "'bad'"),
        ("classify", {"task": {"metric": "pearson"}}, ConfigError, "task.metric = pearson"),
        ("classify", {"data": {"seq_len": 64, "buckets": ()}}, ConfigError, "data.seq_len = 64"),
        ("classify", {"run": {"init_from": "/nope"}}, Exception, "/nope"),
    ],
)
def test_what_does_not_fit_is_a_line_before_anything_is_written(tmp_path, kind, sections, error, named):
    with pytest.raises(error, match=named):
        finetune(config_of(tmp_path, kind, **sections), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
