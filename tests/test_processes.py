"""Several processes are one run: the same losses, one stop, and an end for all when one is gone."""

import shutil
import signal

import jax
import numpy as np
import pytest
from processes import Run, recipe
from small import shapes_of_state, tiny

from bertjax.config.recipe import to_dict
from bertjax.errors import PREEMPTED, PeerError
from bertjax.parallel import sharding
from bertjax.tasks.pretrain import pretrain
from bertjax.train import checkpoint, metrics

STEPS = 20
TIMES = {"tokens_per_second", "slots_per_second", "steps_per_second", "data_wait", "mfu"}


@pytest.fixture(scope="module")
def config(inputs):
    """The tiny model, packed, in microbatches, with dropout, over all that a mesh can be split into."""
    return tiny(
        data=inputs | {"packing": 2, "batch_size": 16},
        optim={"accumulate": 2},
        mesh={"data": 2, "fsdp": 2, "tensor": 2},
        run={"steps": STEPS, "eval_every": 10, "save_every": 5, "keep": 9, "step_timeout": 60},
    )


@pytest.fixture(scope="module")
def file(config, tmp_path_factory):
    return recipe(tmp_path_factory.mktemp("recipes") / "small.py", to_dict(config))


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The work directory of the run by one process with eight devices."""
    directory = tmp_path_factory.mktemp("alone")
    assert pretrain(config, directory)
    return directory


@pytest.fixture(scope="module")
def together(file, tmp_path_factory):
    """That of the run by two processes with four devices each, and what they said."""
    directory = tmp_path_factory.mktemp("together")
    code, lines = start(file, directory).end()
    assert code == 0, lines
    return directory, lines


def start(file, directory, **options):
    options = {"processes": 2, "devices": 4} | options
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
    restored = checkpoint.restore(directory / "checkpoints", shapes_of_state(config, sharding.make_mesh(config.mesh)))
    return restored.rows, jax.device_get(restored.state)


def assert_same_bits(config, one, other):
    assert log(one) == log(other)
    (rows, first), (other_rows, second) = state(config, one), state(config, other)
    assert rows == other_rows
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.tobytes(), b.tobytes()), first, second)


def test_two_processes_learn_what_one_does(alone, together):
    directory, lines = together
    assert_close(log(alone), log(directory), rtol=1e-6)
    assert "2 processes, 8 devices" in lines
    assert sum("first step" in line for line in lines) == 1, "one of them tells"


def test_each_writes_its_part_of_a_checkpoint(together):
    newest = together[0] / "checkpoints" / str(STEPS)
    checkpoint.verify(newest)
    assert {path.name for path in (newest / "state").glob("ocdbt.process_*")} == {"ocdbt.process_0", "ocdbt.process_1"}


def test_a_signal_to_one_stops_both_and_all_ways_lead_on(config, file, alone, together, tmp_path):
    """On the same processes to the same bits, on another number of them to the same losses."""
    run = start(file, tmp_path / "run")
    run.wait_for("step 4/")
    run.kill(1, signal.SIGTERM)
    code, lines = run.end()
    assert code == PREEMPTED, lines
    (saved,) = [line for line in lines if "asked to stop" in line]
    step = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert f"step {step} is saved" in saved
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    code, lines = start(file, tmp_path / "run").end()
    assert code == 0, lines
    assert_same_bits(config, together[0], tmp_path / "run")
    assert pretrain(config, tmp_path / "one")
    assert_close(log(alone), log(tmp_path / "one"), rtol=1e-5)


def test_when_one_is_killed_the_other_ends_and_all_start_again(config, file, together, tmp_path):
    run = start(file, tmp_path / "run", restarts=1)
    run.wait_for("step 8/")
    run.kill(1, signal.SIGKILL)
    code, lines = run.end()
    assert code == 0, lines
    assert any("another process of this run is gone" in line for line in lines), lines
    assert not any("Traceback" in line for line in lines)
    assert any(f"ended with {PeerError.exit_code}" in line for line in lines)
    assert_same_bits(config, together[0], tmp_path / "run")
