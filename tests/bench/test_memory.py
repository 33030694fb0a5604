"""`bertjax.bench.memory`: what is told of a step is what its process takes, and the largest batch that fits does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import directories
import jax
import light
import pytest
from small import tiny

from bertjax import batch
from bertjax.bench import memory
from bertjax.config.recipe import override
from bertjax.errors import ConfigError
from bertjax.tasks import fit

LONG = pytest.mark.long
MB = 10**6


def process(recipe, sections, available=0):
    """What a process on one device was told that training takes, and what it took; see peak.py."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    arguments = [recipe, json.dumps(sections), str(available)]
    command = [sys.executable, str(Path(__file__).with_name("peak.py")), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@LONG
@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        ("bert:mini", {"batch_size": 16}),
        ("albert:base", {"batch_size": 4, "seq_len": 128}),
        ("modernbert:17m", {"batch_size": 4, "seq_len": 512, "buckets": []}),
    ],
)
def test_a_process_takes_what_was_told(recipe, data):
    """The peak of the whole process, within 15 %: what it held when the step was compiled, and the step."""
    told = process(recipe, {"data": data})
    assert told["peak"] == pytest.approx(told["before"] + told["step"], rel=0.15)


@LONG
def test_the_largest_batch_that_fits_does():
    told = process("quickstart", {}, 600 * MB)
    assert told["rows"] > 100 and 0.95 * 600 * MB < told["training"] <= 600 * MB
    assert 0.7 * told["step"] < told["peak"] - told["before"] <= 600 * MB / memory.memory.SHARE


def test_a_batch_is_a_multiple_of_devices_and_parts(monkeypatch):
    monkeypatch.setattr(memory, "pretraining", light.task)
    unit = 2 * len(jax.devices())
    config = override(light.CONFIG, optim={"accumulate": 2})
    small, large = (memory.largest_batch(config, available) for available in (3 * MB, 9 * MB))
    assert 0 < 2 * small < large and small % unit == large % unit == 0
    assert memory.largest_batch(config, 1000) == 0


def test_a_plan_is_measured_and_its_step_kept(monkeypatch):
    monkeypatch.setattr(memory, "pretraining", light.task)
    plan = memory.plan(light.CONFIG)
    found = memory.measured(plan)
    assert plan.engine.step.compiles() == 1 and found.step < found.training < found.free


def test_what_is_free_must_be_known(monkeypatch):
    monkeypatch.setattr(memory, "pretraining", light.task)
    monkeypatch.setattr(memory.memory, "free", lambda mesh: None)
    with pytest.raises(ConfigError, match="cpu: does not tell what memory is free; give data.batch_size"):
        memory.largest_batch(light.CONFIG)


@pytest.mark.parametrize("kind", ["classify", "regress", "tag", "span", "choice"])
def test_a_task_with_labels_is_planned_with_its_head(kind):
    """Its step takes the rows of its kind, with two labels where it names none."""
    task = {"kind": kind, "train": ("x",), "max_question": 8} | ({"endings": ("a", "b")} if kind == "choice" else {})
    made = memory.plan(tiny(task=task, model={"num_layers": 1}, data={"packing": 2}))
    model, shapes = made.config.model, fit.shapes(made.config, 8)
    assert len(model.labels) == 2 or kind not in ("classify", "tag")
    assert "mlm_head" not in model.heads
    assert shapes.keys() == batch.synthetic(made.config).keys() and made.task.terms.keys() == {kind}
    made.engine.step.lower(made.engine.shapes, shapes)
    named = memory.plan(tiny(task=task | {"labels": ("a", "b", "c")})) if kind == "tag" else None
    assert named is None or named.config.model.labels == ("a", "b", "c")


def test_a_task_with_labels_is_planned_on_its_model(tmp_path):
    source = directories.write(tmp_path / "model")
    task = {"kind": "classify", "train": ("x",)}
    made = memory.plan(tiny(task=task, run={"init_from": str(source)}, model={"hidden_size": 64, "embedding_size": 64}))
    assert made.config.model.hidden_size == 32
