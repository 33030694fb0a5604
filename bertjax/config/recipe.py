"""Recipes and saved configs -> a validated `Config`, and back.

A recipe (`configs/*.py`) starts from `default()`, an ml_collections ConfigDict generated from the schema and locked,
and states only what differs. `from_dict` turns it, or saved JSON, into a `Config` and reports every error at once.
A recipe whose sizes follow from the text has a function `fit` beside its `get_config` (`fitted`).
"""

import dataclasses
import difflib
import typing
from collections.abc import Callable, Collection, Iterable
from typing import Any

from bertjax.config import rules
from bertjax.config.schema import Config
from bertjax.errors import ConfigError


def default() -> Any:
    """The schema's defaults as a locked ml_collections ConfigDict, for recipes to change."""
    from ml_collections import ConfigDict  # here, so that `bertjax --help` need not import it

    return ConfigDict(dataclasses.asdict(Config())).lock()


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dict, as JSON has it: tuples are lists."""
    sections = dataclasses.asdict(config)
    return {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
        for name, fields in sections.items()
    }


def from_dict(values: Any) -> Config:
    """Build and validate a `Config` from a ConfigDict or nested dict.

    Raises ConfigError with one line for each unknown section or field, wrong type and impossible value.
    """
    return _checked(unchecked(values), rules.errors)


def unchecked(values: Any) -> Config:
    """A `Config` from the same, whose values may be impossible, alone or together. Raises ConfigError as `from_dict`,
    for names and types only.
    """
    values = values.to_dict() if hasattr(values, "to_dict") else values
    if not isinstance(values, dict):
        raise ConfigError(f"config: {values!r:.60}: must be sections with fields")
    errors: list[str] = []
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    _report_unknown("", values, sections, errors)
    built = {name: _section(name, cls, values.get(name, {}), errors) for name, cls in sections.items()}
    if errors:
        raise ConfigError("\n".join(errors))
    return Config(**built)


Fit = Callable[[Any, Collection[str]], Iterable[str]]
"""Sets the fields of a locked ConfigDict that are not among those given, as "optim.lr"; returns what it chose and why,
in lines.
"""


def fitted(values: Any, fit: Fit, given: Collection[str]) -> tuple[Config, list[str]]:
    """The `Config` that `fit` makes of these values, and its lines. What is given stays.

    Raises ConfigError as `from_dict`, before the fitting for names, types and single values, and after it for all.
    """
    from ml_collections import ConfigDict  # as above

    before = _checked(unchecked(values), rules.limit_errors)
    config = ConfigDict(dataclasses.asdict(before)).lock()
    lines = list(fit(config, given))
    return from_dict(config), lines


def override(config: Config, **sections: dict[str, Any]) -> Config:
    """A validated copy with some fields of some sections replaced: `override(c, run={"steps": 3})`."""
    values = to_dict(config)
    for name, fields in sections.items():
        values[name] = {**values[name], **fields}
    return from_dict(values)


def _checked(config: Config, errors: Callable[[Config], list[str]]) -> Config:
    if found := errors(config):
        raise ConfigError("\n".join(found))
    return config


def _report_unknown(prefix: str, values: Any, known: Any, errors: list[str]) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"the fields are {', '.join(known)}"
            errors.append(f"{prefix}{name}: there is no such field; {hint}")


def _section(section: str, cls: Any, values: Any, errors: list[str]) -> Any:
    if not hasattr(values, "items"):
        errors.append(f"{section} = {values!r}: must be a section with fields, not a single value")
        return cls()
    fields = {f.name: f for f in dataclasses.fields(cls)}
    _report_unknown(f"{section}.", values, fields, errors)
    typed = {}
    for name, value in values.items():
        if name in fields:
            kind: Any = fields[name].type
            try:
                typed[name] = _typed(kind, value)
            except TypeError:
                errors.append(f"{section}.{name} = {value!r}: must be {_described(kind)}")
    return cls(**typed)


def _typed(kind: Any, value: Any) -> Any:
    """The value as exactly this type; TypeError if it is another."""
    if typing.get_origin(kind) is tuple:
        element, _ = typing.get_args(kind)
        if not isinstance(value, list | tuple):  # JSON has lists
            raise TypeError
        return tuple(_typed(element, one) for one in value)
    # bool is a subclass of int in Python: `--config.run.steps=True` must not pass as 1.
    if kind is float and type(value) is int and abs(value) < 2**1023:  # one that is greater is no float
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a tuple of {typing.get_args(kind)[0].__name__}"
    return f"of type {kind.__name__}"
