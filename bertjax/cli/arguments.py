"""The command line -> a validated config and the other arguments. Every mistake in it is in one report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from bertjax.config.recipe import default, from_dict, to_dict
from bertjax.config.schema import Config
from bertjax.errors import ConfigError, UserError
from bertjax.train.workdir import load_config


@dataclass(frozen=True)
class Arguments:
    """What the command line says beside the config."""

    workdir: Any  # Path; None where it is not given and not needed
    json: bool
    html: str
    out: str
    seconds: float
    runner: str
    beam_options: list[str]
    top: int
    peer: str
    repeats: int
    texts: list[str]


@dataclass(frozen=True)
class Takes:
    """Which arguments a command takes."""

    workdir: bool = True  # needs --workdir
    config: str = "recipe"  # "saved": without --config, the one that the run in --workdir was started with; "none"
    texts: bool = False  # takes arguments that are no flags


def parse(argv: list[str], takes: Takes) -> tuple[Config, Arguments]:
    """The validated config and the other arguments; every mistake in overrides and values is in one report."""
    argv = _joined(argv)
    plain = [a for a in argv if not a.startswith(("--config.", "-config."))]
    overrides = [a for a in argv if a not in plain]
    flag_values, rest = _flags(plain, takes)  # without a recipe that loads, nothing else can be checked
    errors, good = [], []
    if takes.workdir and not flag_values.workdir:
        errors.append("--workdir: is missing; name the directory of the run, --workdir=runs/NAME")
    if "://" in flag_values.workdir:
        errors.append(f"--workdir={flag_values.workdir}: must be a local or mounted directory")
    if rest and not takes.texts:
        errors.append(f"{rest[0]}: unexpected argument; flags begin with --")
    for override in overrides:
        try:
            _flags([*plain, override], takes)
            good.append(override)
        except ConfigError as error:
            errors.append(str(error))
    flag_values, rest = _flags([*plain, *good], takes)
    try:
        config = from_dict(flag_values.config)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    v = flag_values
    return config, Arguments(
        workdir=Path(v.workdir).expanduser() if v.workdir else None,
        json=v.json,
        html=v.html,
        out=v.out,
        seconds=v.seconds,
        runner=v.runner,
        beam_options=v.beam_options.split(),
        top=v.top,
        peer=v.peer,
        repeats=v.repeats,
        texts=rest,
    )


def _joined(argv: list[str]) -> list[str]:
    """`--workdir DIR` and `--config FILE` in the form with an equals sign."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--workdir", "--config") and not word.startswith("-"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _flags(argv: list[str], takes: Takes) -> tuple[flags.FlagValues, list[str]]:
    """Parse with absl and ml_collections, whose exceptions are of many types; returns the flags and the other words."""
    from ml_collections import ConfigDict, config_flags

    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "Directory of the run.", flag_values=values)
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_string("out", "", "Directory or picture to write.", flag_values=values)
    flags.DEFINE_string("html", "", "File for the report as a page.", flag_values=values)
    flags.DEFINE_enum("runner", "local", ["local", "beam"], "What runs the preparation.", flag_values=values)
    flags.DEFINE_string("beam_options", "", "Pipeline options for Beam.", flag_values=values)
    flags.DEFINE_enum("peer", "", ["", "torch"], "Model to time in turn.", flag_values=values)
    flags.DEFINE_integer("repeats", 10, "Steps to time.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("seconds", 10.0, "How long to time.", lower_bound=0.0, flag_values=values)
    flags.DEFINE_integer("top", 5, "Choices for each [MASK].", lower_bound=1, flag_values=values)
    words = ["bertjax", *argv]
    workdirs = [a.split("=", 1)[1] for a in argv if a.startswith("--workdir=")]
    try:
        if any(a.startswith("--config=") for a in argv):
            config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
        elif takes.config == "none":
            config_flags.DEFINE_config_dict("config", default(), flag_values=values, sys_argv=words)
        elif takes.config == "saved" and workdirs:
            saved = ConfigDict(to_dict(load_config(Path(workdirs[-1]).expanduser())))
            config_flags.DEFINE_config_dict("config", saved, flag_values=values, sys_argv=words)
        else:
            raise ConfigError("--config: is missing; name a recipe, for example --config=configs/quickstart.py")
        rest = values(words)[1:]
        values.config.lock()  # reading it is what loads the recipe
    except UserError:
        raise
    except Exception as error:  # a recipe is code and may raise anything
        # The cause is the last line, even where ml_collections puts a whole traceback into the message; and overrides
        # are tried one by one, so the last is the one that is wrong.
        text = str(error).replace("\\n", "\n").strip() or type(error).__name__
        text = text[1:-1] if text[0] in "'\"" and text[0] == text[-1] else text
        named = [] if isinstance(error, flags.UnrecognizedFlagError) else [a for a in argv if a.startswith("--config")]
        raise ConfigError(": ".join([*named[-1:], text.splitlines()[-1].strip()])) from error
    return values, rest
