"""`bertjax config`: every field with its meaning and limits, its value, and where that is from."""

import dataclasses
import difflib
import shlex
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from bertjax.cli.overrides import Resolved, described
from bertjax.config import made
from bertjax.config.limits import Limits, limits
from bertjax.errors import ConfigError


def fields(resolved: Resolved, names: list[str]) -> dict[str, dict[str, Any]]:
    """SECTION.FIELD -> its value, where that is from, meaning and limits; of these sections and fields, or of all.

    Raises ConfigError for a name that is neither.
    """
    found = {
        f"{section.name}.{field.name}": {
            "value": getattr(getattr(resolved.config, section.name), field.name),
            "from": resolved.source(f"{section.name}.{field.name}"),
            "meaning": limit.meaning,
            "limits": _limits(f"{section.name}.{field.name}", field.type, limit),
        }
        for section in dataclasses.fields(resolved.config)
        for field, limit in _fields(section.type)
    }
    known = {*found, *(name.split(".")[0] for name in found)}
    errors = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the sections are {', '.join(vars(resolved.config))}"
            errors.append(f"{name}: there is no such section or field; {hint}")
    if errors:
        raise ConfigError("\n".join(errors))
    return {name: about for name, about in found.items() if not names or name in names or name.split(".")[0] in names}


def _fields(section: Any) -> Iterator[tuple[dataclasses.Field, Limits]]:
    return zip(dataclasses.fields(section), limits(section).values(), strict=True)


def table(found: dict[str, dict[str, Any]]) -> str:
    """The same for a person: the value as a shell takes it behind `--config.`, and below it what it means."""
    lines = []
    for name, about in found.items():
        lines.append(f"{name + '=' + shlex.quote(written(about['value'])):<60}  {about['from']}")
        for text in (about["meaning"], about["limits"]):
            lines.append(textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def written(value: Any) -> str:
    """A value as the command line takes it."""
    if not isinstance(value, tuple):
        return str(value)
    plain = all(one == one.strip() and one and not set(one) & set(",()") for one in map(str, value))
    return ",".join(map(str, value)) if plain else repr(value)


def _limits(name: str, kind: Any, limit: Limits) -> str:
    """What a field may hold, and when it may change."""
    text = described(kind)
    if limit.choices:
        text = ("one or several of " if typing.get_origin(kind) is tuple else "one of ") + ", ".join(limit.choices)
    text += f"; at least {limit.least:g}" if limit.least is not None else ""
    text += f", below {limit.below:g}" if limit.below is not None else ""
    made_of = {"the tokenizer": made.TOKENIZER, "the data set": made.DATA_SET}
    fixed = [what for what, fields in made_of.items() if name in fields] + ["the run"] * (not limit.may_change)
    if fixed:
        return f"{text}; stays once {' or '.join(fixed)} is there"
    return f"{text}; may change until {limit.until}" if limit.until else f"{text}; may change at any time"
