"""Pretraining: masked words, and whether two segments follow each other; from random weights or a trained model."""

from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from bertjax.config.phases import Phase, phases
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.data.batches import Course
from bertjax.data.dataset import Prepared
from bertjax.data.loader import train_batches
from bertjax.data.order import epoch_rows, seed_of_phase
from bertjax.data.tokenizer import Tokenizer
from bertjax.model import attention
from bertjax.parallel import distributed, sharding
from bertjax.tasks import distill, evaluate, fit, minimal_pairs, teacher
from bertjax.tasks.inputs import open_data
from bertjax.tasks.pretraining import pretraining
from bertjax.train import metrics, session
from bertjax.train.task import Evaluation, Task
from bertjax.train.workdir import Origin
from bertjax.trained import load, warmstart


def pretrain(config: Config, directory: Path, origin: Origin | None = None) -> bool:
    """Train to `run.steps`, from the newest checkpoint in `directory` if there is one.

    Returns False if it was asked to stop (SIGTERM, SIGHUP, Ctrl-C) before the end: the state is then saved, and the
    same call goes on from it. Raises a UserError before anything compiles if an input does not fit. `origin` is saved
    with the config, for the commands that follow.
    """
    mesh, found = sharding.make_mesh(config.mesh), phases(config)
    for phase in found:
        with phase.naming():
            _check(phase.config, mesh)
    metrics.check_tensorboard(config.run)
    tokenizer, prepared = distributed.agreed(lambda: open_data(config, directory))
    # A split without examples would only show at the first evaluation, or in a later phase.
    epoch_rows(config.data, prepared.train, seed=config.run.seed)
    for phase in found:
        with phase.naming():
            epoch_rows(phase.config.data, prepared.validation, seed=config.run.seed)
    pairs = minimal_pairs.evaluation(config, tokenizer, mesh)
    tasks = [_task(phase, prepared, tokenizer, mesh, pairs) for phase in found]
    tasks[0].check_judge(config.run.keep_best)
    going_on = session.going_on(config, directory)
    begin = None if going_on or not config.run.init_from else _from_trained(config, tokenizer)
    if config.teacher.path:
        known = teacher.load(config, tokenizer, mesh)
        tasks = [distill.distilled(task, phase.config, known) for task, phase in zip(tasks, found, strict=True)]
    room, first, later = fit.Room(mesh), tasks[0], tuple(tasks[1:])
    return session.train(config, first, directory, mesh, later=later, begin=begin, room=room, origin=origin)


def _check(config: Config, mesh: Mesh) -> None:
    """Raise ConfigError for what cannot be computed on these devices."""
    sharding.check(config.model, config.data.batch_size // config.optim.accumulate, mesh)
    attention.check(config.model, config.compute, config.data.row_lengths, mesh.devices.flat[0].platform)


def _task(phase: Phase, prepared: Prepared, tokenizer: Tokenizer, mesh: Mesh, pairs: tuple[Evaluation, ...]) -> Task:
    """What a phase trains on and what it is evaluated by, without a teacher."""
    config, size = phase.config, phase.config.data.batch_size
    batches = partial(
        train_batches,
        config.data,
        prepared,
        tokenizer,
        seed=seed_of_phase(config.run.seed, phase.number),
        course=Course(before=(phase.stretch.begin - phase.masks.begin) * size, rows=phase.masks.steps * size),
        rows=distributed.own_rows(mesh, size),
    )
    return pretraining(
        config,
        batches=lambda row: batches(start_row=row),
        evaluations=(evaluate.evaluation(config, tokenizer, prepared, mesh), *pairs),
        identity={"data set": prepared.digest, "tokenizer": tokenizer.digest, "teacher": ""},
    )


def _from_trained(config: Config, tokenizer: Tokenizer) -> session.Begin:
    """What a new run begins with in place of `run.init_from`'s model. Raises ConfigError if it cannot."""
    source = load.load(config.run.init_from)
    warmstart.check(source, config)

    def begin(fresh: Any) -> Any:
        params, told = warmstart.adapt(source, config, tokenizer, fresh)
        say(f"{config.run.init_from}: {told}")
        return params

    return begin
