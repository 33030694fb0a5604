"""`bertjax.bench.retained`: results of runs as they lie, and what is compared of them."""

import json

import numpy as np
import pytest
from small import tiny

from bertjax.bench import retained
from bertjax.bench.retained import Result, means, results_of, runs_of, share, tasks_of, values_of
from bertjax.config.recipe import override
from bertjax.errors import DataError
from bertjax.train import workdir

WRITTEN = {"task": "sst2", "kind": "classify", "metric": "accuracy", "metrics": {"dev": {"accuracy": 0.5}}}


def write(directory, **values):
    directory.mkdir(parents=True)
    (directory / retained.RESULT).write_text(json.dumps(WRITTEN | {"seeds": [0], "runs": []} | values))
    return directory


def test_a_run_is_one_task_and_a_directory_of_runs_is_several(tmp_path):
    one = write(tmp_path / "one")
    write(one / "points" / "lr=1", task="of a point")
    assert runs_of(one) == [one]
    assert results_of(one) == {"sst2": Result("sst2", "accuracy", {"accuracy": 0.5}, {})}
    both = write(tmp_path / "both", metrics={"dev": {"f1": 0.5}, "test": {"f1": 1, "loss": 2.5}})
    assert results_of(both)["sst2"] == Result("sst2", "accuracy", {"f1": 0.5}, {"f1": 1, "loss": 2.5})
    for name in ("b", "a"):
        write(tmp_path / "many" / name, task=name)
    (tmp_path / "many" / "notes").mkdir()
    (tmp_path / "many" / "file").write_text("")
    assert runs_of(tmp_path / "many") == [tmp_path / "many" / "a", tmp_path / "many" / "b"]
    assert list(results_of(tmp_path / "many")) == ["a", "b"]


def test_other_directories_have_no_tasks(tmp_path):
    """Runs of pretraining, models of Hugging Face, and what is not there."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    write(tmp_path / "run" / "inside")  # of a run, nothing but its own result counts
    (tmp_path / "hf").mkdir()
    for path in (tmp_path / "run", tmp_path / "hf", tmp_path / "none", tmp_path / "hf" / "none"):
        assert runs_of(path) == [] and results_of(path) == {}


def test_a_run_that_is_not_done_is_told(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    workdir.save_config(tmp_path, tiny())
    assert results_of(tmp_path) == {} and capsys.readouterr().err == ""
    fields = {"kind": "classify", "train": ("x.tsv",)}
    workdir.save_config(tmp_path, override(tiny(), task=fields, model={"heads": ("pooler", "classifier")}))
    assert results_of(tmp_path) == {}
    told = f"{tmp_path}: has no result.json yet, which `bertjax finetune` writes at its end\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, "\xff"]
    + [json.dumps({k: v for k, v in WRITTEN.items() if k != missing}) for missing in ("task", "metric", "metrics")]
    + [
        json.dumps(WRITTEN | {"metrics": metrics})
        for metrics in ({}, {"test": {}}, {"dev": {"f1": "high"}}, {"dev": {"f1": np.nan}}, {"dev": {}, "test": []})
    ],
)
def test_what_is_no_result_is_one_line(text, tmp_path):
    (tmp_path / retained.RESULT).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=f"{tmp_path}/result.json: .*let `bertjax finetune` write it anew") as error:
        results_of(tmp_path)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


def test_two_runs_of_a_task_are_not_one_model(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name)
    with pytest.raises(DataError, match="has two runs of the task 'sst2'"):
        results_of(tmp_path)


def result(metric="accuracy", dev=0.5, test=None):
    return Result("", metric, {"accuracy": dev, "f1": dev / 2}, {} if test is None else {"accuracy": test})


def test_models_are_compared_by_what_all_of_them_have(tmp_path):
    """Test where all were tested, else dev; the metric of the first; the mean over tasks that none lacks."""
    teacher = {"a": result(test=0.8), "b": result(metric="f1", dev=0.6), "c": result(test=0.4)}
    student = {"a": result(dev=0.7), "b": result(dev=0.5), "c": result(test=0.3), "d": result(dev=0.9)}
    found = [teacher, {}, student]
    tasks = tasks_of(found)
    assert tasks == {
        "a": {"metric": "accuracy", "part": "dev"},
        "b": {"metric": "f1", "part": "dev"},
        "c": {"metric": "accuracy", "part": "test"},
        "d": {"metric": "accuracy", "part": "dev"},
    }
    values = [values_of(one, tasks) for one in found]
    assert values[0] == {"a": 0.5, "b": 0.3, "c": 0.4, "d": None}
    assert values[1] == dict.fromkeys("abcd")
    assert values[2] == {"a": 0.7, "b": 0.25, "c": 0.3, "d": 0.9}
    mean, nothing, other = means(values)
    assert (mean, nothing, other) == (pytest.approx(0.4), None, pytest.approx(1.25 / 3))


def test_one_task_has_no_mean():
    assert means([{"a": 0.5, "b": 0.5}, {"a": 0.5, "b": None}]) == [None, None]
    assert means([]) == [] and means([{}]) == [None]


def test_nothing_is_retained_of_nothing():
    assert share(0.4, 0.5) == pytest.approx(0.8) and share(-0.1, 0.5) == pytest.approx(-0.2)
    for value, first in ((0.4, 0.0), (0.4, -0.1), (None, 0.5), (0.5, None)):
        assert share(value, first) is None
