"""`bertjax.finetuning.sweep`: many runs as one command, which goes on wherever it was; the best is the model."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import swept
from swept import CONFIG, Rows, stored, task

from bertjax.config.recipe import override
from bertjax.errors import ConfigError, DataError, NumericError, StorageError
from bertjax.finetuning import sweep
from bertjax.train import checkpoint, metrics, session

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def numbers(results):
    """What a sweep found, without what the clock says."""
    return [(one.name, one.steps, one.step, one.value, one.metrics) for one in results.points]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed sweep: its results, its directory, and how many programs had been compiled when each run began."""
    directory, begun = tmp_path_factory.mktemp("whole"), []

    def task_of(config):
        begun.append(len(COMPILED))
        return task(config)

    return swept.run(directory, task_of=task_of), directory, [*begun, len(COMPILED)]


def test_runs_of_other_rates_seeds_and_lengths_compile_nothing(whole):
    results, _, compiled = whole
    assert len(results.points) == 8 and compiled[1] > compiled[0]
    assert set(compiled[1:]) == {compiled[1]}


def test_each_run_is_what_it_is_alone(whole, tmp_path):
    results, directory, _ = whole
    for name, config in (sweep.points(CONFIG, swept.resolved)[i] for i in (0, 3)):
        mesh = swept.sharding.make_mesh(config.mesh, jax.devices()[:1])
        assert session.train(config, task(config), tmp_path / name, mesh)
        alone, swept_too = (
            [(line["step"], line.get("loss"), line.get("dev_score")) for line in metrics.read(place / metrics.METRICS)]
            for place in (tmp_path / name, directory / "points" / name)
        )
        assert alone == swept_too and alone
        (result,) = (one for one in results.points if one.name == name)
        scores = {step: value for step, _, value in alone if value is not None}
        assert result.value == max(scores.values()) and scores[result.step] == result.value
        assert result.step < result.steps == config.run.steps, "which was not the last"
        assert result.metrics["dev_score"] == result.value == pytest.approx(result.metrics["test_score"], abs=1e-6)


def test_the_best_combination_is_that_of_the_best_median_and_its_best_run_the_model(whole):
    results, directory, _ = whole
    medians = {}
    for one in results.points:
        medians.setdefault((one.lr, one.epochs), []).append(one.value)
    assert len(medians) == 4 and all(len(values) == 2 for values in medians.values())
    best = max(medians, key=lambda key: statistics.median(medians[key]))
    assert (results.best.lr, results.best.epochs) == best == (results.winner.lr, results.winner.epochs)
    assert results.winner.value == max(medians[best])
    slope, found = stored(directory)
    assert -abs(slope - 1.0) == pytest.approx(results.winner.value, abs=1e-6)
    assert (found.config["run"]["seed"], found.step) == (results.winner.seed, results.winner.steps)
    written = json.loads((directory / sweep.SUMMARY).read_text())
    assert written["winner"]["name"] == results.winner.name and len(written["points"]) == 8
    assert (directory / sweep.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_trains_nothing(whole, capsys):
    results, directory, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (directory / "checkpoints").rglob("*")}
    again = swept.run(directory, task_of=lambda config: task(config, rows=None))
    assert again == results and before == {p: p.stat().st_mtime_ns for p in (directory / "checkpoints").rglob("*")}
    assert capsys.readouterr().err == ""


def test_only_the_weights_of_the_winner_stay(whole):
    results, directory, _ = whole
    left = {path.parents[1].name for path in directory.glob("points/*/checkpoints/*")}
    assert left == {results.winner.name}


def test_a_sweep_may_grow(whole, tmp_path):
    """What is done is not done again; and where the best is one whose weights are gone, it is trained once more."""
    results, directory, _ = whole
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    more = override(CONFIG, sweep={"seeds": (0, 1, 3)})
    trained = []

    def task_of(config):
        return task(config, rows=lambda *where: trained.append(config.run.seed) or Rows(*where))

    grown = swept.run(tmp_path, more, task_of)
    assert set(trained) == {3} or set(trained) == {3, grown.winner.seed}
    assert len(grown.points) == 12
    assert [one for one in numbers(grown) if "seed3" not in one[0]] == numbers(results)
    epochs = 2.5 - results.best.epochs
    less = override(CONFIG, sweep={"lr": (results.best.lr,), "seeds": (0, 1), "epochs": (epochs,)})
    trained.clear()
    other = swept.run(tmp_path, less, task_of)
    assert trained == [other.winner.seed], "it had lost before"
    slope, found = stored(tmp_path)
    assert -abs(slope - 1.0) == pytest.approx(other.winner.value, abs=1e-6)
    assert found.config["task"]["epochs"] == other.winner.epochs != results.winner.epochs


def stopping(seed, row):
    """Rows of which one asks the process to stop, in the runs of this seed."""

    class Stopping(Rows):
        def __next__(self):
            if self.config.run.seed == seed and self.row >= row:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    return Stopping


def test_a_sweep_that_is_asked_to_stop_goes_on_in_the_middle_of_a_run(whole, tmp_path, capsys):
    results, _, _ = whole
    stopped = swept.run(tmp_path, task_of=lambda config: task(config, rows=stopping(1, 5 * CONFIG.data.batch_size)))
    assert stopped is None and not (tmp_path / "checkpoints").exists()
    assert len(list(tmp_path.glob("points/*/result.json"))) == 4
    (half,) = (path.parents[1] for path in tmp_path.glob("points/*seed1/checkpoints/5"))
    assert "asked to stop (SIGTERM): step 5 is saved" in capsys.readouterr().err
    assert numbers(swept.run(tmp_path)) == numbers(results)
    assert f"{half}: goes on from step 5" in capsys.readouterr().err
    assert json.loads((half / "result.json").read_text())["result"]["began"] == 5


def test_a_sweep_that_is_killed_goes_on(whole, tmp_path):
    results, _, _ = whole
    script = [sys.executable, swept.__file__, str(tmp_path), "0.2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    process = subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    try:
        # Until the second run has something to go on from.
        while len(list(tmp_path.glob("points/*/checkpoints/[0-9]/manifest.json"))) < 2 or not list(
            tmp_path.glob("points/*/result.json")
        ):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert len(list(tmp_path.glob("points/*/result.json"))) < 8
    again = swept.run(tmp_path)
    assert numbers(again) == numbers(results)
    assert stored(tmp_path)[0] == stored(whole[1])[0]


class Killed(BaseException):
    """The process would have ended here."""


def killed(*_, **__):
    raise Killed


@pytest.mark.parametrize("moment", ["copied", "removed", "put", "told"])
def test_a_sweep_that_is_killed_while_the_model_is_put_in_place(whole, tmp_path, monkeypatch, moment):
    """Then there is the old model, or the new one, or none; and the same command makes it right."""
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    other = override(CONFIG, sweep={"seeds": (5,), "lr": (0.4,), "epochs": (1.0,)})
    rename = Path.rename

    def renamed(path, target):
        if path.name.startswith(".checkpoints" if moment == "removed" else "checkpoints"):
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        where, name = {"copied": (shutil, "copytree"), "told": (sweep, "_write_summary")}.get(moment, (Path, "rename"))
        patch.setattr(where, name, renamed if where is Path else killed)
        with pytest.raises(Killed):
            swept.run(tmp_path, other)
    there = {"copied": (0, 1), "put": (0, 1), "told": (5,)}
    assert (tmp_path / "checkpoints").exists() == (moment in there)
    if moment in there:
        assert stored(tmp_path)[1].config["run"]["seed"] in there[moment]
    assert swept.run(tmp_path, other).winner.seed == 5 == stored(tmp_path)[1].config["run"]["seed"]
    assert not list(tmp_path.glob(".checkpoints*"))


def test_a_run_that_diverges_is_a_result(tmp_path, capsys):
    """With the highest rates the loss overflows: the sweep goes on, and is not asked to try again."""
    config = override(CONFIG, sweep={"lr": (0.05, 1e38), "seeds": (0, 1), "epochs": (1.0,)})
    results = swept.run(tmp_path, config)
    lost = [one for one in results.points if one.value is None]
    assert {one.lr for one in lost} == {1e38} and len(lost) == 2 and "no longer" in lost[0].failed
    assert results.winner.lr == 0.05 and "2 diverged" in results.table()
    assert "has diverged" in capsys.readouterr().err
    assert swept.run(tmp_path, config) == results
    with pytest.raises(NumericError, match="every run of the sweep has diverged, the first one thus: "):
        swept.run(tmp_path / "all", override(config, sweep={"lr": (1e38,)}))


def test_what_was_done_with_other_data_or_settings_is_refused(whole, tmp_path):
    _, directory, _ = whole
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    with pytest.raises(DataError, match="lr0.05_epochs1.0_seed0: this is not the data set that the run was trained"):
        swept.run(tmp_path, task_of=lambda config: task(config, identity={"data set": "other"}))
    with pytest.raises(ConfigError, match="optim.weight_decay = 0.5: the run in .*lr0.05_epochs1.0_seed0 has 0.0"):
        swept.run(tmp_path, override(CONFIG, optim={"weight_decay": 0.5}))


def test_a_damaged_result_costs_no_training(whole, tmp_path, capsys):
    results, directory, _ = whole
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    place = tmp_path / "points" / results.winner.name / "result.json"
    place.write_text(place.read_text().replace('"steps": ', '"steps": 1'))
    again = swept.run(tmp_path, task_of=lambda config: task(config, rows=None))
    assert numbers(again) == numbers(results)
    assert "damaged, or of another version" in (shown := capsys.readouterr().err) and "is done, at step" in shown


def test_a_directory_with_a_run_of_its_own_is_no_place_for_a_sweep(tmp_path):
    name, config = sweep.points(CONFIG, swept.resolved)[0]
    assert session.train(config, task(config), tmp_path, swept.sharding.make_mesh(config.mesh, jax.devices()[:1]))
    with pytest.raises(ConfigError, match="holds a run, not a sweep; name another --workdir"):
        swept.run(tmp_path)


def test_one_sweep_at_a_time(tmp_path):
    from bertjax import storage

    with storage.locked(tmp_path), pytest.raises(StorageError, match="in use by process"):
        swept.run(tmp_path)


def test_points_are_all_combinations_once_with_what_follows_from_them():
    config = override(CONFIG, sweep={"lr": (1e-5, 3e-05, 1e-5), "epochs": (), "seeds": (7, 8)}, task={"epochs": 2.0})
    found = sweep.points(config, swept.resolved)
    assert [name for name, _ in found] == [
        f"lr{lr}_epochs2.0_seed{seed}" for seed in (7, 8) for lr in ("1e-05", "3e-05")
    ]
    assert [(one.optim.lr, one.run.seed, one.run.steps) for _, one in found][:2] == [(1e-5, 7, 16), (3e-5, 7, 16)]
    assert all(one.sweep == type(one.sweep)() for _, one in found)


def test_runs_that_go_by_their_last_weights(tmp_path):
    config = override(CONFIG, task={"select": "last"}, sweep={"lr": (0.4,), "epochs": (1.5,), "seeds": (0, 1)})
    results = swept.run(tmp_path, config)
    for one in results.points:
        lines = metrics.read(tmp_path / "points" / one.name / metrics.METRICS)
        assert one.step == one.steps == 12 and one.value == [x["dev_score"] for x in lines if "dev_score" in x][-1]
    assert -abs(stored(tmp_path)[0] - 1.0) == pytest.approx(results.winner.value, abs=1e-6)
    assert checkpoint.saved(tmp_path / "checkpoints").best[1] >= results.winner.value - 1e-6


def test_runs_of_another_shape_are_not_given_the_same_program(tmp_path):
    names = sweep.points(CONFIG, swept.resolved)
    other = override(names[1][1], optim={"weight_decay": 0.5})
    mesh = swept.sharding.make_mesh(CONFIG.mesh, jax.devices()[:1])
    with pytest.raises(ValueError, match="differ in more than their points"):
        sweep.run([names[0], ("other", other)], task, tmp_path, mesh)


def test_a_log_that_has_lost_the_value_is_named(tmp_path, monkeypatch):
    config = override(CONFIG, sweep={"lr": (0.4,), "epochs": (1.0,), "seeds": (0,)})
    monkeypatch.setattr(metrics, "read", lambda path: [])
    with pytest.raises(DataError, match=r"metrics\.jsonl: has no dev_score of step \d+; remove that directory"):
        swept.run(tmp_path, config)
