"""A training step with the state and the rows that it works on: for what looks at a step and not at what it learns."""

import time
from itertools import cycle

import jax
import numpy as np

from bertjax.bench.memory import Plan
from bertjax.config.phases import phases
from bertjax.parallel import sharding
from bertjax.tasks import fit


class MadeStep:
    """Called, it does one update with the next of `rows`, over and over, and waits for it. The plan is of one phase.

    Raises OutOfMemory, made or called, where it does not fit.
    """

    def __init__(self, plan: Plan, rows: list[dict[str, np.ndarray]]) -> None:
        (self._phase,), self._task, self._room = phases(plan.config), plan.task, fit.Room(plan.mesh)
        config, engine = plan.config, plan.engine
        with self._room.told(self._phase, self._task):
            self._step = engine.step_of(config, self._task)
            start = time.perf_counter()
            self._room.ready(self._phase, self._task, self._step, engine.shapes)
            self.compile_seconds = time.perf_counter() - start
            self._shapes = engine.shapes, fit.shapes(config, config.data.batch_size)
            self.program = self._step.compile(*self._shapes)
            """What is executed."""
            self._rows = cycle([sharding.put_batch(one, plan.mesh) for one in rows])
            self.state = engine.fresh(config.run.seed)
            """After the updates so far."""

    def compile_again(self) -> None:
        """As it is compiled for the first time, but for what JAX keeps on disk. The result is thrown away."""
        self._step.lower(*self._shapes).compile()

    def __call__(self) -> None:
        with self._room.told(self._phase, self._task):
            self.state, values = self._step(self.state, next(self._rows))  # the state is donated
            jax.block_until_ready((self.state, values))
