"""A training step on synthetic rows, with the state that it works on, for what looks at the step itself.

It needs no data set and no tokenizer. The rows are full and stay the same.
"""

import jax
from jax.sharding import Mesh

from bertjax import batch
from bertjax.config.phases import phases
from bertjax.config.schema import Config
from bertjax.parallel import sharding
from bertjax.tasks import fit
from bertjax.train.session import Engine
from bertjax.train.task import Task


class SyntheticStep:
    """Called, it does one update and waits for it. `config` is a run of one phase, and `task` and `engine` are of it.

    Raises OutOfMemory, made or called, where it does not fit.
    """

    def __init__(self, config: Config, task: Task, engine: Engine, mesh: Mesh) -> None:
        (self._phase,), self._task, self._room = phases(config), task, fit.Room(mesh)
        data, model, seed = config.data, config.model, config.run.seed
        made = batch.synthetic(data, vocab_size=model.vocab_size, token_types=model.token_types, seed=seed)
        with self._room.told(self._phase, task):
            self._step = engine.step_of(config, task)
            self._room.ready(self._phase, task, self._step, engine.shapes)
            self.program = self._step.compile(engine.shapes, fit.shapes(config, data.batch_size))
            """What is executed."""
            self._rows = sharding.put_batch(made, mesh)
            self.state = engine.fresh(seed)
            """After the updates so far."""

    def __call__(self) -> None:
        with self._room.told(self._phase, self._task):
            self.state, values = self._step(self.state, self._rows)  # the state is donated
            jax.block_until_ready((self.state, values))
