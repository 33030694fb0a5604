"""`bertjax.data.processes`: elements in order, an end to whatever the processes do, and nothing left behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertjax.data.processes import Processes
from bertjax.errors import WorkerError

SHARED = Path("/dev/shm")


def numbers(count, *, patience=60):
    """0, 1, 2, ... from `count` processes: process k counts from k in steps of `count`."""
    return Processes(itertools.count, count=count, patience=patience)


def pids(made):
    return [process.pid for process in made._processes]


def ended(pids):
    """Whether these processes end within seconds."""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("count", [1, 3])
def test_elements_come_in_order(count):
    made = numbers(count)
    assert [next(made) for _ in range(2_000)] == list(range(2_000))
    made.close()
    made.close()  # again
    assert ended(pids(made))


def test_a_process_that_was_killed_is_named():
    """What came before is in order."""
    made = numbers(2)
    assert next(made) == 0
    victim = made._processes[1]
    victim.kill()
    got, start = [], time.monotonic()
    with pytest.raises(WorkerError) as caught:
        got.extend(made)
    assert time.monotonic() - start < 10 and got == list(range(1, 1 + len(got)))
    cause = "was ended by SIGKILL, as happens when memory runs out"
    assert str(caught.value) == f"data.loader_workers = 2: process {victim.pid} {cause}"
    made.close()
    assert ended(pids(made))


def test_a_process_that_hangs_is_named_and_ended():
    made = numbers(2)
    assert next(made) == 0
    made._patience, victim = 1, made._processes[0]
    os.kill(victim.pid, signal.SIGSTOP)
    got = []
    with pytest.raises(WorkerError, match=rf"= 2: process {victim.pid} gave no batch in data.loader_timeout = 1 s; "):
        got.extend(made)
    assert got == list(range(1, 1 + len(got)))
    start = time.monotonic()
    made.close()
    assert time.monotonic() - start < 4 and ended(pids(made))


def test_an_error_comes_as_it_is_and_tells_where_it_was():
    made = Processes(int, count=3, patience=60)  # int(0, 3)
    with pytest.raises(TypeError, match="non-string with explicit base") as caught:
        next(made)
    assert "In a loader process:\nTraceback" in caught.value.__notes__[0]
    made.close()


def test_processes_end_with_what_is_dropped():
    made = numbers(2)
    next(made)
    left = pids(made)
    del made
    assert ended(left)


SCRIPT = """
import itertools, os, sys, time
from bertjax.data.processes import Processes
if __name__ == "__main__":
    made = Processes(itertools.count, count=2, patience=60)
    next(made)
    print(*(process.pid for process in made._processes), flush=True)
    time.sleep({seconds})
"""


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs /dev/shm")
@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left_of_a_program(tmp_path, killed):
    """One that ends without closing them, and one that is killed with all its processes."""
    before = set(os.listdir(SHARED))
    script = tmp_path / "program.py"
    script.write_text(SCRIPT.format(seconds=60 if killed else 0))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, script], env=environment, start_new_session=True, **pipes) as program:
        left = list(map(int, program.stdout.readline().split()))
        if killed:
            os.killpg(program.pid, signal.SIGKILL)
        assert program.wait(timeout=20) == (-signal.SIGKILL if killed else 0)
        assert program.stderr.read() == ""
    assert len(left) == 2 and ended(left)
    deadline = time.monotonic() + 20  # for what other tests do at the same time
    while set(os.listdir(SHARED)) - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(os.listdir(SHARED)) <= before
