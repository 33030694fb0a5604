"""The whole path on a real, small corpus: train, stop, be killed, go on exactly, evaluate."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small import one_device_mesh, shapes_of_state, tiny

from bertjax import signals, storage
from bertjax.config.recipe import override, to_dict
from bertjax.corpus import prepare
from bertjax.corpus.units import documents
from bertjax.data.batches import Course
from bertjax.data.order import seed_of_phase
from bertjax.errors import PREEMPTED, CheckpointError, ConfigError, DataError, NumericError, StorageError, UserError
from bertjax.model.network import abstract_params
from bertjax.steps import numbers
from bertjax.tasks import fit
from bertjax.tasks import pretrain as pretraining
from bertjax.tasks.evaluate import evaluate
from bertjax.tasks.pretrain import pretrain
from bertjax.train import checkpoint, metrics, workdir
from bertjax.train.recorder import Recorder
from bertjax.train.state import TrainState
from bertjax.trained.load import load
from bertjax.vocabulary.unigram import train_sentencepiece

TIMES = {"tokens_per_second", "slots_per_second", "steps_per_second", "data_wait", "mfu"}


def log(directory):
    """The metrics without what the clock says."""
    lines = metrics.read(directory / metrics.METRICS)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def final_state(config, directory):
    """The newest checkpoint as NumPy arrays."""
    restored = checkpoint.restore(directory / "checkpoints", shapes_of_state(config, one_device_mesh(config)))
    return restored.step, (restored.identity, restored.rows), jax.device_get(restored.state)


def assert_same_run(config, one, other):
    """Final parameters, optimizer state, data position and every logged metric, to the last bit."""
    assert log(one) == log(other)
    (step, position, state), (other_step, other_position, other_state) = (final_state(config, d) for d in (one, other))
    assert (step, position) == (other_step, other_position)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.tobytes(), b.tobytes()), state, other_state)


def test_a_run_leaves_what_it_promises(trained):
    config, directory = trained
    lines = metrics.read(directory / metrics.METRICS)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4, 5, 6]
    named = {"loss", "mlm_loss", "mlm_accuracy", "pair_loss", "pair_accuracy", "lr", "grad_norm"} | TIMES
    assert named <= set(training[0])
    evaluations = [line for line in lines if "eval_mlm_loss" in line]
    assert [line["step"] for line in evaluations] == [3, 6]
    assert {"eval_mlm_accuracy", "eval_pair_loss", "eval_pair_accuracy", "eval_unigram_loss"} <= set(evaluations[0])
    assert numbers(directory / "checkpoints") == [3, 6]
    assert json.loads((directory / "config.json").read_text()) == to_dict(config)
    assert (directory / "curves.png").stat().st_size > 10_000
    assert final_state(config, directory)[1][1] == 6 * config.data.batch_size


def test_a_finished_run_says_so_and_changes_nothing(trained, capsys):
    config, directory = trained
    before = (directory / metrics.METRICS).read_bytes()
    assert pretrain(config, directory)
    assert "is done, at step 6 of 6" in capsys.readouterr().err
    assert (directory / metrics.METRICS).read_bytes() == before


def stopping(monkeypatch, step):
    """From here on a run is sent SIGTERM during this step."""
    flush = Recorder.flush

    def terminate(self):
        if self._pending and self._pending[0] == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        flush(self)

    monkeypatch.setattr(Recorder, "flush", terminate)


def test_stopping_half_way_changes_nothing(trained, tmp_path, monkeypatch):
    """SIGTERM during step 2: the run saves there, says so, and goes on to the same end."""
    config, undisturbed = trained
    stopping(monkeypatch, 2)
    before = signal.getsignal(signal.SIGTERM)
    assert pretrain(config, tmp_path) is False
    assert signal.getsignal(signal.SIGTERM) is before
    assert numbers(tmp_path / "checkpoints") == [2]
    monkeypatch.undo()
    assert pretrain(config, tmp_path) is True
    assert_same_run(config, undisturbed, tmp_path)


def test_a_recipe_with_everything_that_changes_over_a_run_goes_on_exactly(inputs, tmp_path, monkeypatch):
    """Two optimizers in one, an average, a cooldown and a falling mask rate. What is evaluated afterwards, exported or
    begun with is the average that was evaluated last.
    """
    optim = {"name": "muon", "ema": 0.7, "schedule": "wsd_sqrt", "decay_steps": 2, "final_lr": 0.1, "lr": 5e-3}
    masks = {"mask_rate": 0.4, "final_mask_rate": 0.1, "max_predictions": 13}
    config = tiny(data=inputs | masks, model={"num_layers": 1}, objective={"z": 1e-2}, optim=optim, run={"steps": 5})
    add, shares = Recorder.add, []

    def noting(self, step, values, batch, waited):
        shares.append(batch["mlm_weights"].sum() / (batch["segments"] > 0).sum())
        add(self, step, values, batch, waited)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", noting)
        assert pretrain(config, tmp_path / "whole")
    np.testing.assert_allclose(shares, 0.4 - 0.3 * (np.arange(5) + 0.4) / 5, atol=0.03)
    stopping(monkeypatch, 2)
    assert not pretrain(config, tmp_path / "halves")
    monkeypatch.undo()
    assert pretrain(config, tmp_path / "halves")
    assert_same_run(config, tmp_path / "whole", tmp_path / "halves")
    lines = {line["step"]: line for line in log(tmp_path / "whole") if "loss" in line}
    for line in lines.values():
        assert line["loss"] == pytest.approx(line["mlm_loss"] + line["pair_loss"] + 1e-2 * line["z_loss"], rel=1e-5)
    (last,) = [line for line in log(tmp_path / "whole") if "eval_mlm_loss" in line and line["step"] == 5]
    found = evaluate(config, tmp_path / "whole")
    assert found["mlm_loss"] == pytest.approx(last["eval_mlm_loss"], rel=1e-6)
    state = final_state(config, tmp_path / "whole")[2]
    loaded = load(tmp_path / "whole").params
    jax.tree.map(np.testing.assert_array_equal, loaded, state.trained)
    assert not np.array_equal(loaded["pooler"]["kernel"], state.params["pooler"]["kernel"])


PHASES = {
    "data": {"seq_len": 16, "max_predictions": 3, "mask_rate": 0.1, "final_mask_rate": 0.15},
    "phases": {"steps": (4, 4), "seq_len": (16, 32), "batch_size": (8, 16), "max_predictions": (3, 5)},
    "run": {"steps": 8, "eval_every": 2, "save_every": 6},
}
"""A run of two phases, with one schedule of its rate through both, and one course of its mask rate."""


@pytest.fixture(scope="module")
def phased(inputs, tmp_path_factory):
    """Its config, where it was made, what was told, the shapes of its batches, the step of each phase, and what data
    each asked for.
    """
    sections = PHASES | {"data": inputs | PHASES["data"]}
    config, directory = tiny(model={"num_layers": 1}, **sections), tmp_path_factory.mktemp("phased")
    add, ready, batches = Recorder.add, fit.Room.ready, pretraining.train_batches
    shapes, steps, told, asked = [], [], [], []

    def noting(self, step, values, batch, waited):
        shapes.append(batch["tokens"].shape)
        add(self, step, values, batch, waited)

    def compiling(self, phase, task, step, state):
        steps.append((phase.number, threading.current_thread(), step))
        ready(self, phase, task, step, state)

    def opening(data, *arguments, seed, course, start_row, **more):
        asked.append((data.seq_len, seed, course, start_row))
        return batches(data, *arguments, seed=seed, course=course, start_row=start_row, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "add", noting)
        patch.setattr(fit.Room, "ready", compiling)
        patch.setattr(pretraining, "train_batches", opening)
        patch.setattr("bertjax.console.say", told.append)  # as its progress says it
        assert pretrain(config, directory)
    return config, directory, told, shapes, steps, asked


def test_a_run_in_two_phases(phased):
    """Each compiled once, the second while the first trains; rows of its own length, also where it is evaluated; one
    schedule goes through both.
    """
    config, directory, told, shapes, steps, asked = phased
    assert shapes == [(8, 16)] * 4 + [(16, 32)] * 4
    # The second begins with its own row 0, and half-way through the course of the mask rate.
    assert asked == [(16, 0, Course(0, 8 * 8), 0), (32, seed_of_phase(0, 2), Course(4 * 16, 8 * 16), 0)]
    (one, thread, first), (two, other, second) = steps
    assert (one, two) == (1, 2) and thread is threading.main_thread() is not other
    assert first.compiles() == second.compiles() == 1
    lines = metrics.read(directory / metrics.METRICS)
    assert [line for line in lines if "phase" in line] == [{"step": 5, "phase": 2, "batch_size": 16, "seq_len": 32}]
    (line,) = [line for line in told if "phase" in line]
    assert re.fullmatch(r"step 5: phase 2 of 2, 4 steps of 16 rows of 32 tokens; ready after [\d.]+ s", line)
    rates = [line["lr"] for line in lines if "loss" in line]
    expected = [min(s / 2, 1) * (1 - s / 8 if s >= 2 else 1) * 1e-3 for s in range(8)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert final_state(config, directory)[1][1] == 4 * 16
    evaluated = [line["eval_mlm_loss"] for line in lines if "eval_mlm_loss" in line]
    assert len(evaluated) == 4 and evaluate(config, directory)["mlm_loss"] == pytest.approx(evaluated[-1], rel=1e-6)
    assert numbers(directory / "checkpoints") == [4, 6, 8]
    # A step that is named is evaluated in its own phase.
    assert evaluate(config, directory, 4)["mlm_loss"] == pytest.approx(evaluated[1], rel=1e-6)


def test_a_run_that_is_stopped_in_each_phase_changes_nothing(phased, tmp_path, monkeypatch):
    """In the first, between the two, and in the second; and what is over may not change any more."""
    config, undisturbed, *_ = phased
    for step in (2, 4, 6):
        stopping(monkeypatch, step)
        assert pretrain(config, tmp_path) is False
        assert numbers(tmp_path / "checkpoints")[-1] == step
        monkeypatch.undo()
    other = override(config, phases={"steps": (3, 5)})
    with pytest.raises(ConfigError, match=r"^phases\.steps = \(3, 5\): the run is in phase 2 and had \(4,\) before"):
        pretrain(other, tmp_path)
    assert pretrain(config, tmp_path) is True
    assert_same_run(config, undisturbed, tmp_path)


def test_a_distillation_run_goes_on_exactly(inputs, trained, tmp_path, monkeypatch):
    """A student of two of the four layers; the teacher is read again, and must be the same."""
    _, directory = trained
    teacher = {"path": str(directory), "tokens": "masked"}
    objective = {"soft": 5.0, "mlm": 2.0, "pair": 0.0, "cosine": 1.0}
    run = {"steps": 3, "eval_every": 0, "init_from": str(directory)}
    config = tiny(data=inputs, model={"num_layers": 2}, objective=objective, teacher=teacher, run=run)
    assert pretrain(config, tmp_path / "whole")
    first = log(tmp_path / "whole")[0]
    parts = sum(weight * first[f"{name}_loss"] for name, weight in objective.items() if weight)
    assert first["loss"] == pytest.approx(parts, rel=1e-5)
    assert "eval_mlm_loss" in log(tmp_path / "whole")[-1] | log(tmp_path / "whole")[-2]
    stopping(monkeypatch, 2)
    assert not pretrain(config, tmp_path / "halves")
    monkeypatch.undo()
    other = tmp_path / "other"
    shutil.copytree(directory, other)
    with pytest.raises(ConfigError, match="teacher.path"):
        pretrain(override(config, teacher={"path": str(other)}), tmp_path / "halves")
    assert pretrain(config, tmp_path / "halves")
    assert_same_run(config, tmp_path / "whole", tmp_path / "halves")


def test_a_damaged_checkpoint_is_set_aside(trained, tmp_path, capsys):
    """The newest one of a run that stopped is damaged: it goes on from the one before, to the same end."""
    config, undisturbed = trained
    pretrain(override(config, run={"steps": 4, "save_every": 2}), tmp_path)
    victim = max((tmp_path / "checkpoints" / "4").rglob("*"), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=victim.name):
        evaluate(config, tmp_path)
    pretrain(override(config, run={"steps": 4, "save_every": 2}), tmp_path)
    shown = capsys.readouterr().err
    assert victim.name in shown and "goes on from step 2" in shown
    assert (tmp_path / "checkpoints" / "4.damaged").is_dir()
    assert log(tmp_path)[:2] == log(undisturbed)[:2]


def command_of(config, directory, *, cache=""):
    """`bertjax pretrain` of a config, for a process, and the environment in which it compiles quickly.

    What it compiles is kept for others, or in `cache`, as it must be for a process that may be killed while it writes.
    """
    recipe, values = directory.with_suffix(".py"), json.dumps(to_dict(config))
    recipe.write_text(
        "import json\nfrom bertjax.config.recipe import default, from_dict\nfrom dataclasses import asdict\n\n\n"
        f"def get_config():\n    config, values = default(), asdict(from_dict(json.loads({values!r})))\n"
        "    for name, fields in values.items():\n        config[name].update(fields)\n    return config\n"
    )
    command = [sys.executable, "-m", "bertjax", "pretrain", f"--config={recipe}", f"--workdir={directory}"]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(cache or os.environ["JAX_COMPILATION_CACHE_DIR"]),
    }
    # Buffered, as users have it.
    return command, environment | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": ""}


def wait_for_step(process, directory, step):
    """Until a running command has logged a step, or has ended."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        lines = metrics.read(directory / metrics.METRICS)
        if lines and lines[-1]["step"] >= step:
            break
        time.sleep(0.01)


def kill_and_go_on(config, directory, *, kills, seed):
    """Run the command in a process, kill -9 it at random steps, then let it end; returns where it was killed."""
    rng = random.Random(seed)
    command, environment = command_of(config, directory, cache=directory.parent / "cache")
    killed = []
    for target in sorted(rng.randrange(1, config.run.steps) for _ in range(kills)):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_step(process, directory, target)
        process.kill()
        process.wait()
        killed.append(metrics.read(directory / metrics.METRICS)[-1]["step"])
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)
    return killed


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_kill_nine(inputs, tmp_path, dtype):
    """The same command, killed at random steps, ends bitwise where an undisturbed one does."""
    config = tiny(
        model={"num_layers": 2},
        compute={"dtype": dtype},
        data=inputs,
        optim={"name": "lamb"},
        run={"steps": 40, "save_every": 7, "eval_every": 0},
    )
    assert kill_and_go_on(config, tmp_path / "undisturbed", kills=0, seed=0) == []
    kills = {"float32": 3, "bfloat16": 2}[dtype]
    killed = kill_and_go_on(config, tmp_path / "killed", kills=kills, seed=dtype == "float32")
    assert len(killed) == kills and min(killed) < 40
    assert_same_run(config, tmp_path / "undisturbed", tmp_path / "killed")


def test_wrong_inputs_are_refused_before_anything_is_written(inputs, trained, tmp_path):
    cases = [
        ({"data": inputs | {"prepared": str(tmp_path / "none")}}, DataError, "bertjax prepare"),
        ({"data": inputs | {"tokenizer": str(tmp_path / "none.model")}}, DataError, "none.model"),
        ({"data": inputs, "model": {"vocab_size": 399}}, DataError, "model.vocab_size = 399"),
        ({"data": inputs | {"batch_size": 12}}, ConfigError, "data.batch_size"),
        ({"data": inputs, "mesh": {"fsdp": 3}}, ConfigError, "8 devices"),
        (
            {"data": inputs, "run": {"keep_best": "eval_unigram_loss"}},
            ConfigError,
            "run.keep_best = 'eval_uni.*mlm_loss",
        ),
        ({"data": inputs, "run": {"keep_best": "pairs_accuracy"}}, ConfigError, "run.keep_best = 'pairs_accuracy'"),
    ]
    for changes, kind, named in cases:
        with pytest.raises(kind, match=named) as error:
            pretrain(tiny(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        assert len(str(error.value).splitlines()) == 1


def test_a_tokenizer_other_than_the_data_sets_is_refused(inputs, trained, tmp_path):
    other = tmp_path / "other.model"
    texts = (s for d in documents(tiny(data=inputs).data) for s in d)
    train_sentencepiece(texts, other, vocab_size=300, lower_case=True)
    with pytest.raises(DataError, match="prepared with tokenizer"):
        pretrain(tiny(data=inputs | {"tokenizer": str(other)}), tmp_path / "run")
    config, directory = trained
    data = inputs | {"tokenizer": str(other), "prepared": str(tmp_path / "data")}
    prepare.prepare(tiny(data=data).data, other, tmp_path / "data", runner=prepare.local(1))
    with pytest.raises(DataError, match="was trained"):
        evaluate(override(config, data=data), directory)


def test_other_data_half_way_are_refused(inputs, trained, corpus_file, tmp_path):
    """The same tokenizer, another corpus: the rows that the run has counted would be other rows."""
    config, directory = trained
    (tmp_path / "other.txt").write_text(corpus_file.read_text()[: corpus_file.stat().st_size * 3 // 4])
    other = override(config, data={"source": (str(tmp_path / "other.txt"),), "prepared": str(tmp_path / "data")})
    prepare.prepare(other.data, Path(inputs["tokenizer"]), tmp_path / "data", runner=prepare.local(1))
    with pytest.raises(DataError, match="is not the data set that"):
        pretrain(override(other, run={"steps": 8}), directory)


def test_a_run_trains_on_the_source_it_names(inputs, tmp_path):
    """WORKDIR/data was made from another source, or in another case: refused, not silently used."""
    data, vocabulary = tiny(data=inputs).data, Path(inputs["tokenizer"])
    prepare.prepare(data, vocabulary, tmp_path / "run" / "data", runner=prepare.local(1))
    for changes, named in (
        ({"source": ("else.txt",)}, "data.source = .*else.txt"),
        ({"case": "cased"}, "data.case = 'cased': .* was prepared with 'uncased'"),
    ):
        with pytest.raises(DataError, match=named):
            pretrain(tiny(data=inputs | {"prepared": ""} | changes), tmp_path / "run")


def test_a_split_without_examples_is_refused_at_once(inputs, tmp_path):
    config = tiny(data=inputs | {"holdout": 0.0, "prepared": str(tmp_path / "data")})
    prepare.prepare(config.data, Path(inputs["tokenizer"]), tmp_path / "data", runner=prepare.local(1))
    with pytest.raises(DataError, match="validation split"):
        pretrain(config, tmp_path / "run")


def test_a_run_cannot_change_half_way(trained):
    config, directory = trained
    changed = override(config, optim={"lr": 0.5}, model={"dropout": 0.0}, run={"steps": 9})
    with pytest.raises(ConfigError) as error:
        pretrain(changed, directory)
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and "optim.lr = 0.5" in lines[1] and "0.001" in lines[1]


def test_a_run_starts_with_a_trained_model(inputs, trained, tmp_path, capsys, monkeypatch):
    _, source = trained
    start = {"steps": 1, "init_from": str(source), "init_layers": (1, 2), "eval_every": 0}
    config = tiny(data=inputs, model={"num_layers": 2}, optim={"lr": 0.0, "warmup_steps": 0}, run=start)
    assert pretrain(config, tmp_path)
    assert f"{source}: layers 1, 2 of 4, 400 of 400 pieces" in capsys.readouterr().err
    _, _, before = final_state(*trained)
    _, _, after = final_state(config, tmp_path)
    stacks = ("encoder", "groups")
    for path, x in flatten_dict(after.params).items():
        old = flatten_dict(before.params)[path]
        np.testing.assert_array_equal(x, old[1:3] if path[:2] == stacks else old)
    monkeypatch.setattr(pretraining.load, "load", None)  # needed no more when the run goes on
    assert pretrain(config, tmp_path)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(inputs, trained, tmp_path):
    start = {"init_from": str(trained[1])}
    for changes, message in (
        ({"model": {"num_heads": 2}, "run": start}, "model.num_heads = 2: run.init_from = .* has 4"),
        ({"run": {"init_from": str(tmp_path / "none")}}, "there is no such directory"),
    ):
        with pytest.raises(UserError, match=message):
            pretrain(tiny(data=inputs, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_an_imported_model_is_not_a_run_to_go_on_with(inputs, trained, tmp_path):
    config, directory = trained
    state = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model)).state
    writes = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=1)
    state = TrainState(step=np.int32(0), params=state, opt_state=())
    writes.save(0, state, identity={"tokenizer": "t"}, rows=0, config=config)
    writes.close()
    with pytest.raises(ConfigError, match=f"holds an imported model.*run.init_from={tmp_path}"):
        pretrain(config, tmp_path)


def test_a_directory_in_use_is_refused(trained):
    config, directory = trained
    with storage.locked(directory), pytest.raises(StorageError, match=f"process {os.getpid()} on"):
        pretrain(config, directory)


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(inputs, tmp_path):
    run = {"save_every": 1, "eval_every": 0, "skip_limit": 0}
    config = tiny(data=inputs, optim={"lr": 1e38, "clip_norm": 0.0, "warmup_steps": 0}, run=run)
    with pytest.raises(NumericError, match="step 2: .*no longer a number; earlier checkpoints are intact"):
        pretrain(config, tmp_path)
    _, _, state = final_state(config, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_run_that_does_not_recover_ends_with_its_exit_code(inputs, tmp_path):
    """After three updates that no data make finite, and three more from the checkpoint before: one line, exit 5."""
    run = {"steps": 20, "save_every": 1, "eval_every": 0, "skip_limit": 3}
    optim = {"lr": 1e38, "clip_norm": 0.0, "warmup_steps": 0, "power": 0.0}
    config = tiny(data=inputs, model={"num_layers": 1}, optim=optim, run=run)
    command, environment = command_of(config, tmp_path / "run")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == NumericError.exit_code == 5
    *before, last = done.stderr.strip().splitlines()
    assert last.startswith("bertjax: step 4: grad_norm nan, loss nan, ") and "Traceback" not in done.stderr
    assert "3 updates in a row were skipped, also after going back to step 1 with other data" in last
    (back,) = [line for line in before if "goes back" in line]
    assert back.endswith("goes back to step 1, and on with row 32 of the data")
    assert len([line for line in before if "the update is skipped" in line]) == 4
    assert numbers(tmp_path / "run" / "checkpoints") == [1]
    _, (_, rows), state = final_state(config, tmp_path / "run")
    assert rows == 8 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_distillation_run_skips_and_goes_back_too(inputs, trained, tmp_path, monkeypatch, capsys):
    """A batch that is spoiled in one row, once: as often as the limit in a run that is stopped at the first."""
    _, directory = trained
    teacher, objective = {"path": str(directory), "tokens": "masked"}, {"soft": 1.0, "pair": 0.0}
    run = {"steps": 5, "eval_every": 0, "save_every": 2, "skip_limit": 1}
    config = tiny(data=inputs, model={"num_layers": 1}, objective=objective, teacher=teacher, run=run)
    batches = pretraining.train_batches

    def spoiled(data, *arguments, start_row, **more):
        for number, batch in enumerate(batches(data, *arguments, start_row=start_row, **more), start_row // 8):
            batch["mlm_weights"][0, 0] *= np.nan if number == 3 else 1.0
            yield batch

    monkeypatch.setattr(pretraining, "train_batches", spoiled)
    assert pretrain(config, tmp_path)
    assert "goes back to step 2, and on with row 32 of the data" in capsys.readouterr().err
    restored = checkpoint.saved(tmp_path / "checkpoints")
    assert (restored.step, restored.rows, restored.skipped.in_all) == (5, 7 * 8, 1)


@pytest.mark.parametrize(
    ("optim", "run"),
    [
        ({"lr": 3e38}, {"steps": 1}),  # the only update, after a good loss
        ({"lr": 3e38}, {"steps": 2, "save_every": 1, "eval_every": 0}),
        ({"lr": 1e38}, {"steps": 1}),  # parameters are finite, the held-out loss is not
        ({"lr": 1e38}, {"steps": 2, "save_every": 2, "eval_every": 1}),
    ],
)
def test_an_update_that_overflows_is_not_saved(inputs, tmp_path, optim, run):
    """The loss of the step was still a number."""
    optim = {"clip_norm": 0.0, "warmup_steps": 0, "power": 0.0} | optim
    with pytest.raises(NumericError, match="^step 1: .*start in another --workdir$"):
        pretrain(tiny(data=inputs, model={"num_layers": 1}, optim=optim, run=run), tmp_path)
    assert numbers(tmp_path / "checkpoints") == []
    (line,) = (tmp_path / metrics.METRICS).read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["step"] == 1


def test_saved_config_is_read_back(trained):
    config, directory = trained
    assert workdir.load_config(directory) == config
    assert json.loads((directory / "config.json").read_text())["model"]["vocab_size"] == 400


PROGRESS = re.compile(r"step |\d+ x cpu: |compiled in |first step: ")
"""How a line begins that tells how far a run is."""


def test_a_full_disk_keeps_what_was_saved(inputs, tmp_path):
    """Files may not grow beyond 64 kB, as on a full disk: one line, exit 7, and the step before is intact."""
    config = tiny(data=inputs, model={"num_layers": 1}, run={"steps": 3, "save_every": 1, "eval_every": 0})
    pretrain(config, tmp_path / "run")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from bertjax.cli import main as cli; from bertjax.tasks.pretrain import pretrain\n"
        "from bertjax.train import workdir\n"
        "from bertjax.config.recipe import override\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "config = override(workdir.load_config(Path(sys.argv[1])), run={'steps': 6})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "cli._dispatch = lambda argv: pretrain(config, Path(sys.argv[1]))\n"
        "cli.main([])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    # Without a cache, as what it compiles would be cut short there, too.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 7
    told = (f"{tmp_path}/run: goes on", "run.steps was 3")
    (line,) = [line for line in run.stderr.splitlines() if not line.startswith(told) and not PROGRESS.match(line)]
    assert re.fullmatch(r"bertjax: .*/checkpoints/4: the checkpoint could not be written.*free the disk.*", line)
    assert final_state(config, Path(tmp_path / "run"))[0] == 3


@pytest.mark.parametrize("fails", ["at the start", "at a step", "inside a step"])
def test_a_directory_that_cannot_be_made_ends_the_run(inputs, tmp_path, fails):
    """One line and exit 7, with no thread left that waits for what will not come."""
    config = tiny(data=inputs, model={"num_layers": 1}, run={"steps": 4, "save_every": 1, "eval_every": 0})
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    script = "import sys; from bertjax.cli import main as cli\n"
    if fails == "at the start":
        (run / "checkpoints").rmdir()
        (run / "checkpoints").write_text("mine")
    else:
        place = "/3.orbax-checkpoint-tmp" + "/" * (fails == "inside a step")
        script += (
            "import os; mkdir = os.mkdir\n"
            "def full(path, *args, **kwargs):\n"
            f"    if {place!r} in str(path): raise OSError(28, 'No space left on device', str(path))\n"
            "    mkdir(path, *args, **kwargs)\n"
            "os.mkdir = full\n"
        )
    command, environment = command_of(config, run)
    command[1:3] = ["-c", script + "cli.main(sys.argv[1:])"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("bertjax: ")]
    assert done.returncode == 7, done.stderr
    if fails == "at the start":
        assert "checkpoints" in line and not metrics.read(run / metrics.METRICS)
        assert (run / "checkpoints").read_text() == "mine"
    else:
        assert "checkpoints/3: the checkpoint could not be written" in line
        assert numbers(run / "checkpoints")[-1] == 2


@pytest.mark.parametrize("kind", ["closed pipe", "/dev/full", pytest.param("closed", marks=pytest.mark.long)])
def test_a_run_outlives_its_standard_error(inputs, tmp_path, kind):
    """`2>&1 | head -3`, a full disk under the log, `2>&-`: it goes on to its end, and metrics.jsonl has everything."""
    config = tiny(data=inputs, model={"num_layers": 1}, run={"steps": 5})
    command, environment = command_of(config, tmp_path / "run")
    if kind == "closed pipe":
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while b"step 1/5" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        code = process.wait(timeout=200)
    else:
        command = ["bash", "-c", f'exec "$@" 2>{"&-" if kind == "closed" else "/dev/full"}', "bash", *command]
        code = subprocess.run(command, env=environment, timeout=200).returncode
    assert code == 0
    assert numbers(tmp_path / "run" / "checkpoints") == [3, 5]
    lines = metrics.read(tmp_path / "run" / metrics.METRICS)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert (tmp_path / "run" / "curves.png").exists()


def test_an_error_without_a_standard_error_has_its_exit_code(inputs, tmp_path):
    """Nothing can be said, but the code must not be that of success."""
    wrong = tiny(data=inputs | {"tokenizer": str(tmp_path / "none.model")})
    command, environment = command_of(wrong, tmp_path / "run")
    assert subprocess.run(["bash", "-c", '"$@" 2>/dev/full', "bash", *command], env=environment).returncode == 3


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_saves_and_stops(inputs, tmp_path, ignored):
    """As SIGTERM does, unless the command was started to outlive its terminal, as by nohup."""
    config = tiny(data=inputs, model={"num_layers": 1}, run={"steps": 400, "save_every": 0, "eval_every": 0})
    command, environment = command_of(config, tmp_path / "run")
    if ignored:
        command = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", *command]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_step(process, tmp_path / "run", 2)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=240) == (0 if ignored else 75)
    (step,) = numbers(tmp_path / "run" / "checkpoints")
    assert step == 400 if ignored else 2 <= step < 400


def loader_process(process):
    """The loader process of a running command."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (pid,) = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(pid)


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs /proc")
def test_a_loader_process_that_dies_or_hangs_costs_nothing(inputs, tmp_path):
    """Killed: a line and exit 6. Stopped: SIGTERM is heeded while it is waited for. What was learnt is saved."""
    run = {"steps": 10**6, "log_every": 10, "save_every": 0, "eval_every": 0}
    config = tiny(data=inputs | {"loader_workers": 1}, model={"num_layers": 1}, run=run)
    command, environment = command_of(config, tmp_path / "run")
    reached = 0
    for fault, code, told in (
        (
            signal.SIGKILL,
            6,
            r"bertjax: data.loader_workers = 1: process \d+ was ended by SIGKILL, .*; step (\d+) is saved",
        ),
        (signal.SIGSTOP, 75, r".*/run: asked to stop \(SIGTERM\): step (\d+) is saved"),
    ):
        with open(tmp_path / "shown", "w") as shown:
            process = subprocess.Popen(command, env=environment, stderr=shown)
            try:
                wait_for_step(process, tmp_path / "run", reached + 10)
                os.kill(loader_process(process), fault)
                if fault == signal.SIGSTOP:
                    time.sleep(1)  # until it waits
                    process.terminate()
                assert process.wait(timeout=60) == code
            finally:
                process.kill()
                process.wait()
        lines = (tmp_path / "shown").read_text().splitlines()
        *before, last = [line for line in lines if not PROGRESS.match(line)]
        assert len(before) == (reached > 0) and (found := re.fullmatch(told, last)), lines
        assert reached < int(found[1]) == numbers(tmp_path / "run" / "checkpoints")[-1]
        reached = int(found[1])


class Ended(BaseException):
    """The process would have ended here."""


@pytest.mark.parametrize("place", ["tasks.pretrain.open_data", "train.session.Engine.fresh", "train.curves.plot"])
def test_a_run_that_is_asked_to_stop_before_its_loop_or_after_it(place, inputs, tmp_path, monkeypatch, capfd):
    """While the data set is opened, while the first program is compiled, and when all is saved."""
    ended = []

    def end(code):
        ended.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(f"bertjax.{place}", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("bertjax.train.loop.run", lambda *_, **__: True)
    with pytest.raises(Ended), signals.ending():
        pretrain(tiny(data=inputs, model={"num_layers": 1}), tmp_path / "run")
    assert ended == [PREEMPTED]
    assert capfd.readouterr().err.splitlines()[-1] == "bertjax: asked to stop (SIGTERM): nothing had to be saved"
