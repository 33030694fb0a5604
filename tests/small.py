"""The small model that tests share, and random batches for it."""

import jax
import numpy as np

from bertjax import batch
from bertjax.config.recipe import from_dict, to_dict
from bertjax.config.schema import Config
from bertjax.parallel import sharding
from bertjax.train.session import Engine

TINY = {
    "model": {
        "vocab_size": 400,
        "num_layers": 4,
        "hidden_size": 32,
        "embedding_size": 32,
        "num_heads": 4,
        "ffn_size": 64,
        "max_positions": 32,
        "initializer_range": 0.1,
    },
    "data": {"batch_size": 8, "seq_len": 32, "max_predictions": 5, "holdout": 0.2, "loader_threads": 2},
    "optim": {"lr": 1e-3, "warmup_steps": 2},
    "run": {"steps": 6, "log_every": 1, "eval_every": 3, "eval_rows": 32, "save_every": 3},
}


def tiny(**sections) -> Config:
    """A model of seconds: the sizes above, with some fields changed."""
    values = to_dict(Config())
    for changes in (TINY, sections):
        for section, fields in changes.items():
            values[section].update(fields)
    return from_dict(values)


def task_of(config: Config, teacher=None):
    """The task of pretraining by this config, without data; with a teacher beside it if one is given."""
    from bertjax.tasks.distill import distilled
    from bertjax.tasks.pretraining import pretraining

    task = pretraining(config, batches=lambda row: iter(()))
    return distilled(task, config, teacher) if teacher else task


def fresh_state(config: Config, mesh, teacher=None):
    """The state that a run begins with."""
    return Engine(config, task_of(config, teacher), mesh).fresh(config.run.seed)


def shapes_of_state(config: Config, mesh):
    """Shapes and places of it."""
    return Engine(config, task_of(config), mesh).shapes


def train_step_of(config: Config, mesh, teacher=None):
    """The update that a run makes."""
    return Engine(config, task_of(config, teacher), mesh).step


def one_device_mesh(config: Config):
    """The mesh (1, 1, 1)."""
    return sharding.make_mesh(config.mesh, jax.devices()[:1])


def random_batch(config: Config, *, seed: int = 0, uneven: bool = True) -> dict[str, np.ndarray]:
    """A batch with padding, token types, and a different number of masked tokens in each row."""
    rng = np.random.default_rng(seed)
    B, L, P = config.data.batch_size, config.data.seq_len, config.data.max_predictions
    rows = {name: np.zeros(f.shape, f.dtype) for name, f in batch.spec(config.data).items()}
    lengths = rng.integers(L // 2, L + 1, size=B) if uneven else np.full(B, L)
    rows["tokens"][:] = rng.integers(5, config.model.vocab_size, size=(B, L))
    real = np.arange(L)[None] < lengths[:, None]
    rows["tokens"][~real] = 0
    rows["segments"][:] = real
    rows["positions"][:] = np.where(real, np.arange(L)[None], 0)
    rows["token_types"][:] = real & (np.arange(L)[None] >= lengths[:, None] // 2)
    for i, length in enumerate(lengths):
        count = rng.integers(1, P + 1) if uneven else P
        rows["mlm_positions"][i, :count] = np.sort(rng.choice(length, count, replace=False))
        rows["mlm_weights"][i, :count] = 1.0
    rows["mlm_labels"][:] = rng.integers(5, config.model.vocab_size, size=(B, P))
    rows["pair_labels"][:] = rng.integers(0, 2, size=(B, 1))
    rows["pair_weights"][:] = rng.integers(0, 2, size=(B, 1)) if uneven else 1
    rows["pair_weights"][0] = 1.0
    return rows
