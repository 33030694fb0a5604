"""The phases of a run: stretches of its steps, and the config of each.

The first phase is the config as it stands. `PhasesConfig` names what is other in later ones, and for that has a value
for each phase. A rate schedule runs over the whole run, or over the steps of each phase where one of RATE differs by
phase; so does the course from data.mask_rate to data.final_mask_rate, where one of MASKS does.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from bertjax.config.limits import limits
from bertjax.config.schema import Config, PhasesConfig
from bertjax.errors import ConfigError, UserError

RATE = ("lr", "warmup_steps", "schedule", "power", "decay_steps", "final_lr")
MASKS = ("mask_rate", "final_mask_rate")
_SECTIONS = {
    field.name: section
    for section in ("data", "optim", "compute")
    for field in dataclasses.fields(getattr(Config(), section))
}
FIELDS = {f.name: _SECTIONS[f.name] for f in dataclasses.fields(PhasesConfig) if f.name != "steps"}
"""What may differ by phase: name -> its section."""


class Stretch(NamedTuple):
    """The steps begin + 1 to end."""

    begin: int
    end: int

    @property
    def steps(self) -> int:
        """How many they are."""
        return self.end - self.begin


@dataclass(frozen=True)
class Phase:
    """A stretch of a run, and the config that holds in it."""

    number: int
    """From 1."""
    of: int
    """Phases of the run."""
    stretch: Stretch
    rate: Stretch
    """The steps over which the schedule of its learning rate runs."""
    masks: Stretch
    """Those over which its mask rate goes to the final one."""
    config: Config
    """That of a run that knows no other phase, but for `run.steps`, which is that of all."""

    def value(self, name: str) -> Any:
        """Of one of FIELDS in this phase."""
        return getattr(getattr(self.config, FIELDS[name]), name)

    @property
    def name(self) -> str:
        """As "phase 2 of 3"; "" of a run that is one."""
        return f"phase {self.number} of {self.of}" if self.of > 1 else ""

    @property
    def prefix(self) -> str:
        """What begins a line that is of this phase alone."""
        return f"{self.name}: " if self.name else ""

    @property
    def alone(self) -> Config:
        """The config of a run that is this phase alone; of a longer schedule it has the rate without the times."""
        c, part = self.config, self.rate != self.stretch
        optim = replace(c.optim, warmup_steps=0, decay_steps=0) if part else c.optim
        return replace(c, run=replace(c.run, steps=self.stretch.steps), optim=optim)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """A block whose errors are told as those of this phase."""
        try:
            yield
        except UserError as error:
            if not self.name:
                raise
            raise type(error)("\n".join(f"{self.prefix}{line}" for line in str(error).splitlines())) from error


def phases(config: Config) -> tuple[Phase, ...]:
    """The phases of a run, in their order."""
    given, whole = config.phases, Stretch(0, config.run.steps)
    steps = given.steps or (config.run.steps,)
    own_rate, own_masks = (any(getattr(given, name) for name in names) for names in (RATE, MASKS))
    found = []
    for number, ends in enumerate(pairwise(accumulate(steps, initial=0)), 1):
        stretch, values = Stretch(*ends), replace(config, phases=PhasesConfig())
        for name, section in FIELDS.items():
            if getattr(given, name):
                changed = {name: getattr(given, name)[number - 1]}
                values = replace(values, **{section: replace(getattr(values, section), **changed)})
        rate, masks = stretch if own_rate else whole, stretch if own_masks else whole
        found.append(Phase(number, len(steps), stretch, rate, masks, values))
    return tuple(found)


def phase_at(config: Config, step: int) -> Phase:
    """The phase in which a run did this step; the first one for step 0, and the last for a step behind the end."""
    found = phases(config)
    return next((phase for phase in found if step <= phase.stretch.end), found[-1])


def alone(config: Config, number: int) -> Config:
    """The config of a run that is this phase alone, for what looks at one; 0 = that of a run that is one phase.

    Raises ConfigError if there is none of this number, or several of which it could be.
    """
    found = phases(config)
    if not number and len(found) == 1:
        return config
    if not 1 <= number <= len(found):
        told = f"--phase={number}: there is none" if number else f"phases.steps = {config.phases.steps}: are several"
        raise ConfigError(f"{told}; say which is meant, --phase=1 to --phase={len(found)}")
    return found[number - 1].alone


def relations(config: Config) -> list[tuple[bool, str]]:
    """What must hold of the lists by themselves, each with what to say where it does not."""
    given, count = config.phases, len(config.phases.steps)
    columns = {name: getattr(given, name) for name in FIELDS if getattr(given, name)}
    if not count:
        fix = "needs phases.steps, the updates of each phase"
        return [(False, f"phases.{name} = {values}: {fix}") for name, values in columns.items()]
    together = sum(given.steps)
    rules = [
        (config.task.kind == "", f"phases.steps = {given.steps}: is for pretraining; set it to ()"),
        (
            together == config.run.steps,
            f"phases.steps = {given.steps}: add up to {together}, not run.steps = {config.run.steps}; set one of them",
        ),
    ]
    for name, values in columns.items():
        first = getattr(getattr(config, FIELDS[name]), name)
        rules += [
            (
                len(values) == count,
                f"phases.{name} = {values}: phases.steps = {given.steps} are {count} phases; give a value for each",
            ),
            (
                values[0] == first,
                f"phases.{name} = {values}: begins with another value than {FIELDS[name]}.{name} = {first}, which is"
                " that of the first phase; set one of them",
            ),
        ]
    return rules


def changed(before: Config, now: Config, step: int) -> list[str]:
    """What is other of the phases in a run that has made `step` steps and must not be, a line for each. Those that are
    over stay; of the one that has begun may change what may in any run; what has not begun may be anything.
    """
    if not (before.phases.steps or now.phases.steps):
        return []
    begun, after = [phase for phase in phases(before) if phase.stretch.begin < step], phases(now)
    steps = f"phases.steps = {now.phases.steps}: the run"
    over = max(0, len(begun) - 1)
    ends, now_ends = ([phase.stretch.end for phase in found[:over]] for found in (begun, after))
    if ends != now_ends or len(after) < len(begun):
        had = before.phases.steps[:over]
        return [f"{steps} is in phase {over + 1} and had {had} before; begin with that, and have a value for this one"]
    if begun and after[over].stretch.end < step:
        return [f"{steps} is at step {step} of phase {over + 1}, which would have ended; let it end there or later"]
    found, listed = [], {name for name in FIELDS if getattr(before.phases, name) or getattr(now.phases, name)}
    for old, new in zip(begun, after, strict=False):
        for name, section in FIELDS.items():
            may_change = limits(getattr(now, section))[name].may_change
            free = may_change and not (name in listed and old.number <= over)
            if old.value(name) != new.value(name) and not free:
                asked = f"phases.{name} = {getattr(now.phases, name)}"
                found.append(f"{asked}: phase {old.number} has begun with {old.value(name)!r}; keep that")
        for names, one, other in ((RATE, old.rate, new.rate), (MASKS, old.masks, new.masks)):
            if one.begin != other.begin:
                listed_names = ", ".join(f"phases.{name}" for name in names)
                fix = "under one of its own; give one of them" if one.begin else "under that of the run; set them to ()"
                found.append(f"{listed_names}: phase {old.number} has begun {fix}")
    return found
