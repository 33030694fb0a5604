"""What a field of the schema says of itself: its meaning, and what it may hold."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

WHOLE = 2**31
"""What whole numbers must be below, unless they have a limit of their own: on the devices they are int32."""

PHASE_HAS_BEGUN = "its phase has begun"


@dataclass(frozen=True)
class Limits:
    """What a field may hold, and what it means."""

    meaning: str
    least: float | None = None  # the smallest number allowed; of every element, for a tuple
    below: float | None = None  # numbers must be smaller than this; whole numbers always than WHOLE
    choices: tuple[str, ...] = ()  # the names allowed, of every element, for a tuple; () = any text
    path: bool = False  # names a file, a directory or a pattern of files
    may_change: bool = False  # may differ when a run goes on: it does not decide what is computed, or is checked
    until: str = ""  # what ends that, if anything does


def value(default: Any, meaning: str, **limits: Any) -> Any:
    """A field with this default, meaning and limits (`Limits`)."""
    return field(default=default, metadata={"limits": Limits(meaning, **limits)})


def by_phase(section: str, fields: Any, name: str, then: str = "") -> Any:
    """A field with values of another one, `name` in the `fields` of `section`, for each phase of a run; `then` says
    what else follows where there are any.
    """
    limit = limits(fields)[name]
    meaning = f"{section}.{name} in each phase, in the first as it is there{then}; () = so throughout"
    limit = dataclasses.replace(limit, meaning=meaning, may_change=True, until=PHASE_HAS_BEGUN)
    return field(default=(), metadata={"limits": limit})


def limits(section: Any) -> dict[str, Limits]:
    """The limits of the fields of a section, by name."""
    return {f.name: f.metadata["limits"] for f in dataclasses.fields(section)}
