"""`bertjax.train.task`: the engine trains whatever it is given."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import toy

from bertjax.config.phases import phases
from bertjax.config.recipe import override
from bertjax.errors import ConfigError, OutOfMemory
from bertjax.train import metrics
from bertjax.train.checkpoint import Judged
from bertjax.train.task import Evaluation, Stage


def test_a_task_that_is_no_language_model_is_learnt(tmp_path):
    assert toy.train(tmp_path)
    lines = metrics.read(tmp_path / metrics.METRICS)
    errors = [line["slope_error"] for line in lines if "slope_error" in line]
    assert len(errors) == 3 and errors[-1] < 0.1 * toy.SLOPE and errors == sorted(errors, reverse=True)
    losses = [line["squares_loss"] for line in lines if "squares_loss" in line]
    assert losses[-1] < 0.05 * losses[0]
    assert (tmp_path / "curves.png").exists()


def test_a_model_is_judged_by_a_number_that_an_evaluation_names_for_it():
    """By its name in metrics.jsonl; another is refused with those that would do."""
    task = toy.task(
        evaluations=(
            Evaluation("eval", 5, dict, judges=("mlm_loss", "gain"), on="short rows"),
            Evaluation("pairs", 5, dict, judges=("accuracy",), on="sentences"),
        )
    )
    values = {"eval_mlm_loss": 2.0, "eval_unigram_loss": 3.0, "pairs_accuracy": 0.75}
    assert task.judged("eval_mlm_loss", values) == Judged("eval_mlm_loss", 2.0, "short rows")
    assert task.judged("pairs_accuracy", values) == Judged("pairs_accuracy", 0.75, "sentences")
    assert task.judged("eval_gain", values) is None and task.judged("", values) is None
    for name in ("", "eval_mlm_loss", "pairs_accuracy"):
        task.check_judge(name)
    for name in ("eval_unigram_loss", "mlm_loss", "eval", "pairs_mlm_loss"):
        with pytest.raises(ConfigError, match=f"^run.keep_best = '{name}': .*; name one of eval_mlm_loss, eval_gain, "):
            task.check_judge(name)
    with pytest.raises(ConfigError, match="set it to ''$"):
        toy.task().check_judge("slope_error")


class Room:
    """Compiles in no time, or raises what it is told to raise, and counts."""

    def __init__(self, *errors):
        self.errors, self.asked = list(errors), 0

    def ready(self, phase, task, step, state):
        self.asked += 1
        if self.errors and (error := self.errors.pop(0)):
            raise error
        step.programs += 1

    def told(self, phase, task):
        return nullcontext()


class Step:
    programs = 0

    def compiles(self):
        return self.programs


class Closed(toy.Rows):
    """Rows that note when they are closed."""

    def __init__(self, row):
        super().__init__(row)
        self.closed = threading.Event()

    def close(self):
        self.closed.set()


def second(room):
    config = override(toy.CONFIG, phases={"steps": (40, 20)})
    return Stage(phases(config)[1], toy.task(batches=Closed), Step(), None, room)


def wait(get):
    return get()


def test_a_stage_is_compiled_once_ahead_or_when_it_begins(capsys):
    for ahead in (True, False):
        stage = second(room := Room())
        if ahead:
            stage.compile_ahead()
        stage.compile(wait)
        stage.compile_ahead()
        stage.compile(wait)
        assert (room.asked, stage.step.programs) == (1, 1)
    assert capsys.readouterr().err == ""


def test_what_fails_ahead_is_told_and_tried_again_when_the_stage_begins(capsys):
    stage = second(room := Room(RuntimeError("the compiler is\ngone")))
    stage.compile_ahead()
    stage.compile(wait)
    assert (room.asked, stage.step.programs) == (2, 1)
    told = "phase 2 of 2: its step was not compiled ahead (the compiler is gone): it is now\n"
    assert capsys.readouterr().err == told


def test_what_does_not_fit_is_told_at_once_and_ends_the_run_when_it_begins(capsys):
    stage = second(room := Room(OutOfMemory("phase 2 of 2: too large")))
    stage.compile_ahead()
    with pytest.raises(OutOfMemory, match="phase 2 of 2: too large$"):
        stage.compile(wait)
    told = "phase 2 of 2: too large; the run goes on to step 40, is saved and ends there\n"
    assert capsys.readouterr().err == told and room.asked == 1


def test_batches_that_were_opened_ahead_are_used_or_closed():
    """Used for the row that is asked for; closed if it is another, as after going back, or none is."""
    stage = second(None)
    stage.open_ahead(8)
    (_, opened) = stage._opening
    assert stage.batches(8, wait) is opened.result() and not opened.result().closed.is_set()
    stage.open_ahead(8)
    (_, opened) = stage._opening
    assert next(stage.batches(16, wait))["x"][0] == np.sin(np.float32(16))
    assert opened.result().closed.wait(10)
    stage.open_ahead(24)
    (_, opened) = stage._opening
    stage.close()
    assert opened.result().closed.wait(10)
