"""A recipe, or the config of a run, with the fields that the command line overrides -> a validated config."""

import ast
import dataclasses
import importlib.util
import traceback
import typing
from pathlib import Path
from typing import Any

from bertjax.config.schema import Config
from bertjax.errors import ConfigError
from bertjax.storage import user_path

Overrides = list[tuple[str, str | None]]
"""What is given on the command line, without its dashes: name, and value or None."""


def configured(recipe: str | None, workdir: Path | None, overrides: Overrides) -> Config:
    """The config of a recipe, FILE.py or FILE.py:ARGUMENT, or without one that of the run in `workdir`, with overrides
    (`config.SECTION.FIELD` and its value) over it. Raises ConfigError with a line for each mistake.
    """
    from bertjax.config.recipe import from_dict, to_dict  # here: they need NumPy, and --help does not
    from bertjax.train.workdir import load_config

    values = to_dict(load_config(workdir or Path())) if recipe is None else _load(recipe)
    errors = []
    for name, text in overrides:
        try:
            _override(values, name.removeprefix("config."), text)
        except ValueError as error:
            errors.append(f"--{name if text is None else f'{name}={text}'}: {error}")
    try:
        config = from_dict(values)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return config


def kinds() -> dict[str, Any]:
    """SECTION.FIELD -> its type, of every field of the schema."""
    sections: dict[str, Any] = {section.name: section.type for section in dataclasses.fields(Config)}
    return {f"{name}.{field.name}": field.type for name, kind in sections.items() for field in dataclasses.fields(kind)}


def _load(recipe: str) -> dict[str, Any]:
    """The values that a recipe returns. Raises ConfigError, whatever goes wrong in it: a recipe is code."""
    from ml_collections import ConfigDict

    name, colon, argument = recipe.partition(":")
    path = user_path(name).absolute()
    spec = importlib.util.spec_from_file_location("recipe", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={recipe}: there is no Python file {path}; recipes are in configs/")
    module: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument) if colon else module.get_config()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--config={recipe}: {_cause(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config={recipe}: get_config() must return a changed `default()`, not {config!r:.60}")
    return config.to_dict()


def _cause(error: BaseException, path: Path) -> str:
    """What went wrong in a recipe, and in which of its lines; a ValueError says it all by itself."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, ValueError) and text:
        return text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    place = f"line {lines[-1]}: " if lines else ""
    return place + (f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _override(values: dict[str, Any], path: str, text: str | None) -> None:
    """Set a field of the values by its text; a name that is not known is left to `from_dict`, which reports it."""
    section, _, field = path.partition(".")
    if not field or text is None:
        raise ValueError("must have the form --config.SECTION.FIELD=VALUE")
    kind = kinds().get(path, str)
    try:
        value = _typed(kind, text)
    except (ValueError, SyntaxError):
        raise ValueError(f"must be {_described(kind)}") from None
    fields = values.setdefault(section, {})
    if isinstance(fields, dict):
        fields[field] = value


def _typed(kind: Any, text: str) -> Any:
    """The value of this type that the text stands for; ValueError or SyntaxError if there is none.

    Elements of a tuple have commas between them; one with a comma inside needs Python's form, "('a,b', 'c')".
    """
    if typing.get_origin(kind) is tuple:
        if text.startswith("(") and text.endswith(")"):
            literal = ast.literal_eval(text)
            return literal if isinstance(literal, tuple) else (literal,)
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        if "" in parts:
            raise ValueError
        return tuple(_typed(typing.get_args(kind)[0], part) for part in parts)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return kind(text)


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"{_described(typing.get_args(kind)[0])}, or several with commas between"
    return {int: "a whole number", float: "a number", bool: "True or False", str: "text"}[kind]
