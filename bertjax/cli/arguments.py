"""The command line -> a validated config and the values of a command's flags. Every mistake in it is in one report."""

import difflib
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertjax.cli.overrides import Overrides, Resolved, configured, kinds
from bertjax.console import say
from bertjax.errors import ConfigError, UserError
from bertjax.storage import in_bucket, place, user_path


def directory(text: str) -> Path:
    """Reads a directory of this machine, which need not exist."""
    if not text or "://" in text:
        raise ValueError("must be a local or mounted directory")
    return user_path(text)


def run_directory(text: str) -> Path:
    """Reads the directory of a run, of this machine or in a bucket."""
    return place(text) if in_bucket(text) else directory(text)


@dataclass(frozen=True)
class Flag:
    """A flag of a command, `--name=FORM`, or `--name` alone where `form` is empty: a switch, False unless given.

    `read` makes the value of the text, and raises ValueError saying what the text must be.
    """

    name: str
    form: str
    meaning: str
    read: Callable[[str], Any] = str
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Words:
    """What a command takes beside its flags: at least `least` words, and at most `most` unless that is None."""

    form: str
    meaning: str
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Takes:
    """What a command takes, and what it does with a config: which comes with --config, and without it from --workdir.

    "read"   it gets the config
    "kept"   it also gets the `origin` of that, and writes both into --workdir for the commands that follow
    "shown"  it gets the config `resolved`, with where each value is from; without both flags, the defaults
    "none"   it takes no config
    """

    config: Literal["read", "kept", "shown", "none"] = "read"
    flags: tuple[Flag, ...] = ()
    words: Words | None = None

    @property
    def named(self) -> dict[str, Flag]:
        """Every flag by its name, --config and --workdir among them."""
        own = {flag.name: flag for flag in self.flags}
        return own if self.config == "none" else {"config": _RECIPE, "workdir": _RUN} | own


_RECIPE = Flag("config", "RECIPE[:ARGUMENT]", "the recipe, as bert:tiny or my/recipe.py; else, that of --workdir")
_RUN = Flag("workdir", "DIR", "the directory of a run, whose config is taken", run_directory)


def parse(argv: list[str], takes: Takes, taken_by: Mapping[str, list[str]]) -> dict[str, Any]:
    """The values of a command by name: of its flags, its `words`, and what it gets of a validated config (`Takes`).

    `taken_by` names the commands that take a flag, for the message about a flag that this one does not take. Raises
    ConfigError with a line for each mistake in flags, overrides and values.
    """
    pairs, words = _split(argv, switches={name for name, flag in takes.named.items() if not flag.form})
    errors: list[str] = []
    overrides = [pair for pair in pairs if "config" in takes.named and pair[0].startswith("config.")]
    given = _values([pair for pair in pairs if pair not in overrides], takes, taken_by, errors)
    values = {flag.name: given[flag.name] for flag in takes.flags}
    if takes.words:
        values["words"] = words
    _check_words(words, takes.words, errors)
    resolved = None
    if takes.config != "none" and (given["config"] is not None or not errors):
        try:
            resolved = _resolved(given["config"], given["workdir"], overrides, default=takes.config == "shown")
        except UserError as error:
            if not errors and not isinstance(error, ConfigError):
                raise  # what a recipe found wrong with the text that it was fitted to, with an exit code of its own
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return values | (_of_config(resolved, takes) if resolved else {})


def _resolved(recipe: str | None, workdir: Path | None, overrides: Overrides, *, default: bool) -> Resolved:
    if not (recipe or workdir or default):
        raise ConfigError(f"--config: is missing; give --config={_RECIPE.form}, {_RECIPE.meaning}")
    return configured(recipe, workdir, overrides, default=default)


def _of_config(resolved: Resolved, takes: Takes) -> dict[str, Any]:
    """What a command gets of it, by name."""
    if resolved.told:
        say(resolved.told)
    if takes.config == "shown":
        return {"resolved": resolved}
    return {"config": resolved.config} | ({"origin": resolved.origin} if takes.config == "kept" else {})


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return int(text)

    return read


def saved_step(text: str) -> int | str:
    """Reads which checkpoint of a run is meant."""
    if text in ("newest", "best"):
        return text
    if not text.isdecimal():
        raise ValueError("must be the number of a step, newest or best")
    return int(text)


def seconds(text: str) -> float:
    """Reads a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return value


def several(text: str) -> tuple[str, ...]:
    """Reads texts with commas between."""
    parts = tuple(part.strip() for part in text.split(","))
    if "" in parts:
        raise ValueError("must be one or several, with commas between")
    return parts


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of these."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return text

    return read


def new_file(*endings: str) -> Callable[[str], Path]:
    """Reads a file to write, in a folder that exists, so that no work is lost at its end."""

    def read(text: str) -> Path:
        if in_bucket(text):
            raise ValueError("must be a file of this machine")
        path = user_path(text)
        if endings and path.suffix not in endings:
            raise ValueError(f"must end in {' or '.join(endings)}")
        if not path.parent.is_dir():
            raise ValueError(f"the folder {path.parent} does not exist; create it, or name another")
        if not text or path.is_dir():
            raise ValueError("must be a file")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError("cannot be written; check its permissions, or name another")
        return path

    return read


def _split(argv: list[str], *, switches: set[str]) -> tuple[Overrides, list[str]]:
    """The flags, with their values after an equals sign or as the next argument, and the words beside them."""
    pairs: Overrides = []
    words: list[str] = []
    rest = deque(argv)
    while rest:
        argument = rest.popleft()
        if argument == "--":
            return pairs, [*words, *rest]
        name, equals, value = argument[2:].partition("=")
        if not argument.startswith("--"):
            words.append(argument)
        elif equals:
            pairs.append((name, value))
        elif name in switches or not rest or rest[0].startswith("--"):
            pairs.append((name, None))
        else:
            pairs.append((name, rest.popleft()))
    return pairs, words


def _values(pairs: Overrides, takes: Takes, taken_by: Mapping[str, list[str]], errors: list[str]) -> dict[str, Any]:
    values = {name: flag.default if flag.form else False for name, flag in takes.named.items()}
    given: set[str] = set()
    for name, text in pairs:
        flag = takes.named.get(name)
        if flag is None:
            errors.append(f"--{name}: {_unknown(name, takes, taken_by)}")
        elif name in given:
            errors.append(f"--{name}: is given twice; give it once")
        elif flag.form and text is None:
            errors.append(f"--{name}: needs a value, --{name}={flag.form}")
        elif not flag.form and text is not None:
            errors.append(f"--{name}={text}: takes no value; give --{name}")
        else:
            try:
                values[name] = True if text is None else flag.read(text)
            except ValueError as error:
                errors.append(f"--{name}={text}: {error}")
        given.add(name)
    if given <= takes.named.keys():  # one that is not known may be the one that is missing, misspelt
        for name, flag in takes.named.items():
            if flag.required and name not in given:
                errors.append(f"--{name}: is missing; give --{name}={flag.form}, {flag.meaning}")
    return values


def _unknown(name: str, takes: Takes, taken_by: Mapping[str, list[str]]) -> str:
    others = taken_by.get(name.split(".")[0])
    if others:
        return f"is not for this command, but for {', '.join(f'`bertjax {other}`' for other in others)}"
    fields = kinds() if "config" in takes.named else {}
    known = {path.split(".")[1]: f"--config.{path}" for path in fields} | {flag: f"--{flag}" for flag in takes.named}
    near = difflib.get_close_matches(name, known, n=1)
    return "there is no such flag; " + (f"did you mean {known[near[0]]}?" if near else "--help lists those that exist")


def _check_words(words: list[str], wanted: Words | None, errors: list[str]) -> None:
    most = wanted.most if wanted else 0
    if most is not None and len(words) > most:
        errors.append(f"{words[most]}: unexpected argument; flags begin with --")
    elif wanted and len(words) < wanted.least:
        errors.append(f"{wanted.form}: is missing; name {wanted.meaning}")
