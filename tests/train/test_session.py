"""`bertjax.train.session`: begun, gone on with, done, and refused where the run is another."""

import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import toy

from bertjax import storage
from bertjax.config.recipe import override
from bertjax.errors import ConfigError, DataError, StorageError, WorkerError
from bertjax.steps import numbers
from bertjax.train import checkpoint, metrics, session
from bertjax.train.state import TrainState
from bertjax.train.task import Evaluation


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of 20 of 60 steps."""
    directory = tmp_path_factory.mktemp("half")
    assert toy.train(directory, override(toy.CONFIG, run={"steps": 20}))
    return directory


def test_three_parts_are_the_whole(half, tmp_path, capsys):
    """Also where a run goes on for the second time: the rows that it has seen are counted from its beginning."""
    assert toy.train(tmp_path)
    assert toy.train(half, override(toy.CONFIG, run={"steps": 40}))
    assert "goes on from step 20" in (shown := capsys.readouterr().err) and "run.steps was 20" in shown
    assert toy.train(half)
    assert "goes on from step 40" in capsys.readouterr().err

    def losses(directory):
        lines = metrics.read(directory / metrics.METRICS)
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    assert losses(half) == losses(tmp_path) and len(losses(half)) == 60
    assert toy.train(half) and "is done, at step 60 of 60" in capsys.readouterr().err


def test_a_cooldown_from_a_checkpoint_is_the_run_that_had_it_from_the_start(tmp_path, capsys):
    """The rate is constant before it, whatever end was planned then; and the run says what is new."""
    stable = override(toy.CONFIG, optim={"power": 1.0, "schedule": "wsd_sqrt"})
    cooled = override(stable, run={"steps": 30}, optim={"decay_steps": 10})
    assert toy.train(tmp_path / "whole", cooled)
    assert toy.train(tmp_path / "parts", override(stable, run={"steps": 20}))
    capsys.readouterr()
    assert toy.train(tmp_path / "parts", cooled)
    told = "optim.decay_steps was 0, run.steps was 20: the schedule now ends at 30, and decays from step 20 on"
    assert told in " ".join(capsys.readouterr().err.split())
    rates = [
        [(line["lr"], line["loss"]) for line in metrics.read(tmp_path / run / metrics.METRICS) if "loss" in line]
        for run in ("whole", "parts")
    ]
    assert rates[0] == rates[1] and len(rates[0]) == 30
    assert [lr for lr, _ in rates[0]][:21] == [rates[0][0][0]] * 21 and rates[0][21][0] < rates[0][20][0]


def test_the_average_of_the_weights_is_what_is_evaluated_and_read(tmp_path):
    """And a run that keeps one goes on exactly: its average is in the checkpoint, beside the weights themselves."""
    averaged = override(toy.CONFIG, optim={"ema": 0.8}, run={"steps": 30})
    slopes = {"evaluations": (Evaluation("slope", 1, lambda params: {"value": float(params["slope"])}),)}
    assert toy.train(tmp_path / "whole", averaged, **slopes)
    assert toy.train(tmp_path / "parts", override(averaged, run={"steps": 17}), **slopes)
    assert toy.train(tmp_path / "parts", averaged, **slopes)
    whole, parts = (
        [line["slope_value"] for line in metrics.read(tmp_path / run / metrics.METRICS) if "slope_value" in line]
        for run in ("whole", "parts")
    )
    assert whole == parts and len(whole) == 30
    abstract = {"slope": np.zeros((), np.float32)}
    assert float(checkpoint.restore_params(tmp_path / "parts" / "checkpoints", abstract).state["slope"]) == whole[-1]
    # The same run without an average has the weights of each step.
    assert toy.train(tmp_path / "plain", override(averaged, optim={"ema": 0.0}), **slopes)
    lines = metrics.read(tmp_path / "plain" / metrics.METRICS)
    weights = [line["slope_value"] for line in lines if "slope_value" in line]
    expected = np.average(weights, weights=0.8 ** np.arange(30)[::-1])
    assert whole[-1] == pytest.approx(expected, rel=1e-5) and abs(whole[10] - weights[10]) > 0.01


def test_a_new_run_may_begin_with_other_parameters(tmp_path):
    assert toy.train(
        tmp_path, override(toy.CONFIG, run={"steps": 1}), begin=lambda fresh: {"slope": fresh["slope"] + 3}
    )
    (line, *_) = metrics.read(tmp_path / metrics.METRICS)
    assert line["loss"] == 0.0


def test_what_a_run_learns_from_may_not_change(half):
    with pytest.raises(DataError, match="this is not the data set that the run was trained with"):
        toy.train(half, override(toy.CONFIG, run={"steps": 99}), identity={"data set": "cosines"})


def test_the_config_that_is_compared_is_that_of_the_step_that_is_restored(half, tmp_path, capsys):
    """One that is damaged says nothing: neither that the run was another, nor that it may be another now."""
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    steps = numbers(tmp_path / "checkpoints")
    file = tmp_path / "checkpoints" / str(steps[-1]) / "config" / "metadata"
    whole = file.read_bytes()
    longer = override(toy.CONFIG, run={"steps": steps[-1] + 3})
    other = override(longer, optim={"lr": 0.5})
    assert b'"lr":0.3' in whole.replace(b" ", b"")
    for damaged in (whole.replace(b"0.3", b"0.4"), whole.replace(b"0.3", b"0.5"), whole[:20]):
        file.write_bytes(damaged)
        assert session.going_on(longer, tmp_path)
        for ask in (session.going_on, lambda config, directory: toy.train(directory, config)):
            with pytest.raises(ConfigError, match=r"^optim\.lr = 0\.5: the run in .* has 0\.3; restore it[^\n]*$"):
                ask(other, tmp_path)
        (tmp_path / "checkpoints" / f"{steps[-1]}.damaged").rename(tmp_path / "checkpoints" / str(steps[-1]))
    capsys.readouterr()
    assert toy.train(tmp_path, longer)
    shown = capsys.readouterr().err
    assert f"{steps[-1]}.damaged" in shown and f"goes on from step {steps[-2]}" in shown


def test_a_copy_of_an_earlier_step_is_not_gone_on_with(half, tmp_path, capsys):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "checkpoints"
    first, last = numbers(checkpoints)[-2:]
    shutil.rmtree(checkpoints / str(last))
    shutil.copytree(checkpoints / str(first), checkpoints / str(last))
    assert toy.train(tmp_path, override(toy.CONFIG, run={"steps": last}))
    shown = capsys.readouterr().err
    assert f"is of step {first}" in shown and f"goes on from step {first}" in shown
    before, after = (
        [(line["step"], line["loss"]) for line in metrics.read(directory / metrics.METRICS) if "loss" in line]
        for directory in (half, tmp_path)
    )
    assert before[:last] == after


def test_a_damaged_log_costs_a_run_nothing_but_the_line(half, tmp_path, capsys):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    log = tmp_path / metrics.METRICS
    before = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*before[:4], before[4].replace(b":", b"\xff", 1), *before[5:]]))
    done = numbers(tmp_path / "checkpoints")[-1]
    assert toy.train(tmp_path, override(toy.CONFIG, run={"steps": done + 1}))
    assert f"{log}: set aside in {metrics.DAMAGED}: 1 line" in capsys.readouterr().err
    after = log.read_bytes().splitlines(keepends=True)
    assert after[: len(before) - 1] == before[:4] + before[5:] and len(after) == len(before) + 1
    assert (tmp_path / "curves.png").exists()


def test_what_is_there_already(half, tmp_path):
    assert session.going_on(toy.CONFIG, half)
    assert not session.going_on(toy.CONFIG, tmp_path)
    with pytest.raises(ConfigError, match="optim.lr = 0.5"):
        session.going_on(override(toy.CONFIG, optim={"lr": 0.5}), half)
    writes = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1)
    writes.save(
        0,
        TrainState(step=np.int32(0), params={"slope": np.float32(1.0)}, opt_state=()),
        identity={"tokenizer": "t"},
        rows=0,
        config=toy.CONFIG,
    )
    writes.close()
    with pytest.raises(ConfigError, match="holds an imported model, not a run"):
        session.going_on(toy.CONFIG, tmp_path)


def test_one_job_at_a_time(tmp_path):
    with storage.locked(tmp_path), pytest.raises(StorageError, match="in use by process"):
        toy.train(tmp_path)


def test_links_in_the_directory_are_not_followed(tmp_path):
    """Whatever a run writes there: a link in its place leads nowhere."""
    victim, run = tmp_path / "victim", storage.make(tmp_path / "run")
    victim.write_text("mine")
    names = ("config.json", "metrics.jsonl", "curves.png")
    for name in names:
        (run / name).symlink_to(victim)
        (run / f".{name}").symlink_to(victim)
    assert toy.train(run, override(toy.CONFIG, run={"steps": 1}))
    assert victim.read_text() == "mine"
    assert all((run / name).is_file() and not (run / name).is_symlink() for name in names)


def failing(step, error=None):
    """Batches of which the one of this step never comes: an error in its place, or else SIGTERM and no end."""

    class Rows(toy.Rows):
        def __next__(self):
            if self._row == (step - 1) * toy.CONFIG.data.batch_size:
                if error:
                    raise error
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(20)
                pytest.fail("the wait was not cut short")
            return super().__next__()

    return Rows


@pytest.mark.parametrize("error", [WorkerError("process 7 has died"), RuntimeError("a bug")])
def test_what_was_learnt_is_saved_before_an_error_of_the_batches(half, tmp_path, error):
    """And the run goes on from there as if nothing had happened."""
    config = override(toy.CONFIG, run={"steps": 20, "save_every": 3})
    with pytest.raises(type(error)) as caught:
        toy.train(tmp_path, config, batches=failing(9, error))
    assert str(caught.value) == (str(error) if type(error) is RuntimeError else f"{error}; step 8 is saved")
    assert numbers(tmp_path / "checkpoints") == [3, 6, 8]
    with pytest.raises(type(error)) as caught:
        toy.train(tmp_path, config, batches=failing(9, error))
    assert str(caught.value) == (str(error) if type(error) is RuntimeError else f"{error}; nothing had to be saved")
    assert toy.train(tmp_path, config)
    assert final(tmp_path) == final(half, 20)


def final(directory, step=None):
    """The losses of a run, up to a step."""
    lines = metrics.read(directory / metrics.METRICS)
    return [line["loss"] for line in lines if "loss" in line and line["step"] <= (step or line["step"])]


@pytest.mark.parametrize(("step", "told"), [(1, "nothing had to be saved"), (5, "step 4 is saved")])
def test_a_signal_while_a_batch_does_not_come(tmp_path, capsys, step, told):
    assert not toy.train(tmp_path, batches=failing(step))
    assert numbers(tmp_path / "checkpoints")[-1:] == [step - 1][: step - 1]
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path}: asked to stop (SIGTERM): {told}"


@pytest.mark.parametrize("step", [7, 20])
def test_a_signal_in_a_step_is_answered_by_what_is_saved(tmp_path, capsys, step):
    """The last step is saved in any case, and the run is done."""

    done = []

    def evaluate(params):
        done.append(params)
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"value": 0.0}

    config = override(toy.CONFIG, run={"steps": 20, "save_every": 0})
    assert toy.train(tmp_path, config, evaluations=(Evaluation("slope", 1, evaluate),)) is (step == 20)
    assert numbers(tmp_path / "checkpoints") == [step]
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path}: asked to stop (SIGTERM): step {step} is saved"


SELECTING = override(toy.CONFIG, run={"steps": 20, "save_every": 0, "eval_every": 2}, optim={"lr": 0.06})
PASSING = {
    "evaluations": (
        Evaluation("dev", 2, lambda params: {"near": -abs(float(params["slope"]) - 1.0)}),
        Evaluation("test", 0, lambda params: {"slope": float(params["slope"])}),
    ),
    "selects": ("dev", "near"),
}
"""The slope is on its way from 0 to 3, and best where it passes 1."""


def logged(directory, *names):
    lines = metrics.read(directory / metrics.METRICS)
    return [tuple(line[name] for name in names) for line in lines if names[-1] in line]


def model_of(directory):
    found = checkpoint.restore_params(directory / "checkpoints", {"slope": np.zeros((), np.float32)})
    return float(found.state["slope"]), found


KEEPING = override(SELECTING, run={"save_every": 2, "keep": 1, "keep_best": "dev_near"})


def judging(on=""):
    return (Evaluation("dev", 2, PASSING["evaluations"][0].function, judges=("near",), on=on),)


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """A run that keeps its best checkpoint, which step that is, and how others of the kind are trained."""
    directory, task = tmp_path_factory.mktemp("keeping"), {"evaluations": judging()}
    task["engine"] = session.Engine(KEEPING, toy.task(**task), toy.sharding.make_mesh(KEEPING.mesh))
    assert toy.train(directory, KEEPING, **task)
    near = dict(logged(directory, "step", "dev_near"))
    best = max(near, key=near.get)
    assert 2 < best < 16 and kept(directory) == ([best, 20], best)
    return directory, best, task


def kept(directory):
    return numbers(directory / "checkpoints"), checkpoint.chosen(directory / "checkpoints", "best")


def best_of(directory):
    found = checkpoint.restore_params(directory / "checkpoints", {"slope": np.zeros((), np.float32)}, step="best")
    return found.step, float(found.state["slope"]), found.judged


def test_a_run_keeps_its_best_checkpoint_wherever_it_is_stopped(keeping, tmp_path):
    """Before it, between two saves; at it; and some saves later, when only it and another are left."""
    whole, best, task = keeping
    for stop in (best - 1, best, best + 4):
        place = tmp_path / str(stop)
        assert not toy.train(place, KEEPING, batches=failing(stop + 1), **task)
        assert toy.train(place, KEEPING, **task)
        assert kept(place) == ([best, 20], best) and best_of(place) == best_of(whole)
    step, slope, judged = best_of(whole)
    assert judged.value == -abs(slope - 1.0) == dict(logged(whole, "step", "dev_near"))[step]


def test_a_run_whose_best_checkpoint_is_damaged_makes_it_again(keeping, tmp_path, capsys):
    """It is set aside while it is the newest, and the run goes on from the one before."""
    whole, best, task = keeping
    assert toy.train(tmp_path, override(KEEPING, run={"steps": best, "keep": 2}), **task)
    assert kept(tmp_path) == ([best - 2, best], best)
    victim = next((tmp_path / "checkpoints" / str(best) / "state").rglob("manifest.ocdbt"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert toy.train(tmp_path, KEEPING, **task)
    assert f"goes on from step {best - 2}" in capsys.readouterr().err
    assert kept(tmp_path) == ([best, 20], best) and best_of(tmp_path) == best_of(whole)


def test_a_run_that_goes_back_keeps_the_best_of_what_is_left(keeping, tmp_path, capsys):
    """The best before it diverged is not lost with what came after."""
    _, best, task = keeping

    class Spoiled(toy.Rows):
        def __next__(self):
            bad = self._row == (best + 4) * toy.CONFIG.data.batch_size
            batch = super().__next__()
            return batch | {"x": batch["x"] * np.nan} if bad else batch

    assert toy.train(tmp_path, override(KEEPING, run={"skip_limit": 1}), batches=Spoiled, **task)
    assert f"goes back to step {best + 4}, and on with row" in capsys.readouterr().err
    assert kept(tmp_path) == ([best, 20], best)


def test_in_a_phase_with_other_rows_the_best_begins_anew(keeping, tmp_path):
    """What was measured on others was nearer, and says nothing of these."""
    _, best, task = keeping
    config = override(KEEPING, phases={"steps": (best + 2, 18 - best)})
    same, other = (toy.task(evaluations=judging(on)) for on in ("", "others"))
    assert toy.train(tmp_path / "same", config, later=(same,), **task)
    assert kept(tmp_path / "same") == ([best, 20], best)
    assert toy.train(tmp_path / "other", config, later=(other,), **task)
    assert kept(tmp_path / "other") == ([best + 4, 20], best + 4)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_run_that_selects_goes_on_to_the_bit_and_leaves_its_best(tmp_path, ema):
    """Stopped before its best evaluation, at it and after it; also where an average is what is evaluated."""
    config = override(SELECTING, optim={"ema": ema})
    assert toy.train(tmp_path / "whole", config, **PASSING)
    for steps in (1, 4, 7, 20):
        assert toy.train(tmp_path / "parts", override(config, run={"steps": steps}), **PASSING)
        assert toy.train(tmp_path / f"part{steps}", override(config, run={"steps": steps}), **PASSING)
        assert toy.train(tmp_path / f"part{steps}", config, **PASSING)
    names = ("step", "loss"), ("step", "dev_near", "dev_best_near", "dev_best_step")
    for place in ("part4", "part20"):
        assert all(logged(tmp_path / place, *name) == logged(tmp_path / "whole", *name) for name in names)
    target = session.Engine(config, toy.task(**PASSING), toy.sharding.make_mesh(config.mesh)).shapes
    whole, *others = (
        checkpoint.restore(tmp_path / place / "checkpoints", target).state for place in ("whole", "part4", "part20")
    )
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, whole, other)
    near = dict(logged(tmp_path / "whole", "step", "dev_near"))
    best = max(near, key=near.get)
    slope, found = model_of(tmp_path / "whole")
    assert 2 < best < 20 and found.best == (best, pytest.approx(near[best], rel=1e-6)) and found.step == 20
    assert -abs(slope - 1.0) == near[best] and logged(tmp_path / "whole", "test_slope") == [(slope,)]
    assert float(whole.params["slope"]) > 2.0, "training went on"


def test_a_run_that_ended_by_patience_is_done(tmp_path, capsys):
    config = override(SELECTING, task={"patience": 2})
    assert toy.train(tmp_path, config, **PASSING)
    (end,) = numbers(tmp_path / "checkpoints")
    best = model_of(tmp_path)[1].best[0]
    assert end == best + 4 < 20 and "(task.patience = 2); the run ends" in capsys.readouterr().err
    before = (tmp_path / metrics.METRICS).read_bytes()
    assert toy.train(tmp_path, config, batches=None, **PASSING)
    assert f"is done, at step {end} of 20: no better evaluation than" in capsys.readouterr().err
    assert (tmp_path / metrics.METRICS).read_bytes() == before
    # More patience goes on, and is the run that had it from the start.
    assert toy.train(tmp_path, override(config, task={"patience": 4}), **PASSING)
    assert toy.train(tmp_path / "patient", override(config, task={"patience": 4}), **PASSING)
    assert logged(tmp_path, "step", "dev_near") == logged(tmp_path / "patient", "step", "dev_near")
    assert numbers(tmp_path / "checkpoints")[-1] == best + 8


def test_a_run_that_goes_by_its_last_weights(tmp_path):
    assert toy.train(tmp_path, override(SELECTING, task={"select": "last"}), **PASSING)
    slope, found = model_of(tmp_path)
    assert found.best[0] < 20 and logged(tmp_path, "test_slope") == [(slope,)]
    assert logged(tmp_path, "step", "dev_near")[-1] == (20, -abs(slope - 1.0))


def test_a_run_before_its_first_evaluation_has_the_weights_that_it_has(tmp_path):
    """None was best yet, and zeros are no model."""
    assert not toy.train(tmp_path, SELECTING, batches=failing(2), **PASSING)
    slope, found = model_of(tmp_path)
    assert found.step == 1 and found.best is None and slope == pytest.approx(0.19, abs=0.01)
