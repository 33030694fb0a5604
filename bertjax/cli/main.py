"""`bertjax COMMAND`: finds the command, runs it, and turns errors into a line and an exit code."""

import difflib
import logging
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from typing import Any

from bertjax.cli.arguments import parse
from bertjax.cli.commands import COMMANDS
from bertjax.cli.output import ReadEnough, show
from bertjax.cli.overrides import recipes
from bertjax.console import say_last
from bertjax.errors import (
    PREEMPTED,
    ConfigError,
    OutOfMemory,
    PeerError,
    StorageError,
    UserError,
    memory_ran_out,
    one_line,
    peer_is_gone,
    printable,
)
from bertjax.parallel import launched

USAGE = """usage: bertjax COMMAND [--config=RECIPE[:ARGUMENT]] [--config.SECTION.FIELD=VALUE ...] [--workdir=DIR] ...

Pretraining of the BERT family in JAX.

commands
{commands}

`bertjax COMMAND --help` tells more, `bertjax --version` the version, `bertjax config` what each field means.
A run needs --config once: its directory remembers the recipe and what is changed in it. Recipes are files, or one of
{recipes}.

exit codes
  0 done   2 usage or config   3 data   4 checkpoint   5 a loss or a parameter is no longer a number
  6 another process died or gives nothing   7 storage   8 memory
  75 asked to stop (SIGTERM, SIGHUP, Ctrl-C): the state is saved, the same command goes on from it"""


def main(argv: list[str] | None = None) -> None:
    """Parse, run, exit. What signals mean is for `bertjax.__main__` to say."""
    arguments = sys.argv[1:] if argv is None else argv
    _tell_failed_saves_once()
    try:
        code = _dispatch(arguments)
    except UserError as error:
        for line in str(error).splitlines():
            say_last(f"bertjax: {printable(line)}")
        code = error.exit_code
    except ReadEnough:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a missing permission: wherever it happens, the file is in the error
        place, problem = error.filename or "input or output", error.strerror or error
        say_last(f"bertjax: {printable(str(place))}: {problem}; check the disk, the path and its permissions")
        code = StorageError.exit_code
    except Exception as error:
        if _with_others() and peer_is_gone(error):
            fix = "see what it said last; start all again, and they go on from the newest checkpoint"
            say_last(f"bertjax: {arguments[0]}: another process of this run is gone ({one_line(error)}); {fix}")
            _leave_others(PeerError.exit_code)
        if not memory_ran_out(error):
            _leave_others(1, traceback.format_exc())
            _leave_compiler(1, traceback.format_exc())
            raise
        fix = "free some, or lower data.batch_size or raise optim.accumulate: fewer rows are then computed at a time"
        say_last(f"bertjax: {arguments[0]}: memory ran out ({one_line(error)}); {fix}")
        code = OutOfMemory.exit_code
    if code not in (0, PREEMPTED):
        _leave_others(code)
    _leave_compiler(code)
    sys.exit(code)


def _leave_others(code: int, told: str = "") -> None:
    """End this process at once if it is one of several: at its usual end it would wait for them, and they for it."""
    if _with_others():
        from bertjax.parallel import distributed

        if told:
            say_last(told)
        if distributed.first():
            time.sleep(1)  # with it goes what the others ask: those that fail as well say so before that
        os._exit(code)


def _leave_compiler(code: int, told: str = "") -> None:
    """End this process at once if a thread of it still compiles, as that of a next phase, or opens data: at the usual
    end Python takes the thread out of the compiler's midst, and the process aborts.
    """
    from bertjax import workers  # here, for the sake of --help

    if workers.at_work():
        if told:
            say_last(told)
        if _with_others():
            from bertjax.parallel import distributed

            distributed.part()
        sys.stdout.flush()
        os._exit(code)


def _with_others() -> bool:
    """Whether this is one of several processes of a run, asked without importing JAX."""
    if "bertjax.parallel.distributed" not in sys.modules:
        return False
    from bertjax.parallel import distributed

    return distributed.joined()


def _tell_failed_saves_once() -> None:
    """A save that fails is raised, and told as a line; Orbax logs it as well, and asyncio each of its writes.

    TensorStore hands the results of the other writes to an event loop that is closed by then. Nobody can catch that.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _show_unraisable


def _show_unraisable(unraisable: Any, otherwise: Callable[[Any], Any] = sys.unraisablehook) -> None:
    if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
        otherwise(unraisable)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("--help", "-h", "help"):
        show(USAGE.format(commands=_listed(list(COMMANDS)), recipes=", ".join(recipes())))
        return 0
    if first == "--version":
        from importlib.metadata import version

        show(f"bertjax {version('bertjax')}")
        return 0
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    asked = bool({"--help", "-h"} & set(rest))
    below = [other for other in COMMANDS if other.startswith(f"{first} ")]
    if name not in COMMANDS and asked and below:
        show(f"usage: bertjax {first} COMMAND ...\n\ncommands\n{_listed(below)}")
        return 0
    if name not in COMMANDS:
        near = below or difflib.get_close_matches(first, COMMANDS, n=1) or list(COMMANDS)
        shown = " ".join(arguments[:2]) if below else first
        raise ConfigError(f"{shown}: there is no such command; try {' or '.join(f'`bertjax {n}`' for n in near)}")
    if asked:
        show(help_of(name))
        return 0
    command = COMMANDS[name]
    if command.shared and launched.is_told(os.environ):
        from bertjax.parallel import distributed  # here, since it imports JAX

        distributed.start(os.environ)
    return command.run(**parse(rest, command.takes, _taken_by()))


def _taken_by() -> dict[str, list[str]]:
    """Flag -> the commands that take it."""
    taken_by: dict[str, list[str]] = {}
    for other, its in COMMANDS.items():
        for flag in its.takes.named:
            taken_by.setdefault(flag, []).append(other)
    return taken_by


def help_of(name: str) -> str:
    """The help of a command: how it is called, what it does, each thing that it takes with its meaning."""
    command = COMMANDS[name]
    usage, lines = [f"usage: bertjax {name}"], []
    for flag in command.takes.named.values():
        shown = f"--{flag.name}={flag.form}" if flag.form else f"--{flag.name}"
        usage.append(shown if flag.required else f"[{shown}]")
        lines.append((shown, flag.meaning + (f" (default {flag.default})" if flag.default else "")))
        if flag.name == "config":
            usage.append("[--config.SECTION.FIELD=VALUE ...]")
            lines.append(("--config.SECTION.FIELD=VALUE", "change a field of it; the values of a list as 1,2,3"))
    words = command.takes.words
    if words:
        usage.append(words.form if words.least else f"[{words.form}]")
        lines.append((words.form, words.meaning))
    lines += [(f"bertjax {other}", COMMANDS[other].summary) for other in COMMANDS if other.startswith(f"{name} ")]
    width = max(len(shown) for shown, _ in lines)
    table = "\n".join(f"  {shown:<{width}}  {meaning}" for shown, meaning in lines)
    called = textwrap.fill(" ".join(usage), 100, subsequent_indent="    ")
    return f"{called}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n{command.details}\n\n{table}"


def _listed(names: list[str]) -> str:
    width = max(map(len, names))
    return "\n".join(f"  {name:<{width}}  {COMMANDS[name].summary}" for name in names)
