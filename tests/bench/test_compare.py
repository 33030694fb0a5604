"""`bertjax compare`: the numbers of each model, and their ratios to the first."""

import json
from dataclasses import replace
from types import SimpleNamespace

import finetuned
import jax
import matplotlib.image
import numpy as np
import pytest
from directories import ours, write
from small import tiny

from bertjax.bench import compare, retained
from bertjax.cli import main as cli
from bertjax.config.recipe import override
from bertjax.data import dataset, tokenizer
from bertjax.errors import ConfigError
from bertjax.model.network import abstract_params
from bertjax.train import checkpoint, workdir
from bertjax.train.state import TrainState
from bertjax.trained import inference


@pytest.fixture(scope="module")
def runs(inputs, tmp_path_factory):
    """Work directories, of four and of two layers and of others, whose models are as good as nothing."""
    root = tmp_path_factory.mktemp("runs")
    four = tiny(data=inputs)
    two = override(four, model={"num_layers": 2}, objective={"pair": 0.0})
    short = override(two, model={"max_positions": 16}, data={"seq_len": 16})
    one_type = override(two, model={"token_types": 1}, data={"examples": "doc_sentences"})
    digest = tokenizer.load(inputs["tokenizer"], lower_case=True).digest
    for name, config in (("four", four), ("two", two), ("short", short), ("one_type", one_type)):
        params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_params(config.model))
        writes = checkpoint.Checkpoints(root / name / "checkpoints", keep=1)
        identity = {"data set": dataset.load(inputs["prepared"]).digest, "tokenizer": digest, "teacher": ""}
        state = TrainState(step=np.ones([], np.int32), params=params, opt_state=())
        writes.save(1, state, identity=identity, rows=8, config=config)
        writes.close()
        workdir.save_config(root / name, config)
    return root


def test_models_are_held_against_the_first(runs, tmp_path, capsys):
    picture = f"--out={tmp_path / 'compare.png'}"
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(runs / "four"), str(runs / "two"), "--json", "--repeats=2", picture])
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    four, two = result["models"]
    assert four["name"].endswith("four") and two["bytes"] == 4 * two["parameters"]
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32
    assert four["parameters"] - two["parameters"] == 2 * layer
    assert four["flops_per_token"] == 2 * two["flops_per_token"] == 4 * (2 * (4 * 32**2 + 2 * 32 * 64) + 4 * 32 * 32)
    assert set(four["latency_ms"]) == {"1", "32"}
    assert four["sequences_per_second"] == pytest.approx(32_000 / four["latency_ms"]["32"])
    for model in (four, two):  # all logits are 0
        assert model["mlm_loss"] == pytest.approx(np.log(400), rel=1e-5)
        assert model["context_gain"] < 0.0  # it does not even know which words are frequent
    first, second = result["ratios"]
    assert first["parameters"] == first["latency_ms"]["1"] == first["mlm_loss"] == 1.0
    assert second["flops_per_token"] == 0.5
    assert second["latency_ms"]["32"] == pytest.approx(two["latency_ms"]["32"] / four["latency_ms"]["32"])
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_shows_what_is_not_known(runs, tmp_path):
    """A model with another tokenizer has no loss on this text."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]) + "\n")
    other = write(tmp_path / "hf", tokenizer=tmp_path / "vocab.txt")
    result = compare.compare([other, runs / "two"], repeats=1)
    assert result["models"][0]["mlm_loss"] is None and result["models"][1]["mlm_loss"] > 0
    assert result["ratios"][1]["mlm_loss"] is None
    assert result["models"][0]["parameters"] == sum(x.size for x in jax.tree.leaves(ours("bert")[1]))
    lines = compare.table(result).splitlines()
    assert lines[0].split()[-1].endswith("two") and "x)" in lines[1]
    assert next(line for line in lines if line.startswith("mlm loss")).split()[2] == "-"


def test_a_model_that_cannot_read_the_rows_has_no_loss(runs):
    """It has fewer positions, or one token type where the rows have two."""
    models = compare.compare([runs / name for name in ("two", "short", "one_type")], repeats=1)["models"]
    assert [model["mlm_loss"] is None for model in models] == [False, True, True]


@pytest.mark.parametrize("lacks", [{"heads": frozenset()}, {"tokenizer": None}], ids=["head", "tokenizer"])
def test_a_model_that_names_no_words_has_no_loss(runs, lacks, monkeypatch):
    load = inference.load
    monkeypatch.setattr(inference, "load", lambda path: replace(load(path), **lacks))
    (model,) = compare.compare([runs / "two"], repeats=1)["models"]
    assert model["mlm_loss"] is None and model["parameters"] > 0


def test_the_time_of_compilation_is_not_counted(runs, monkeypatch):
    """By a clock that goes on by 100 seconds where a shape is first met, and else by one."""
    now, met, load = 0.0, set(), inference.load

    class Timed(inference.Loaded):
        def __call__(self, tokens, **_):
            nonlocal now
            now += 1.0 if tokens.shape in met else 100.0
            met.add(tokens.shape)

    monkeypatch.setattr(inference, "load", lambda path: Timed(**vars(load(path))))
    monkeypatch.setattr(compare, "time", SimpleNamespace(perf_counter=lambda: now))
    (model,) = compare.compare([runs / "two"], repeats=1)["models"]
    assert model["latency_ms"] == {"1": 1000.0, "32": 1000.0} and model["sequences_per_second"] == 32.0


def test_the_picture_has_the_curves_of_runs(tmp_path):
    """Bars alone for models that are not runs; below them a curve for each run that was evaluated."""
    (tmp_path / "run").mkdir()
    model = {"parameters": 2, "bytes": 8, "latency_ms": {"1": 3.0}, "mlm_loss": None}
    result = {"models": [{"name": str(tmp_path / name)} | model for name in ("other", "run")], "tasks": {}}
    heights = []
    for lines in (
        "",
        '{"step": 1, "loss": 6.0}\n',
        '{"step": 1, "eval_mlm_loss": 6.0}\n\xff\n{"step": 2, "eval_mlm_loss": 5.0}\n',
    ):
        (tmp_path / "run" / "metrics.jsonl").write_text(lines, encoding="latin-1")
        compare.plot(result, tmp_path / "picture.png")
        heights.append(matplotlib.image.imread(tmp_path / "picture.png").shape[0])
    assert heights[0] == heights[1] < heights[2]


def write_result(directory, config, **values):
    """A run that was fine-tuned, and what it reached."""
    finetuned.write(directory, config)
    found = {
        "task": config.task.name,
        "kind": config.task.kind,
        "metric": "accuracy",
        "seeds": [0],
        "runs": [],
    } | values
    (directory / retained.RESULT).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A model of two layers, one of one that was tuned for two tasks as well, and one for one of them."""
    root = tmp_path_factory.mktemp("tasks")
    for model, layers, scores in (("teacher", 2, (0.8, 0.5)), ("student", 1, (0.76, 0.45))):
        for task, kind, score in zip(("moods", "names"), ("classify", "tag"), scores, strict=True):
            config = finetuned.config_of(kind, model={"num_layers": layers}, task={"name": task})
            metrics = {"dev": {"f1": score}, "test": {"f1": score - 0.1}}
            write_result(root / model / task, config, metric="f1", metrics=metrics)
    config = finetuned.config_of("classify", task={"name": "moods"})
    write_result(root / "single", config, metrics={"dev": {"f1": 0.2, "accuracy": 0.9}})
    return root


def test_the_share_retained_of_tasks(tasks, tmp_path, capsys):
    """Of each task and of their mean, on test."""
    picture = f"--out={tmp_path / 'compare.png'}"
    arguments = ["compare", str(tasks / "teacher"), str(tasks / "student"), "--repeats=1"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json", picture])
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["tasks"] == {name: {"metric": "f1", "part": "test"} for name in ("moods", "names")}
    teacher, student = result["models"]
    assert teacher["tasks"] == pytest.approx({"moods": 0.7, "names": 0.4})
    assert teacher["task_mean"] == pytest.approx(0.55) and student["task_mean"] == pytest.approx(0.505)
    assert result["ratios"][1]["tasks"] == pytest.approx({"moods": 0.66 / 0.7, "names": 0.35 / 0.4})
    assert result["ratios"][1]["task_mean"] == pytest.approx(0.505 / 0.55)
    assert teacher["parameters"] > student["parameters"] and teacher["mlm_loss"] is None
    with pytest.raises(SystemExit):
        cli.main(arguments)
    lines = {line[:22].strip(): line[22:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["moods, test f1"] == ["0.7", "0.66", "(94.3", "%)"]
    assert lines["names, test f1"] == ["0.4", "0.35", "(87.5", "%)"]
    assert lines["task mean"] == ["0.55", "0.505", "(91.8", "%)"]
    assert "parameters" in lines and not {"mlm loss", "context gain"} & set(lines)  # which neither of them has


def test_a_model_without_a_task_is_compared_in_the_others(tasks, runs):
    result = compare.compare([tasks / "student", tasks / "single", runs / "two"], repeats=1)
    assert result["tasks"]["moods"] == {"metric": "f1", "part": "dev"}
    student, single, untuned = result["models"]
    assert student["tasks"] == {"moods": 0.76, "names": pytest.approx(0.35)}
    assert single["tasks"] == {"moods": 0.2, "names": None} and untuned["tasks"] == {"moods": None, "names": None}
    assert [model["task_mean"] for model in result["models"]] == [None] * 3
    lines = compare.table(result).splitlines()
    assert next(line for line in lines if line.startswith("names")).split()[3:] == ["0.35", "-", "-"]
    assert not any(line.startswith("task mean") for line in lines)


def test_the_picture_stays_narrow_with_many_tasks(tmp_path):
    """There are as many rows of panels as it takes."""
    names = [f"task {i}" for i in range(20)]
    model = {"parameters": 2, "bytes": 8, "latency_ms": {"1": 3.0}, "tasks": dict.fromkeys(names, 0.5)}
    shapes = []
    for shown in (names[:3], names):
        of = {"name": "run"} | model | {"tasks": dict.fromkeys(shown, 0.5)}
        tasks = {name: {"metric": "f1", "part": "dev"} for name in shown}
        compare.plot({"models": [of, of | {"name": "other"}], "tasks": tasks}, tmp_path / "picture.png")
        shapes.append(matplotlib.image.imread(tmp_path / "picture.png").shape)
    assert shapes[1][0] >= 2 * shapes[0][0] and shapes[1][1] < 2200


def test_nothing_to_compare_is_refused():
    with pytest.raises(ConfigError, match="name work directories or Hugging Face directories"):
        compare.compare([], repeats=1)
