"""`bertjax.console`: what cannot be written on standard error is dropped, and nothing else is."""

import os
import subprocess
import sys

import pytest

from bertjax import console
from bertjax.progress import Progress


class Broken:
    """A standard error that is a terminal which has gone away."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError(32, "Broken pipe")

    flush = isatty = lambda self: True


def test_lines_come_again_when_the_stream_does(monkeypatch, capsys):
    console.say("one")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Broken())
        console.say("two")
    console.say("three")
    assert capsys.readouterr().err == "one\nthree\n"


def test_the_bar_outlives_its_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken())
    bar = Progress(100, unit="step", label="pretrain")
    for step in range(100):
        bar.advance()
        bar.say(f"step {step}")
    bar.close()


@pytest.mark.parametrize("code", [0, 5])
def test_the_exit_code_is_the_commands(code):
    """Python ends with 120 where its standard error cannot be flushed."""
    script = f"import sys; from bertjax.console import say; say('x'); sys.exit({code})"
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-c", script], stderr=full, env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert run.returncode == code
