"""Several processes are one run: the same losses, one stop, and an end for all when one is gone."""

import json
import random
import signal
import subprocess
import sys
import time

import jax
import labelled_files
import models
import numpy as np
import pytest
from processes import Run, recipe
from small import one_device_mesh, shapes_of_state, tiny

from bertjax.config.recipe import override, to_dict
from bertjax.errors import PREEMPTED, PeerError, StorageError
from bertjax.steps import numbers, verify
from bertjax.train import checkpoint, metrics

STEPS = 20
TIMES = {"tokens_per_second", "slots_per_second", "steps_per_second", "data_wait", "mfu"}


@pytest.fixture(scope="module")
def config(inputs):
    """The tiny model, packed, in microbatches, with dropout, its rows and its parameters split."""
    return tiny(
        data=inputs | {"packing": 2, "batch_size": 16},
        optim={"accumulate": 2},
        mesh={"data": 2, "fsdp": 2},
        run={"steps": STEPS, "eval_every": 10, "save_every": 5, "keep": 9, "step_timeout": 60},
    )


@pytest.fixture(scope="module")
def file(config, tmp_path_factory):
    return recipe(tmp_path_factory.mktemp("recipes") / "small.py", to_dict(config))


@pytest.fixture(scope="module")
def alone(file, tmp_path_factory):
    """The work directory of the run by one process with four devices."""
    directory = tmp_path_factory.mktemp("alone")
    code, lines = start(file, directory, processes=1, devices=4).end()
    assert code == 0, lines
    return directory


@pytest.fixture(scope="module")
def together(file, tmp_path_factory):
    """That of the run by two processes with two devices each, and what they said."""
    directory = tmp_path_factory.mktemp("together")
    code, lines = start(file, directory).end()
    assert code == 0, lines
    return directory, lines


def start(file, directory, **options):
    options = {"processes": 2, "devices": 2} | options
    return Run("pretrain", f"--config={file}", f"--workdir={directory}", **options)


def log(directory):
    """The metrics without what the clock says."""
    lines = metrics.read(directory / metrics.METRICS)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_close(one, other, rtol):
    assert [line.keys() for line in one] == [line.keys() for line in other]
    for a, b in zip(one, other, strict=True):
        for name in a:
            # An accuracy of a word or two more is a rounding, too.
            atol = 0.02 if "accuracy" in name else rtol
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol, err_msg=f"step {a['step']}: {name}")


def state(config, directory):
    whole = override(config, mesh={"data": 1, "fsdp": 1})
    restored = checkpoint.restore(directory / "checkpoints", shapes_of_state(whole, one_device_mesh(whole)))
    return restored.rows, jax.device_get(restored.state)


def assert_same_bits(config, one, other):
    assert log(one) == log(other)
    (rows, first), (other_rows, second) = state(config, one), state(config, other)
    assert rows == other_rows
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.tobytes(), b.tobytes()), first, second)


def test_two_processes_learn_what_one_does(alone, together):
    directory, lines = together
    assert_close(log(alone), log(directory), rtol=1e-6)
    assert "2 processes, 4 devices" in lines
    assert sum("first step" in line for line in lines) == 1, "one of them tells"


def test_each_writes_its_part_of_a_checkpoint(together):
    newest = together[0] / "checkpoints" / str(STEPS)
    verify(newest)
    assert {path.name for path in (newest / "state").glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}


def test_a_signal_to_one_stops_both_and_leads_on(config, file, together, tmp_path):
    """On the same processes to the same bits."""
    stopped_at_a_step(file, tmp_path / "run")
    code, lines = start(file, tmp_path / "run").end()
    assert code == 0, lines
    assert_same_bits(config, together[0], tmp_path / "run")


@pytest.mark.long
def test_what_two_processes_began_one_ends(file, alone, tmp_path):
    """To the same losses."""
    stopped_at_a_step(file, tmp_path / "run")
    code, lines = start(file, tmp_path / "run", processes=1, devices=4).end()
    assert code == 0, lines
    assert_close(log(alone), log(tmp_path / "run"), rtol=1e-5)


def stopped_at_a_step(file, directory, at="step 4/"):
    """A run of two processes in this directory, of which the second is asked to stop in the middle."""
    run = start(file, directory)
    run.wait_for(at)
    run.kill(1, signal.SIGTERM)
    code, lines = run.end()
    assert code == PREEMPTED, lines
    (saved,) = [line for line in lines if "asked to stop" in line]
    step = numbers(directory / "checkpoints")[-1]
    assert f"step {step} is saved" in saved


@pytest.mark.long
def test_when_one_is_killed_the_other_ends_and_all_start_again(config, file, together, tmp_path):
    run = start(file, tmp_path / "run", restarts=1)
    run.wait_for("step 8/")
    run.kill(1, signal.SIGKILL)
    code, lines = run.end()
    assert code == 0, lines
    assert "launch: process 1 ended with exit code 137" in lines
    assert f"launch: process 0 ended with exit code {PeerError.exit_code}" in lines
    assert not any("Traceback" in line for line in lines)
    assert "launch: exit code 137; start again, 1 of 1" in lines, "that of the first to go"
    assert_same_bits(config, together[0], tmp_path / "run")


@pytest.mark.long
def test_one_that_stands_still_is_given_up(config, tmp_path):
    """The other waits for it in a collective: its watchdog says where, and the launcher ends what stands."""
    values = to_dict(override(config, run={"step_timeout": 15}))
    run = start(recipe(tmp_path / "small.py", values), tmp_path / "run", grace=5)
    run.wait_for("step 7/")
    run.kill(1, signal.SIGSTOP)
    began = time.monotonic()
    code, lines = run.end()
    assert code == PeerError.exit_code, lines
    assert time.monotonic() - began < 60
    assert any("takes more than run.step_timeout = 15 s" in line for line in lines), lines
    assert not run.ids()


FAULTY = """#!{python}
import os, sys
if os.environ["BERTJAX_PROCESS"] == "1":
    import resource, time
    from bertjax.train.recorder import Recorder
    add, calls = Recorder.add, []
    def faulty(*arguments):
        add(*arguments)
        calls.append(1)
        if len(calls) == 7:
            {fault}
    Recorder.add = faulty
from bertjax.__main__ import main
main()
"""
"""`bertjax` whose second process has a fault after step 7."""


def started_with(fault, file, directory, tmp_path):
    program = tmp_path / "faulty"
    program.write_text(FAULTY.format(python=sys.executable, fault=fault))
    program.chmod(0o755)
    return start(file, directory, grace=10, environment={"BERTJAX": str(program)})


@pytest.mark.long
def test_one_that_is_slow_for_a_while_changes_nothing(config, file, together, tmp_path):
    code, lines = started_with("time.sleep(20)", file, tmp_path / "run", tmp_path).end()
    assert code == 0, lines
    assert_same_bits(config, together[0], tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("raise RuntimeError('a bug')", 1, "RuntimeError: a bug"),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))", StorageError.exit_code, "could not be written"),
    ],
    ids=["a bug", "a disk that takes no more"],
)
def test_what_ends_one_ends_the_other_and_the_run_goes_on(fault, code, said, config, file, together, tmp_path):
    run = started_with(fault, file, tmp_path / "run", tmp_path)
    run.wait_for("step 6/")
    began = time.monotonic()
    found, lines = run.end()
    assert found == code and any(said in line for line in lines), lines
    assert time.monotonic() - began < 120 and not run.ids()
    assert numbers(tmp_path / "run" / "checkpoints")[-1] == 5
    code, lines = start(file, tmp_path / "run").end()
    assert code == 0, lines
    assert_same_bits(config, together[0], tmp_path / "run")


@pytest.mark.long
def test_a_full_disk_ends_both_and_nothing_saved_is_lost(config, file, together, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    taken = sum(path.stat().st_size for path in (together[0] / "checkpoints" / "5").rglob("*") if path.is_file())
    command = ["mount", "-t", "tmpfs", "-o", f"size={taken * 5 // 2}", "tmpfs", disk]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: not root, or a container that may not")
    try:
        code, lines = start(file, disk / "run", grace=10).end()
        assert code == StorageError.exit_code, lines
        assert any("could not be written" in line and "free the disk" in line for line in lines), lines
        assert numbers(disk / "run" / "checkpoints")[-1] in (5, 10)
        subprocess.run(["mount", "-o", f"remount,size={taken * 20}", disk], check=True)
        code, lines = start(file, disk / "run").end()
        assert code == 0, lines
        assert_same_bits(config, together[0], disk / "run")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.long
def test_faults_at_random_end_in_the_same_bits(config, file, together, tmp_path):
    """Up to ten. Every other one comes after a step, and those between while all begins: imports, restoring, compiling;
    or so it is meant, for on a fast machine the run may have gone on, or ended, by then.
    """
    rng, directory, faults = random.Random(0), tmp_path / "run", 0
    run = start(file, directory, restarts=10, grace=20)
    for fault, step in enumerate(sorted(rng.randrange(1, STEPS - 2) for _ in range(10))):
        begun, delay = time.monotonic(), rng.uniform(0, 20)

        def due(step=step, until=begun + delay, at_step=fault % 2 == 0):
            last = max((line["step"] for line in metrics.read(directory / metrics.METRICS)), default=0)
            return last >= step if at_step else time.monotonic() > until

        while run.going() and not (due() and len(run.ids()) == 2):
            time.sleep(0.05)
        if not run.going():
            break
        run.kill(rng.randrange(2), rng.choice([signal.SIGTERM, signal.SIGKILL]))
        faults += 1
        run.wait_for_restart(fault + 1)
    code, lines = run.end(600)
    assert code == 0, lines
    assert faults >= 3
    assert_same_bits(config, together[0], directory)


@pytest.mark.long
def test_two_phases_stopped_in_each_end_in_the_same_bits(config, tmp_path):
    """With the best checkpoint kept: of the second phase, as evaluations of other rows are not compared."""
    changes = {
        "data": {"seq_len": 16, "max_predictions": 3},
        "phases": {"steps": (10, 10), "seq_len": (16, 32), "batch_size": (16, 8), "max_predictions": (3, 5)},
        "run": {"steps": STEPS, "eval_every": 4, "save_every": 4, "keep": 1, "keep_best": "eval_pair_loss"},
    }
    phased = override(config, **changes)
    file = recipe(tmp_path / "phased.py", to_dict(phased))
    code, lines = start(file, tmp_path / "whole").end()
    assert code == 0, lines
    for at in ("step 4/", "step 14/"):
        stopped_at_a_step(file, tmp_path / "stopped", at)
    code, lines = start(file, tmp_path / "stopped").end()
    assert code == 0, lines
    assert_same_bits(phased, tmp_path / "whole", tmp_path / "stopped")
    losses = {line["step"]: line["eval_pair_loss"] for line in log(tmp_path / "whole") if "eval_pair_loss" in line}
    later = {step: loss for step, loss in losses.items() if step > 10 and step % 4 == 0}
    for name in ("whole", "stopped"):
        found = tmp_path / name / "checkpoints"
        assert checkpoint.chosen(found, "best") == (best := min(later, key=later.get)) < STEPS
        assert set(numbers(found)) == {best, STEPS}


KINDS = {
    "bert": {},
    "albert": {"model": models.KINDS["albert"]},
    "modernbert": {"model": models.KINDS["modernbert"], "objective": {"pair": 0.0}},
    "buckets": {"data": {"packing": 1, "buckets": (16, 32)}},
}
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    """Command, name and config -> the work directory of that run by one process with one device; of a name, once."""
    known = {}

    def run(command, name, config):
        if name not in known:
            known[name] = tmp_path_factory.mktemp(name)
            file = recipe(known[name] / "one.py", to_dict(override(config, mesh={"data": 1, "fsdp": 1})))
            code, lines = on_a_mesh(command, file, known[name] / "run", processes=1, devices=1)
            assert code == 0, lines
        return known[name] / "run"

    return run


def on_a_mesh(command, file, directory, **options):
    return Run(command, f"--config={file}", f"--workdir={directory}", **options).end()


def split(config, mesh):
    return override(config, mesh=dict(zip(("data", "fsdp", "tensor"), mesh, strict=True)))


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "distilled"])
def test_every_model_on_every_mesh(kind, mesh, processes, config, trained, on_one_device, tmp_path):
    """Against one process with one device."""
    changes = {"run": {"steps": 50, "eval_every": 25, "save_every": 0}}
    if kind == "distilled":
        changes |= {"model": {"num_layers": 2}, "objective": {"soft": 5.0, "cosine": 1.0}}
        changes |= {"teacher": {"path": str(trained[1]), "dtype": "float32"}}
    else:
        changes |= KINDS[kind]
    values = override(config, **changes)
    file = recipe(tmp_path / "many.py", to_dict(split(values, mesh)))
    code, lines = on_a_mesh("pretrain", file, tmp_path / "many", processes=processes, devices=8 // processes)
    assert code == 0, lines
    assert_close(log(on_one_device("pretrain", kind, values)), log(tmp_path / "many"), rtol=1e-6)


LAYOUTS = {"packed": {"packing": 3}, "buckets": {"packing": 1, "buckets": (16, 32)}}


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_task_with_labels_on_every_mesh(layout, mesh, processes, on_one_device, tmp_path):
    """Against one process with one device."""
    data, model = LAYOUTS[layout] | {"batch_size": 16}, {"dropout": 0.1}
    values = labelled_files.config_of(tmp_path, "classify", data=data, model=model, optim={"accumulate": 2})
    file = recipe(tmp_path / "many.py", to_dict(split(values, mesh)))
    code, lines = on_a_mesh("finetune", file, tmp_path / "many", processes=processes, devices=8 // processes)
    assert code == 0, lines
    one = on_one_device("finetune", f"labels {layout}", values)
    assert_close(log(one), log(tmp_path / "many"), rtol=1e-6)
    first, second = (json.loads((path / "result.json").read_text()) for path in (one, tmp_path / "many"))
    assert first["metrics"]["dev"] == pytest.approx(second["metrics"]["dev"], rel=1e-6)
