"""When a run is started again, and what a signal does: run.sh, gpu_node.sh and worker.sh with a pretended bertjax."""

import os
import re
import signal

import pytest
from pretended import Place, alive, worth_a_restart

from bertjax import errors


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def codes():
    """Of bertjax/errors.py: name -> exit code."""
    return {c.__name__: c.exit_code for c in vars(errors).values() if isinstance(c, type) and hasattr(c, "exit_code")}


def test_of_the_documented_codes_two_are_worth_a_restart():
    assert worth_a_restart() & {1, errors.PREEMPTED, *codes().values()} == {
        errors.PREEMPTED,
        errors.WorkerError.exit_code,
    }
    assert {128 + number for number in (signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV)} < worth_a_restart()


@pytest.mark.parametrize(
    ("plan", "restarts", "code", "calls"),
    [
        ((75, 75, 0), 3, 0, 3),
        ((6, "kill", 0), 3, 0, 3),
        ((0,), 3, 0, 1),
        ((75, 75, 75, 75), 1, 75, 2),
        (("kill",), 0, 137, 1),
        ((75, 3, 0), 3, 3, 2),
        *(((code, 0), 3, code, 1) for code in (1, 2, 3, 4, 5, 7, 8)),
    ],
)
def test_a_run_is_started_again_where_it_is_worth_it(place, plan, restarts, code, calls):
    place.plan(*plan)
    run = place.run("launch/run.sh", f"--max-restarts={restarts}", "pretrain", "--workdir=runs/my run, *.txt")
    assert run.returncode == code
    assert place.records("arguments") == [["pretrain", "--workdir=runs/my run, *.txt"]] * calls
    assert len(re.findall("start again", run.stderr)) == calls - 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_and_ends_the_restarts(place, number):
    place.plan("wait", 0)
    run = place.start("launch/run.sh", "--max-restarts=3", "pretrain")
    place.until_it_waits()
    run.send_signal(number)
    out, _ = run.communicate(timeout=60)
    assert (run.returncode, len(place.records("arguments"))) == (75, 1)
    assert "saved" in out


def test_the_environment_of_the_devices_is_set_and_ones_own_comes_last(place):
    (place.bin / "bertjax").write_text('#!/usr/bin/env bash\necho "$LIBTPU_INIT_ARGS"\n')
    run = place.run("launch/run.sh", "--environment=launch/tpu.env", "pretrain", LIBTPU_INIT_ARGS="--mine=1")
    assert re.fullmatch(r"--xla\S+( --xla\S+)* --mine=1\n", run.stdout)


def test_one_process_for_each_gpu_knows_its_own(place):
    place.run("launch/gpu_node.sh", "--gpus=2", "--per=gpu", "pretrain")
    (first,), (second,) = place.records("environment0"), place.records("environment1")
    common = {"BERTJAX_EXPECT_DEVICES=2", "BERTJAX_PROCESSES=2", "BERTJAX_COORDINATOR=127.0.0.1:8476"}
    assert set(first) == common | {"BERTJAX_PROCESS=0", "BERTJAX_LOCAL_DEVICES=0"}
    assert set(second) == common | {"BERTJAX_PROCESS=1", "BERTJAX_LOCAL_DEVICES=1"}


def test_one_process_for_each_host_has_all_gpus(place):
    """Spelled out: JAX would give a process with a local number only the GPU of that number."""
    flags = ["--gpus=8", "--hosts=2", "--host=1", "--coordinator=node0:8476"]
    place.run("launch/gpu_node.sh", *flags, "pretrain")
    (found,) = place.records("environment1")
    assert "BERTJAX_LOCAL_DEVICES=0,1,2,3,4,5,6,7" in found
    assert {"BERTJAX_EXPECT_DEVICES=16", "BERTJAX_PROCESSES=2", "BERTJAX_COORDINATOR=node0:8476"} < set(found)


@pytest.mark.parametrize(
    ("plans", "code", "calls"),
    [
        (((6, 0), (3, 0)), 3, 1),
        (((3, 0), ("kill", 0)), 3, 1),
        (((75, 0), (6, 0)), 0, 2),
        ((("kill", 0), (0, 0)), 0, 2),
    ],
)
def test_the_processes_of_a_host_are_started_again_together(place, plans, code, calls):
    """And not where one of them ended with a code that would come again, whatever its peers say."""
    for process, plan in enumerate(plans):
        place.plan(*plan, process=process)
    run = place.run("launch/gpu_node.sh", "--gpus=2", "--per=gpu", "--max-restarts=3", "pretrain")
    assert run.returncode == code
    assert [len(place.records(f"arguments{process}")) for process in (0, 1)] == [calls, calls]


def test_one_that_hangs_when_another_has_ended_is_ended(place):
    place.plan(6, process=0)
    place.plan("wait", process=1)
    run = place.run("launch/local.sh", "--processes=2", "--grace=1", "pretrain")
    assert run.returncode == 6
    for number, code in ((0, 6), (1, 137)):
        assert f"launch: process {number} ended with exit code {code}\n" in run.stderr


def test_local_processes_know_each_other_and_their_devices(place):
    place.plan(75, 0, process=0)
    place.plan(6, 0, process=1)
    run = place.run("launch/local.sh", "--processes", "2", "--devices", "3", "--max-restarts", "1", "pretrain")
    assert run.returncode == 0, run.stderr
    found = {process: place.records(f"environment{process}") for process in (0, 1)}
    assert all(len(starts) == 2 for starts in found.values())
    for process, starts in found.items():
        for start in starts:
            assert {"BERTJAX_EXPECT_DEVICES=6", "BERTJAX_PROCESSES=2", f"BERTJAX_PROCESS={process}"} < set(start)
    coordinators = [
        [next(v for v in start if v.startswith("BERTJAX_COORDINATOR=127.0.0.1:")) for start in starts]
        for starts in found.values()
    ]
    assert coordinators[0] == coordinators[1]


def test_a_worker_outlives_what_started_it_and_is_stopped(place):
    def worker(action, *more):
        return place.run("launch/worker.sh", action, "tiny", *more)

    host = worker("status").stdout.split(":")[0]
    assert worker("status").stdout == f"{host}: absent\n"
    place.plan("wait", 0)
    started = worker("start", "launch/run.sh", "--max-restarts=3", "pretrain", "--workdir=a b,*")
    assert started.returncode == 0, started.stderr
    place.until_it_waits()
    pid = int((place.root / "home/.bertjax/tiny/pid").read_text())
    assert os.getsid(pid) == pid  # a session of its own: a hangup of ssh is not for it
    assert worker("status").stdout == f"{host}: running {pid}\n"
    again = worker("start", "launch/run.sh", "pretrain")
    assert again.returncode == 2
    assert "tiny runs already" in again.stderr
    assert "begun" in worker("logs", "--lines=5").stdout
    assert worker("stop").stdout == f"{host}: ended 75\n"
    assert not alive(pid)
    assert place.records("arguments") == [["pretrain", "--workdir=a b,*"]]
    assert worker("stop").stdout == f"{host}: ended 75\n"  # nothing left to stop
    place.plan(3)
    worker("start", "launch/run.sh", "pretrain")
    place.until(lambda: worker("status").stdout == f"{host}: ended 3\n")


def test_what_a_killed_worker_left_is_still_stopped(place):
    """The lock belongs to all of its processes, so that nothing starts beside a run that still holds the devices."""
    place.plan(3, "wait", 0)
    place.run("launch/worker.sh", "start", "tiny", "launch/run.sh", "pretrain")
    place.until(lambda: "ended 3" in place.run("launch/worker.sh", "status", "tiny").stdout)
    place.run("launch/worker.sh", "start", "tiny", "launch/run.sh", "pretrain")
    place.until_it_waits()
    os.kill(int((place.root / "home/.bertjax/tiny/pid").read_text()), signal.SIGKILL)
    assert "running" in place.run("launch/worker.sh", "status", "tiny").stdout
    assert place.run("launch/worker.sh", "start", "tiny", "launch/run.sh", "pretrain").returncode == 2
    assert "died" in place.run("launch/worker.sh", "stop", "tiny").stdout
