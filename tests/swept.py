"""A sweep of a task that is a line through points; as a script, `swept.py WORKDIR SECONDS`, one to be killed."""

import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from small import tiny

from bertjax import batch
from bertjax.config.recipe import override
from bertjax.finetuning import sweep
from bertjax.parallel import sharding
from bertjax.train.objective import Term
from bertjax.train.task import Evaluation, Task

CONFIG = tiny(
    optim={"lr": 0.1, "warmup_steps": 0, "weight_decay": 0.0},
    task={"kind": "regress", "train": ("x",)},
    sweep={"lr": (0.05, 0.4), "epochs": (1.0, 1.5), "seeds": (0, 1)},
    run={"log_every": 4, "save_every": 0},
)


def resolved(config):
    """Eight steps an epoch, with an evaluation after every third."""
    return override(config, run={"steps": round(8 * config.task.epochs), "eval_every": 3})


def init(key):
    return {"slope": nn.with_logical_partitioning(lambda: jax.random.normal(key), ())()}


def forward(params, batch, key):
    x_B = batch["tokens"][:, 0] % 7 / 7
    return {"error": (params["slope"] - 3.0) * x_B + 0.1 * jnp.sin(x_B * 50.0)}


FORWARD = jax.tree_util.Partial(forward)
SQUARES = Term(lambda batch: jnp.ones(batch["tokens"].shape[0]), lambda out, batch: {"loss": jnp.square(out["error"])})


def score(params):
    """Best where the line passes 1, on its way to 3."""
    return {"score": -abs(float(params["slope"]) - 1.0)}


class Rows:
    def __init__(self, config, row, wait=0.0):
        self.config, self.row, self.wait = config, row, wait

    def __next__(self):
        time.sleep(self.wait)
        seed = self.config.run.seed + self.row
        self.row += self.config.data.batch_size
        rng = np.random.default_rng(seed)
        fields = batch.fields(self.config)
        return {name: rng.integers(0, 400, size=f.shape).astype(f.dtype) for name, f in fields.items()}

    def close(self):
        pass


def task(config, rows=Rows, **changes):
    fields = {
        "init": init,
        "forward": FORWARD,
        "terms": {"squares": (1.0, SQUARES)},
        "batches": lambda row: rows(config, row),
        "evaluations": (Evaluation("dev", config.run.eval_every, score), Evaluation("test", 0, score)),
        "identity": {"data set": "synthetic"},
        "flops_per_token": 2.0,
        "selects": ("dev", "score"),
    }
    return Task(**fields | changes)


def run(directory, config=CONFIG, task_of=task, **options):
    points = sweep.points(config, resolved)
    return sweep.run(points, task_of, directory, sharding.make_mesh(config.mesh, jax.devices()[:1]), **options)


def stored(directory):
    """Slope of the model of a sweep, and where it is from."""
    from bertjax.train import checkpoint

    found = checkpoint.restore_params(directory / "checkpoints", {"slope": np.zeros((), np.float32)})
    return float(found.state["slope"]), found


if __name__ == "__main__":
    seconds = float(sys.argv[2])
    slow = lambda config: task(config, rows=lambda *where: Rows(*where, wait=seconds))  # noqa: E731
    run(Path(sys.argv[1]), override(CONFIG, run={"save_every": 2}), slow)
