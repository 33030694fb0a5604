"""Thousands of steps with evaluations, saves and three resumes take no more memory, files or threads than hundreds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import tiny

from bertjax.config.recipe import to_dict

STEPS = int(os.environ.get("BERTJAX_SOAK_STEPS", "400"))
"""The short form; docs/development.md has the long one, whose batches come from a process."""

RUN = """
import gc, json, os, signal, sys
from pathlib import Path

from bertjax.config.recipe import from_dict
from bertjax.tasks import evaluate as evaluation, pretrain as pretraining
from bertjax.train.task import Evaluation

config, directory = from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])
held_out, memory, evaluations = evaluation.held_out, {}, 0


def mebibytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measured(*arguments):
    function = held_out(*arguments)

    def evaluate(params):
        global evaluations
        values, evaluations = function(params), evaluations + 1
        step = evaluations * config.run.eval_every
        memory[step] = mebibytes()
        if step in (config.run.steps // 10, config.run.steps // 2, 3 * config.run.steps // 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    return evaluate


evaluation.held_out = measured
ends = []
for done in (False, False, False, True):
    assert pretraining.pretrain(config, directory) is done
    gc.collect()
    ends.append([len(os.listdir(f"/proc/self/{what}")) for what in ("fd", "task")])
    ends[-1].append(len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
print(json.dumps({"memory": memory, "ends": ends}))
"""


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs /proc")
def test_a_long_run_takes_no_more_than_a_short_one(inputs, tmp_path):
    """Memory in MiB grows by 5 % at most after the first fifth. A tenth of the steps and a resume are the warm-up: the
    resume imports what restores (25 MiB). Files, threads and processes are the same whenever a part has ended.
    """
    config = tiny(
        data=inputs
        | {"batch_size": 2, "seq_len": 16, "max_predictions": 2, "loader_threads": 1}
        | {"loader_workers": int(STEPS >= 2_000)},
        model={"num_layers": 1, "hidden_size": 8, "embedding_size": 8, "num_heads": 2, "ffn_size": 16},
        run={"steps": STEPS, "eval_every": STEPS // 40, "eval_rows": 2, "save_every": STEPS // 10, "log_every": 10},
    )
    environment = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    before = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-c", RUN, json.dumps(to_dict(config)), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    memory = {int(step): used for step, used in found["memory"].items()}
    start = STEPS // 5
    grown = memory[STEPS] / memory[start] - 1
    print(f"{memory[start]:.0f} MiB at step {start}, {memory[STEPS]:.0f} at {STEPS}: {grown:+.1%}; {found['ends']}")
    assert max(used for step, used in memory.items() if step >= start) <= 1.05 * memory[start]
    for counts in zip(*found["ends"], strict=True):
        assert max(counts) - min(counts) <= 2, found["ends"]  # a thread that is about to end may still be there
    if STEPS >= 2_000:  # alone on the machine
        assert set(os.listdir("/dev/shm")) <= before
