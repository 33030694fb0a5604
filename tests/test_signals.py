"""`bertjax.signals`: a run is asked once to stop, and what was there before is there again."""

import os
import queue
import signal
import subprocess
import sys
import threading

import pytest

from bertjax import signals
from bertjax.errors import PREEMPTED


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_is_only_noted(number):
    before = signal.getsignal(number)
    with signals.noted() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_a_second_interrupt_interrupts():
    with signals.noted() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked


def test_a_wait_is_cut_short_by_a_signal():
    """Also one that began when the run had been asked already; and never what comes after it."""
    nothing = queue.Queue()
    with signals.noted() as stop:
        assert stop.wait(lambda: 7) == 7
        sender = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        sender.start()
        with pytest.raises(signals.Stopped):
            stop.wait(lambda: nothing.get(timeout=20))
        sender.join()
        assert stop.asked == "SIGTERM"
        with pytest.raises(signals.Stopped):
            stop.wait(lambda: nothing.get(timeout=20))
        os.kill(os.getpid(), signal.SIGTERM)  # only noted


class Ended(BaseException):
    """The process would have ended here."""


@pytest.fixture
def end_of_process(monkeypatch):
    """What `os._exit` is called with."""
    codes = []

    def end(code):
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    return codes


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_ends_a_process_that_has_nothing_to_save(number, end_of_process, capfd):
    before = signal.getsignal(number)
    with pytest.raises(Ended), signals.ending():
        os.kill(os.getpid(), number)
    assert end_of_process == [PREEMPTED] and signal.getsignal(number) is before
    name = signal.Signals(number).name
    assert capfd.readouterr().err == f"bertjax: asked to stop ({name}): nothing had to be saved\n"


@pytest.mark.parametrize("heeding", [signals.ending, signals.noted])
def test_a_signal_that_is_ignored_stays_so(heeding, end_of_process):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding() as entered:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not getattr(entered, "asked", "")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert end_of_process == []


AT_THE_END = """
import atexit, os, sys
from bertjax import signals
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})
last = Last()
signals.end_at_once()
if sys.argv[1] == "before":
    atexit.register(lambda: globals().pop("last"))
sys.exit(7)
"""


@pytest.mark.parametrize("number", signals.SIGNALS)
@pytest.mark.parametrize(("when", "code"), [("before", PREEMPTED), ("while", 7)])
def test_a_process_keeps_its_code_while_python_takes_itself_apart(number, when, code):
    """And before, while other libraries clean up, it is still ended by the signal."""
    command = [sys.executable, "-c", AT_THE_END.format(number=int(number)), when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("asked to stop" in done.stderr) == (when == "before")
