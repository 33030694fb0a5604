"""Runs in a bucket: they end with the bits of one on a disk, whatever happens to them and to it."""

import hashlib
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
from small import one_device_mesh, shapes_of_state

from bertjax import storage
from bertjax.bucket import copies
from bertjax.config.recipe import override
from bertjax.errors import DataError
from bertjax.steps import DAMAGED, clean, numbers
from bertjax.tasks.inputs import open_data
from bertjax.tasks.pretrain import pretrain
from bertjax.train import checkpoint, metrics, workdir

RUN = "gs://bkt/lab/run"
TIMES = {"tokens_per_second", "slots_per_second", "steps_per_second", "data_wait", "mfu"}


def end_of(config, directory):
    """Step, place in the data, every bit of the state, and the metrics without what the clock says."""
    restored = checkpoint.restore(directory / "checkpoints", shapes_of_state(config, one_device_mesh(config)))
    state = [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(restored.state))]
    lines = metrics.read(directory / metrics.METRICS)
    return restored.step, restored.rows, state, [{k: v for k, v in x.items() if k not in TIMES} for x in lines]


@pytest.fixture
def begun(trained, inputs, bucket):
    """A run in a bucket before its first step, with the tokenizer and the data of one that is done on a disk."""
    config, _ = trained
    tokenizer = Path(inputs["tokenizer"]).read_bytes()
    bucket.put("lab/run/tokenizer/spiece.model", tokenizer)
    bucket.put("lab/run/tokenizer/SHA256SUMS", f"{hashlib.sha256(tokenizer).hexdigest()}  spiece.model\n".encode())
    for file in Path(inputs["prepared"]).iterdir():
        bucket.put(f"lab/run/data/{file.name}", file.read_bytes())
    config = override(config, data={"tokenizer": "", "prepared": "", "tokenizer_kind": "sentencepiece"})
    directory = storage.place(RUN)
    workdir.save_config(directory, config)
    return config, directory


def command(**environment):
    """`bertjax pretrain` of that run, on devices as here, with what it writes to standard error."""
    return subprocess.Popen(
        [sys.executable, "-m", "bertjax", "pretrain", f"--workdir={RUN}"],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_that_is_killed_while_it_saves_goes_on_to_the_same_bits(trained, begun, bucket, capsys):
    """On another host, which has no copies yet. The process that is dead is not waited for."""
    config, directory = begun
    process = command()

    def kill(name):
        if name.startswith("lab/run/checkpoints/6/state/ocdbt"):
            process.send_signal(signal.SIGKILL)

    bucket.written = kill
    assert process.wait(timeout=240) == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    bucket.written = lambda name: None
    assert numbers(directory / "checkpoints") == [3] and bucket.below("lab/run/checkpoints/6/")
    assert "lab/run/.lock" in bucket.objects
    shutil.rmtree(copies.local(directory))
    assert pretrain(config, directory)
    told = capsys.readouterr().err
    assert f"{RUN}/checkpoints/6: removed, its save was cut short" in told and f"{RUN}: goes on from step 3" in told
    assert end_of(config, directory) == end_of(trained[0], trained[1])
    assert bucket.objects["lab/run/curves.png"][:4] == b"\x89PNG" and "lab/run/.lock" not in bucket.objects
    assert json.loads(bucket.objects["lab/run/config.json"])["run"]["steps"] == 6


# The whole form: minutes ---------------------------------------------------------------------------------------------


def damaged(content, other, kind, rng):
    """The content after a damage; None = the object is gone."""
    place = rng.randrange(len(content)) if content else 0
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    return {"cut": content[:place], "swapped": other, "gone": None}[kind]


@pytest.mark.long
def test_every_damage_of_a_bucket_is_named_or_harmless(begun, bucket, capsys):
    """Each object of a run that is done, four ways: of a checkpoint it is named, and the one before it used; of what a
    run learns from it is named, and the run refused. Objects that nothing is read from may change. From one damage of
    each way the run then goes on to the same bits.
    """
    config, directory = begun
    assert pretrain(config, directory)
    wanted, whole, rng = end_of(config, directory), dict(bucket.objects), random.Random(7)
    counted = {"refused": 0, "an older step": 0, "harmless": 0}
    largest = max((name for name in whole if "/6/state/ocdbt" in name), key=lambda name: len(whole[name]))
    for kind in ("flip", "cut", "gone", "swapped"):
        for name in sorted(name for name in whole if re.search("/6/|/data/|/spiece", name)):
            bucket.empty()
            for one, content in whole.items():
                bucket.put(one, content)
            changed = damaged(whole[name], whole["lab/run/config.json"], kind, rng)
            bucket.delete(name) if changed is None else bucket.put(name, changed)
            if "/checkpoints/" not in name:
                shutil.rmtree(copies.local(directory), ignore_errors=True)
                with pytest.raises(DataError) as error:
                    open_data(config, directory)
                (line,) = str(error.value).splitlines()
                missing = ("run/data: no prepared data set", "run/tokenizer/spiece.model: no tokenizer")
                assert name in line or kind == "gone" and line.split("gs://bkt/lab/")[1].startswith(missing), line
                counted["refused"] += 1
            elif lines := clean(directory / "checkpoints"):
                assert len(lines) == 1 and lines[0].startswith(f"gs://bkt/{name}: "), lines
                assert numbers(directory / "checkpoints") == [3]
                counted["an older step"] += 1
                if name == largest:
                    assert pretrain(config, directory)
                    assert end_of(config, directory) == wanted
                    assert f"lab/run/checkpoints/6/{DAMAGED}" not in bucket.objects
            else:
                assert name.endswith(("_CHECKPOINT_METADATA", "commit_success.txt")), (name, kind)
                counted["harmless"] += 1
    with capsys.disabled():
        print(counted)
    assert sum(counted.values()) > 100 and counted["an older step"] > 40


@pytest.mark.long
@pytest.mark.parametrize("seconds", [20, 1000])
def test_a_bucket_that_is_away(trained, begun, bucket, seconds):
    """For 20 s, in the middle of a save: the run goes on to the same bits, with a line. For good: exit 7, in time, one
    line, and what was saved is intact.
    """
    config, directory = begun
    gone = []

    def leave(name):
        if name.startswith("lab/run/checkpoints/6/state/ocdbt") and not gone:
            gone.append(time.monotonic())
            threading.Thread(target=bucket.stop).start()
            if seconds < 100:
                threading.Timer(seconds, bucket.again).start()

    bucket.written = leave
    process = command(BERTJAX_BUCKET_WAIT="60")
    _, told = process.communicate(timeout=580)
    took = time.monotonic() - gone[0]
    print(f"{seconds} s away: exit {process.returncode} after {took:.0f} s\n{told}")
    last = [line for line in told.splitlines() if line.startswith("bertjax: ")]
    assert "Traceback" not in told and "no answer for 5 s; waits on, 60 s at most" in told
    if seconds < 100:
        assert process.returncode == 0 and not last
        assert end_of(config, directory) == end_of(*trained)
        return
    bucket.again()
    assert process.returncode == 7 and len(last) == 1 and took < 200
    assert re.search(r"gs://bkt/lab/run/\S+: .*see whether the bucket can be reached", last[0])
    assert numbers(directory / "checkpoints") == [3]
    assert pretrain(config, directory)
    np.testing.assert_equal(end_of(config, directory), end_of(*trained))
