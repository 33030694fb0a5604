"""`bertjax COMMAND`: what a signal means from the first line to the last."""

import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from bertjax import __main__ as entry
from bertjax.cli.commands import COMMANDS
from bertjax.errors import PREEMPTED
from bertjax.signals import SIGNALS

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
MODULE, FUNCTION = PROJECT["scripts"]["bertjax"].split(":")
SCRIPT = f"""
import os, sys
watched, then = sys.argv.pop(1), sys.argv.pop(1)
class Watch:
    def find_spec(name, path=None, target=None):
        if name == watched:
            os.write(1, b"x") if then == "tell" else os.kill(os.getpid(), int(then))
sys.meta_path.insert(0, Watch)
from {MODULE} import {FUNCTION}
{FUNCTION}()
"""
"""The console script as pip makes it. When it is about to import this module, it tells so or sends itself a signal."""

FIRST = "bertjax.cli"
"""What the entry imports first, when it has settled what signals mean."""


def script(module, then, *arguments):
    return [sys.executable, "-c", SCRIPT, module, str(int(then) if then != "tell" else then), *arguments]


def pretrain(directory):
    return "pretrain", "--config=configs/bert.py:tiny", f"--workdir={directory / 'run'}"


def told(number):
    return f"bertjax: asked to stop ({number.name}): nothing had to be saved\n"


@pytest.mark.parametrize(
    ("module", "number"),
    [*((FIRST, number) for number in SIGNALS), ("ml_collections", signal.SIGINT), ("jax", signal.SIGTERM)],
)
def test_a_run_that_is_asked_to_stop_while_it_starts_can_be_started_again(tmp_path, module, number):
    """While it imports the command, its recipe's and the run's modules: the exit code is that of a run that saved."""
    done = subprocess.run(script(module, number, *pretrain(tmp_path)), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (PREEMPTED, "", told(number))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.06, 0.1, 0.2])
def test_a_signal_from_without_while_it_starts(tmp_path, seconds):
    """At whatever moment after its first line."""
    with subprocess.Popen(
        script(FIRST, "tell", *pretrain(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.read(1)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        shown = process.communicate(timeout=60)[1]
    assert (process.returncode, shown) == (PREEMPTED, told(signal.SIGINT))


@pytest.mark.parametrize("module", [FIRST, "ml_collections"])
def test_another_command_is_ended_by_the_signal_itself(module):
    """A supervisor need not start it again."""
    assert set(entry.GOES_ON) < set(COMMANDS)
    for number in SIGNALS:
        command = script(module, number, "info", "--config=configs/bert.py:tiny")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if number == signal.SIGINT:
            assert (done.returncode, done.stderr) == (130, "bertjax: interrupted\n")
        else:
            assert (done.returncode, done.stderr) == (-number, "")


def test_it_imports_little_before_it_heeds_signals():
    code = f"import sys; from {MODULE} import {FUNCTION}; print(*(n for n in sys.modules if n.startswith('bertjax')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {"bertjax", MODULE, "bertjax.console", "bertjax.errors", "bertjax.signals"}


def test_it_can_be_called_as_a_module():
    done = subprocess.run([sys.executable, "-m", "bertjax", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("bertjax ")
