"""`bertjax COMMAND`: quick help, the right command, documented exit codes."""

import os
import subprocess
import sys

import pytest

from bertjax import errors
from bertjax.cli import main as cli
from bertjax.cli.arguments import Takes
from bertjax.cli.commands import COMMANDS, Command
from bertjax.cli.output import ReadEnough


class JaxRuntimeError(RuntimeError):
    """As XLA's error is called."""


def run(*arguments):
    """Exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return end.value.code


ENDS = {"done": 0, "stopped": errors.PREEMPTED, "refused": errors.NumericError.exit_code, "a bug": 1}


@pytest.mark.parametrize("end", ENDS)
def test_a_compiler_at_work_changes_no_exit_code(end):
    """At its usual end Python throws the thread out of the compiler, and the process aborts."""
    code = f"""
import sys, threading
import jax, jax.numpy as jnp
from bertjax import workers
from bertjax.cli import main as cli
from bertjax.cli.commands import Command, Takes
from bertjax.errors import NumericError

def long(x):
    for i in range(400):
        x = jnp.sin(x @ x) + jnp.cumsum(jnp.sort(x), axis=0) * i
    return x

def run():
    lowered, begun = jax.jit(long).lower(jnp.ones((64, 64))), threading.Event()
    workers.in_thread(lambda: (begun.set(), lowered.compile()))
    begun.wait(60)
    print("shown")
    if {end!r} == "refused":
        raise NumericError("loss = nan: no number")
    if {end!r} == "a bug":
        raise ZeroDivisionError
    return {ENDS[end]}

cli.COMMANDS["info"] = Command(run, "", "", Takes("none"))
cli.main(["info"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == ENDS[end], done.stderr
    assert done.stdout == "shown\n" and "terminate" not in done.stderr
    assert ("Traceback" in done.stderr) == (end == "a bug") and done.stderr.count("ZeroDivisionError") == (
        end == "a bug"
    )


def test_help_needs_nothing_that_is_slow_to_import():
    code = """
import sys
import bertjax
from bertjax.cli.main import COMMANDS, main
for arguments in (["--help"], ["--version"], *([*name.split(), "--help"] for name in COMMANDS)):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0, arguments
print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    slow = ["jax", "flax", "numpy", "ml_collections", "grain", "orbax", "matplotlib"]
    shown = subprocess.run([sys.executable, "-c", code, *slow], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_the_help_lists_every_command(capsys):
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert run(*arguments) == 0
        listed = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_lists_what_it_takes(name, capsys):
    takes = COMMANDS[name].takes
    for asked in ("--help", "-h"):
        assert run(*name.split(), "--anything", asked) == 0
        usage, _, rest = capsys.readouterr().out.partition("\n\n")
        assert usage.startswith(f"usage: bertjax {name} ") and max(map(len, usage.splitlines())) <= 120
        lines = rest.splitlines()
        for flag in takes.named.values():
            shown = f"--{flag.name}={flag.form}" if flag.form else f"--{flag.name}"
            assert shown in usage and (f"[{shown}]" in usage) != flag.required
            (line,) = (line for line in lines if line.startswith(f"  {shown} "))
            assert flag.meaning in line
        assert ("--config.SECTION.FIELD=VALUE" in rest) == (takes.config != "none")
        if takes.words:
            assert takes.words.form in usage and any(line.startswith(f"  {takes.words.form} ") for line in lines)


def test_the_help_of_a_first_word_lists_what_may_follow(capsys):
    assert run("data", "--help") == 0
    shown = capsys.readouterr().out
    assert "data report" in shown and "data verify" in shown and "bench" not in shown
    assert run("bench", "--help") == 0
    shown = capsys.readouterr().out
    assert all(f"bench {what}" in shown for what in ("train", "data", "checkpoint", "encode"))


def test_the_version(capsys):
    assert run("--version") == 0
    word, number = capsys.readouterr().out.split()
    assert word == "bertjax" and number[0].isdigit()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pretrian"], "pretrian: there is no such command; try `bertjax pretrain`"),
        (["data"], "data: there is no such command; try `bertjax data report` or `bertjax data verify`"),
        (
            ["data", "reprot"],
            "data reprot: there is no such command; try `bertjax data report` or `bertjax data verify`",
        ),
        (["--json"], "--json: there is no such command; try `bertjax info` or "),
    ],
)
def test_a_command_that_does_not_exist_is_one_line(arguments, line, capsys):
    assert run(*arguments) == 2
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith(f"bertjax: {line}")


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        *(
            (kind("a: is wrong\nb: too"), kind.exit_code, ["a: is wrong", "b: too"])
            for kind in errors.UserError.__subclasses__()
        ),
        (OSError(28, "No space left on device", "x/y"), 7, ["x/y: No space left on device"]),
        (MemoryError("of 5 bytes"), 8, ["import: memory ran out (of 5 bytes); free some"]),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 5 bytes\nmore"), 8, ["import: memory ran out (RESOURCE_EXHAUSTED: 5"]),
        (ReadEnough(), 0, []),
        (BrokenPipeError(32, "Broken pipe"), 7, ["input or output: Broken pipe"]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_an_error_is_a_line_and_an_exit_code(error, code, lines, monkeypatch, capfd):
    def fail():
        raise error

    monkeypatch.setitem(COMMANDS, "import", Command(fail, "fails", "", Takes("none")))
    assert run("import") == code
    shown = capfd.readouterr().err.splitlines()
    assert len(shown) == len(lines)
    assert all(line.startswith(f"bertjax: {start}") for line, start in zip(shown, lines, strict=True))


def test_an_error_of_the_package_itself_is_not_hidden(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setitem(COMMANDS, "import", Command(fail, "fails", "", Takes("none")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["import"])


def test_a_result_that_is_no_number_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("bertjax.tasks.evaluate.evaluate", lambda *_: {"mlm_loss": float("nan")})
    assert run("evaluate", "--config=configs/bert.py:tiny", f"--workdir={tmp_path}") == 5
    out, err = capsys.readouterr()
    assert out == "" and "no longer a number" in err


def test_only_a_reader_that_has_read_enough_is_a_success(monkeypatch, tmp_path):
    """`bertjax info | head -1` ends with 0; a pipe that breaks elsewhere does not."""
    command, environment = (
        [sys.executable, "-m", "bertjax", "info", "--config=configs/bert.py:tiny"],
        {**os.environ, "PYTHONUNBUFFERED": ""},
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 0

    def broken(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("bertjax.tasks.pretrain.pretrain", broken)
    assert run("pretrain", "--config=configs/bert.py:tiny", f"--workdir={tmp_path}") == 7
