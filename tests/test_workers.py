"""Processes leave signals to their parent and end with it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bertjax import workers

PARENT = """
import multiprocessing, os, signal, sys, time
from bertjax import workers

def work(pipe):
    workers.begin((signal.SIGINT,))
    pipe.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    with workers.shielded():
        child = context.Process(target=work, args=(there,))
        child.start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    print(here.recv(), len(blocked), flush=True)
    time.sleep(600)
"""


def runs(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def signals(pid, field):
    """The signals that a process blocks (SigBlk) or ignores (SigIgn)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {number for number in signal.Signals if int(status[field], 16) & 1 << (number - 1)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_worker_ignores_what_it_is_told_to_and_ends_with_its_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, env=environment)
    try:
        child, blocked = map(int, parent.stdout.readline().split())
        assert blocked == 0, "the parent has its signals back"
        assert signals(child, "SigBlk") == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        assert signal.SIGINT in signals(child, "SigIgn") and signal.SIGTERM not in signals(child, "SigIgn")
        os.kill(child, signal.SIGINT)
        time.sleep(0.2)
        assert runs(child)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 20
        while runs(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not runs(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_a_thread_that_is_at_work():
    """What it gives is had from it, and what it raises; and a command that was asked to stop does not wait for it."""
    go_on = threading.Event()
    future = workers.in_thread(lambda: go_on.wait(60) and 7)
    assert workers.at_work() and not future.done()
    go_on.set()
    assert future.result(60) == 7
    with pytest.raises(KeyError):
        workers.in_thread(lambda: {}["none"]).result(60)
    for _ in range(600):
        if not workers.at_work():
            break
        time.sleep(0.1)
    assert not workers.at_work()


def test_each_keeps_the_order_and_raises_the_first_error():
    def half(number):
        time.sleep(0.02 * (number == 0))
        if number % 2:
            raise ValueError(number)
        return number // 2

    assert workers.each(half, range(0, 40, 2)) == list(range(20)) and workers.each(half, []) == []
    with pytest.raises(ValueError, match="^3$"):
        workers.each(half, [0, 2, 3, 5])
