"""launch/slurm.sbatch, with srun and scontrol that only pretend, and on a real Slurm where there is one."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from fakes import BERTJAX, Place

JOB = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8"}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path, "srun", "scontrol")


@pytest.mark.parametrize(
    ("end", "restarts", "code", "requeued"),
    [
        (0, 0, 0, False),
        (75, 0, 75, True),
        (75, 99, 75, True),
        (6, 0, 6, True),
        (6, 10, 6, False),
        ("kill", 0, 137, True),
        *((code, 0, code, False) for code in (1, 2, 3, 4, 5, 7, 8)),
    ],
)
def test_a_job_is_put_back_where_it_is_worth_it(place, end, restarts, code, requeued):
    place.plan(end)
    job = {**JOB, "SLURM_SUBMIT_DIR": str(place.repository), "SLURM_RESTART_COUNT": str(restarts)}
    run = place.run("launch/slurm.sbatch", "pretrain", "--workdir=/s/a b,*", **job)
    assert run.returncode == code, run.stderr
    assert place.lines("calls") == (["scontrol requeue 17"] if requeued else [])
    assert place.records("arguments") == [["pretrain", "--workdir=/s/a b,*"]]
    assert place.records("environment") == [["BERTJAX_EXPECT_DEVICES=8"]]


def test_a_preemption_that_reaches_the_shell_too_puts_the_job_back(place):
    place.plan("wait")
    run = place.start("launch/slurm.sbatch", "pretrain", SLURM_SUBMIT_DIR=str(place.repository), **JOB)
    place.until_it_waits()
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    run.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert run.poll() is None
    grandchildren = subprocess.run(["pgrep", "-P", children[0]], capture_output=True, text=True, check=True).stdout
    for pid in grandchildren.split():
        os.kill(int(pid), signal.SIGTERM)
    run.communicate(timeout=20)
    assert (run.returncode, place.lines("calls")) == (75, ["scontrol requeue 17"])


def test_outside_of_a_job_it_says_how_to_submit(place):
    run = place.run("launch/slurm.sbatch", "pretrain", "--workdir=a b")
    assert run.returncode == 2
    assert "sbatch launch/slurm.sbatch pretrain '--workdir=a b'" in run.stderr
