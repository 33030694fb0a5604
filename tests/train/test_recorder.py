"""`bertjax.train.recorder`: one step late, never a step too few, and no number that is none."""

import numpy as np
import pytest

from bertjax.config.schema import RunConfig
from bertjax.errors import NumericError
from bertjax.progress import Progress
from bertjax.train import metrics
from bertjax.train import recorder as recorder_module
from bertjax.train.guard import Diverged, Skipped
from bertjax.train.metrics import Writer
from bertjax.train.recorder import Rates, Recorder, flat

BATCH = {"segments": np.array([[1, 1, 0, 0]])}


@pytest.fixture
def recorder(tmp_path):
    writer = Writer(tmp_path, start_step=0, tensorboard=False)
    progress = Progress(4, unit="step", label="train")
    yield Recorder(RunConfig(steps=4, log_every=2), writer, progress, Rates(flops=1.0, peak=0.0), Skipped(0, 3))
    writer.close()
    progress.close()


def values(loss, skipped=0.0):
    return {"loss": loss, "grad_norm": 1.0, "mlm": {"loss": loss, "accuracy": 0.5}, "skipped": skipped}


def steps(path):
    return [line["step"] for line in metrics.read(path / metrics.METRICS)]


def test_a_step_is_settled_when_the_next_one_is_there(recorder, tmp_path):
    for step in (1, 2, 3):
        recorder.add(step, values(1.0), BATCH, 0.0)
        assert steps(tmp_path) == ([2] if step == 3 else [])
    recorder.add(4, values(1.0), BATCH, 0.0)
    recorder.flush()
    recorder.flush()
    assert steps(tmp_path) == [2, 4]
    (line, _) = metrics.read(tmp_path / metrics.METRICS)
    assert line["mlm_loss"] == 1.0 and line["mlm_accuracy"] == 0.5 and line["tokens_per_second"] > 0


def test_the_first_step_is_told_and_then_what_is_left(recorder, monkeypatch, capsys):
    now = [recorder._begun]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    for step in (1, 2, 3):
        now[0] += 5.0
        recorder.add(step, values(1.0), BATCH, 0.0)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "first step: 10 s; 3 more, 30 s at that pace"
    assert told[1].startswith("step 2/4  ") and told[1].endswith("  10 s left")


def test_the_first_step_tells_the_time_of_all_phases(recorder, monkeypatch, capsys):
    """Three more steps, of which the last two take as long as ten of those before."""
    now = [recorder._begun]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    recorder._progress.pace(2, 10.0)
    recorder.add(1, values(1.0), BATCH, 0.0)
    now[0] += 5.0
    recorder.flush()
    assert capsys.readouterr().err.splitlines() == ["first step: 5 s; 3 more, 55 s at that pace"]


def test_an_evaluation_is_recorded_under_its_name(recorder, tmp_path):
    recorder.evaluated(3, "eval", {"mlm_loss": 2.0})
    assert metrics.read(tmp_path / metrics.METRICS) == [{"step": 3, "eval_mlm_loss": 2.0}]


def test_what_was_measured_at_a_step_is_known_until_the_next_evaluation(recorder):
    """Of all evaluations of that step, and of no other step."""
    recorder.evaluated(3, "eval", {"mlm_loss": 2.0})
    recorder.evaluated(3, "pairs", {"accuracy": 0.5})
    assert recorder.measured(3) == {"eval_mlm_loss": 2.0, "pairs_accuracy": 0.5}
    assert recorder.measured(4) == {}
    recorder.evaluated(6, "eval", {"mlm_loss": 1.0})
    assert (recorder.measured(3), recorder.measured(6)) == ({}, {"eval_mlm_loss": 1.0})


@pytest.mark.parametrize("bad", [{"loss": np.nan}, {"grad_norm": np.inf}])
def test_a_number_that_is_none_stops_the_run(recorder, bad):
    recorder.add(1, values(1.0) | bad, BATCH, 0.0)
    with pytest.raises(NumericError, match="step 1: .*no longer a number"):
        recorder.flush()


def test_skipped_updates_are_told_and_counted_with_those_of_before(recorder, tmp_path, capsys):
    """What is no number is not logged; and an update that is made ends the row."""
    for step, skipped in ((1, 0.0), (2, 1.0), (3, 1.0), (4, 0.0)):
        recorder.add(step, values(np.nan if skipped else 1.0, skipped), BATCH, 0.0)
        assert recorder.skipped == [Skipped(0, 3), Skipped(0, 3), Skipped(1, 4), Skipped(2, 5)][step - 1]
    recorder.flush()
    assert recorder.skipped == Skipped(0, 5)
    (two, four) = metrics.read(tmp_path / metrics.METRICS)
    assert (two["loss"], two["mlm_loss"], two["mlm_accuracy"], two["skipped"]) == (None, None, 0.5, 4)
    assert (four["loss"], four["skipped"]) == (1.0, 5)
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped, " in line]
    reason = "loss nan, mlm_loss nan: no longer a number; the update is skipped"
    assert told == [f"step {step}: {reason}, {row} in a row (run.skip_limit = 5)" for step, row in ((2, 1), (3, 2))]


@pytest.mark.parametrize(("limit", "last"), [(0, 1), (1, 1), (3, 3)])
def test_so_many_in_a_row_are_too_many(recorder, limit, last):
    recorder._run = RunConfig(steps=9, skip_limit=limit)
    for step in range(1, last + 1):
        recorder.add(step, values(np.inf, skipped=1.0), BATCH, 0.0)
    with pytest.raises(Diverged) as error:
        recorder.flush()
    assert (error.value.step, error.value.skipped) == (last, Skipped(last, 3 + last))
    assert error.value.reason == "loss inf, mlm_loss inf: no longer a number"


def test_names_are_joined_once():
    assert flat({"loss": 3, "mlm": {"loss": 1, "accuracy": 0}}) == {"loss": 3.0, "mlm_loss": 1.0, "mlm_accuracy": 0.0}


def test_rates_count_real_tokens(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    rate = Rates(flops=2e9, peak=2.0)
    rate.add(tokens=300, slots=400, wait=0.5)
    rate.add(tokens=100, slots=400, wait=0.5)
    now[0] += 4.0
    values = rate.take()
    assert values["tokens_per_second"] == 100.0 and values["slots_per_second"] == 200.0
    assert values["mfu"] == 100.0 * 2e9 / 2e12 and values["data_wait"] == 0.25
    assert Rates(flops=1.0, peak=0.0).take()["mfu"] is None


def test_without_a_step_there_is_no_rate():
    assert set(Rates(flops=1.0, peak=1.0).take().values()) == {None}


def test_the_first_step_which_compiles_is_in_no_rate(recorder, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    recorder.add(1, values(1.0), BATCH, 0.0)
    now[0] += 100.0
    recorder.add(2, values(1.0), BATCH, 0.0)
    now[0] += 2.0
    recorder.flush()
    (line,) = metrics.read(tmp_path / metrics.METRICS)
    assert line["step"] == 2 and line["tokens_per_second"] == 1.0
