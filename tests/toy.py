"""A task that is no language model: a line through points, learnt by the same engine."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from small import tiny

from bertjax.parallel import sharding
from bertjax.train import session
from bertjax.train.objective import Term
from bertjax.train.task import Evaluation, Task

CONFIG = tiny(optim={"lr": 0.3, "warmup_steps": 0, "weight_decay": 0.0, "power": 0.0}, run={"steps": 60})
SLOPE = 3.0


class Rows:
    """Points on the line, of which each row is a function of its number."""

    def __init__(self, row):
        self._row = row

    def __iter__(self):
        return self

    def __next__(self):
        x_B = np.sin(np.arange(self._row, self._row + CONFIG.data.batch_size, dtype=np.float32))
        self._row += CONFIG.data.batch_size
        return {"segments": np.ones((len(x_B), 1), np.int32), "x": x_B, "y": SLOPE * x_B}

    def close(self):
        pass


def init(key):
    return {"slope": nn.with_logical_partitioning(lambda: jnp.zeros(()), ())()}


def forward(params, batch, key):
    return {"y": params["slope"] * batch["x"]}


SQUARES = Term(lambda batch: jnp.ones_like(batch["y"]), lambda out, batch: {"loss": jnp.square(out["y"] - batch["y"])})


def task(**changes):
    fields = {
        "init": init,
        "forward": jax.tree_util.Partial(forward),
        "terms": {"squares": (1.0, SQUARES)},
        "batches": Rows,
        "evaluations": (Evaluation("slope", 20, lambda params: {"error": abs(float(params["slope"]) - SLOPE)}),),
        "identity": {"data set": "sines"},
        "flops_per_token": 2.0,
    }
    return Task(**fields | changes)


def train(directory, config=CONFIG, **changes):
    options = {name: changes.pop(name) for name in ("begin", "later", "engine") if name in changes}
    mesh = sharding.make_mesh(config.mesh)
    return session.train(config, task(**changes), directory, mesh, **options)
