"""A run that is killed again and again while it saves: `launch/test.sh -m long tests/test_kills.py`, 15 min."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections import Counter

import pytest
from small import tiny
from tasks.test_pretrain import assert_same_run, command_of

from bertjax import steps
from bertjax.train import checkpoint, metrics

KILLS = 100
STEPS = 400


@pytest.mark.long
def test_a_run_killed_in_its_saves_loses_no_step_that_was_saved(inputs, tmp_path):
    """Every start goes on from the newest step on disk, none of those is ever lost, nor the best so far by each second
    step's evaluation, and the end is the same bits.
    """
    run = {"steps": STEPS, "save_every": 1, "eval_every": 2, "keep": 3, "keep_best": "eval_pair_loss"}
    config = tiny(model={"num_layers": 2}, data=inputs, run=run)
    undisturbed, directory, cache = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "cache"
    command, environment = command_of(config, undisturbed, cache=cache)
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=1200)
    command, environment = command_of(config, directory, cache=cache)
    rng, found = random.Random(0), Counter()
    checkpoints = directory / "checkpoints"
    for _ in range(KILLS):
        before = steps.numbers(checkpoints) or [0]
        said = killed_in_a_save(
            command, environment, checkpoints, before[-1] + rng.randrange(1, 4), rng.uniform(0, 0.08)
        )
        after, unfinished = steps.numbers(checkpoints) or [0], list(checkpoints.glob(f"*{steps.TEMPORARY}"))
        assert after[-1] >= before[-1], said
        assert not before[-1] or f"goes on from step {before[-1]}" in said, said
        assert "set aside" not in said and "Traceback" not in said, said
        steps.verify(checkpoints / str(after[-1]))
        losses = {
            line["step"]: line["eval_pair_loss"]
            for line in metrics.read(directory / "metrics.jsonl")
            if "eval_pair_loss" in line and line["step"] <= after[-1]
        }
        if losses:
            assert checkpoint.chosen(checkpoints, "best") == min(losses, key=losses.get)
            assert len(after) <= 3 + 2, "the best, and what was to go when the process was killed"
        found["in the middle of a save" if unfinished else "just after one"] += 1
    print(f"\n{KILLS} kills: {dict(found)}")
    assert found["in the middle of a save"] > KILLS // 4
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=1200)
    assert_same_run(config, undisturbed, directory)
    assert steps.numbers(directory / "checkpoints") == steps.numbers(undisturbed / "checkpoints")


def killed_in_a_save(command, environment, checkpoints, step, delay):
    """Run a command until it is killed, `delay` s after the save of `step` or of a later one began; what it said."""
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=err)
        start, end = time.time(), time.monotonic() + 240
        going = not steps.numbers(checkpoints)  # before that, a directory changes because what was cut short is removed
        while process.poll() is None and time.monotonic() < end:
            going = going or b"goes on from" in os.pread(err.fileno(), 10_000, 0)
            if going and begun(checkpoints, step, since=start):
                break
            time.sleep(0.001)
        time.sleep(delay)
        going_on = process.poll() is None
        process.kill()
        process.wait()
        err.seek(0)
        said = err.read()
        assert going_on, f"the run had ended: {said}"
        return said


def begun(checkpoints, step, since):
    """Whether this run has: the one before it, which was killed, may have left the beginning of the same save."""
    for path in checkpoints.glob("*"):
        name = path.name.removesuffix(steps.TEMPORARY)
        with contextlib.suppress(FileNotFoundError):
            if name.isdigit() and int(name) >= step and path.stat().st_mtime > since:
                return True
    return False
