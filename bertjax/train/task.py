"""What a run is for, as a value: the engine in this room trains whatever it is given. A stage is such a task in a phase
of a run.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from bertjax import workers
from bertjax.config.phases import Phase
from bertjax.console import say
from bertjax.errors import ConfigError, UserError, one_line
from bertjax.signals import Stopped
from bertjax.train.checkpoint import Identity, Judged
from bertjax.train.objective import Terms
from bertjax.train.state import Init, TrainState
from bertjax.train.step import Forward, JittedStep

Wait = Callable[[Callable[[], Any]], Any]
"""Gives what a function gives, which may take long. Raises Stopped if the run is asked to stop."""


@dataclass(frozen=True)
class Evaluation:
    """A function of the parameters that gives numbers, and how often: every so many steps (0 = never but at the end,
    where what was not measured at the last step is measured of the model that the run leaves).

    Its numbers stand in metrics.jsonl as NAME_KEY. Models may be judged by those of the keys `judges` (those with a
    name that ends in loss are better when less, all others when larger); two values of which `on` differs, what they
    were measured on, say nothing of each other.
    """

    name: str
    every: int
    function: Callable[[Any], dict[str, float]]
    judges: tuple[str, ...] = ()
    on: str = ""


@dataclass(frozen=True)
class Task:
    """Pretraining, distillation and fine-tuning are values of this."""

    init: Init
    forward: Forward
    terms: Terms
    batches: Callable[[int], Any]  # from this row of the run on: an endless iterator of host batches, to be closed
    evaluations: tuple[Evaluation, ...]
    identity: Identity
    flops_per_token: float  # of a step, for MFU
    selects: tuple[str, str] | None = None
    """Name of an evaluation, and a key of what it gives: by the largest value of it the weights of a run are selected
    (`task.select`), and without a larger one a run ends before its time (`task.patience`).
    """

    def check_judge(self, name: str) -> None:
        """Raise ConfigError if models cannot be judged by a number of this name; "" = they are not to be."""
        known = self._judges()
        if name and name not in known:
            fix = f"name one of {', '.join(known)}" if known else "set it to ''"
            raise ConfigError(f"run.keep_best = {name!r}: is no number of an evaluation to judge a model by; {fix}")

    def judged(self, name: str, values: Mapping[str, float]) -> Judged | None:
        """How the number of this name among `values`, if it is there, judges the model that was evaluated."""
        on = self._judges().get(name)
        return None if on is None or name not in values else Judged(name, values[name], on)

    def _judges(self) -> dict[str, str]:
        """Each number by which models can be judged, as in metrics.jsonl, and on what it is measured."""
        return {f"{one.name}_{key}": one.on for one in self.evaluations for key in one.judges}


class Room(Protocol):
    """Whether the phases of a run fit into memory, and what to change where they do not."""

    def ready(self, phase: Phase, task: Task, step: JittedStep, state: Any) -> None:
        """Compile the step of a phase; may raise to refuse it. `state` are the shapes of its state."""

    def told(self, phase: Phase, task: Task) -> AbstractContextManager[None]:
        """A block in which the phase trains."""


class Stage:
    """A phase of a run with what trains in it; what it needs can be made while another one trains."""

    def __init__(self, phase: Phase, task: Task, step: JittedStep, shapes: TrainState, room: Room | None) -> None:
        self.phase, self.task, self.step = phase, task, step
        self._shapes, self._room = shapes, room
        self._compiling: Future[None] | None = None
        self._opening: tuple[int, Future[Any]] | None = None

    @property
    def step_cost(self) -> float:
        """FLOPs of a step, with full rows."""
        return self.task.flops_per_token * self.phase.config.data.batch_size * self.phase.config.data.seq_len

    @property
    def cost(self) -> float:
        """FLOPs of all its steps."""
        return self.step_cost * self.phase.stretch.steps

    def told(self) -> AbstractContextManager[None]:
        """A block in which this phase trains."""
        return self._room.told(self.phase, self.task) if self._room else nullcontext()

    def compile(self, wait: Wait) -> None:
        """The step is compiled after this: by the thread that is at it, or else here. Raises as `Room.ready`."""
        compiling, self._compiling = self._compiling, None
        if compiling:
            try:
                wait(compiling.result)
            except (UserError, Stopped):
                raise
            except Exception as error:
                say(f"{self.phase.prefix}its step was not compiled ahead ({one_line(error)}): it is now")
        if self._room and not self.step.compiles():
            self._room.ready(self.phase, self.task, self.step, self._shapes)

    def compile_ahead(self) -> None:
        """Begin to compile the step in a thread, and say there what comes of it."""

        def compile() -> None:
            assert self._room
            try:
                self._room.ready(self.phase, self.task, self.step, self._shapes)
            except UserError as error:
                say(f"{error}; the run goes on to step {self.phase.stretch.begin}, is saved and ends there")
                raise

        if self._room and not self.step.compiles() and not self._compiling:
            self._compiling = workers.in_thread(compile)

    def open_ahead(self, row: int) -> None:
        """Begin to plan the data and to make batches from this row on, in a thread."""
        self.close()
        self._opening = row, workers.in_thread(lambda: self.task.batches(row))

    def batches(self, row: int, wait: Wait) -> Any:
        """The batches from this row on, to be closed."""
        if self._opening and self._opening[0] == row:
            opened = wait(self._opening[1].result)
            self._opening = None
            return opened
        self.close()
        return self.task.batches(row)

    def close(self) -> None:
        """End what was opened ahead and not asked for."""
        opening, self._opening = self._opening, None
        if opening:
            opening[1].add_done_callback(lambda opened: opened.exception() or opened.result().close())
