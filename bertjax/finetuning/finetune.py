"""Fine-tuning: a task with labels, learnt from random weights or from a trained model, by the engine of pretraining."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bertjax import storage
from bertjax.config.recipe import from_dict, to_dict
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import ConfigError
from bertjax.finetuning import evaluation, inputs, outcome, scores, sweep
from bertjax.finetuning.inputs import Inputs
from bertjax.finetuning.task import fine_tuning
from bertjax.labelled import batches
from bertjax.labelled.records import DEV, TEST, TRAIN
from bertjax.model import attention, network
from bertjax.parallel import distributed, sharding
from bertjax.tasks import fit
from bertjax.train import checkpoint, metrics, session, workdir
from bertjax.train.task import Evaluation, Task
from bertjax.train.workdir import Origin
from bertjax.trained import warmstart

RESULT = "result.json"


def finetune(config: Config, directory: Path, origin: Origin | None = None) -> dict[str, Any] | None:
    """Train to the end of `task.epochs`, or all runs of `config.sweep`, from the newest checkpoint there is.

    Returns what is also written to WORKDIR/result.json; None if it was asked to stop before the end: the same call goes
    on. What there is beside it for people, `bertjax.finetuning.outcome` and `.sweep` say. Raises a UserError before
    anything compiles if an input does not fit.
    """
    if not config.task.kind:
        raise ConfigError("task.kind = '': is pretraining; name a recipe of configs/finetune with --config")
    if not any(config.task.train):
        raise ConfigError("task.train = (): name the files with labels to learn from")
    metrics.check_tensorboard(config.run)
    origin = origin or Origin()
    config = _as_before(config, directory, origin)
    swept = any(vars(config.sweep).values())
    if swept and distributed.several():
        raise ConfigError(f"sweep: {config.sweep}: is run by one process, and these are several; start it alone")
    begun = distributed.by_first(lambda: checkpoint.saved(directory / "checkpoints") is not None)
    opened = partial(inputs.opened, config, directory, begun=begun)
    if distributed.several():
        distributed.by_first(lambda: bool(opened()))  # makes a tokenizer where there is none
    run = _Run(distributed.agreed(opened), directory)
    origin = _fitted(origin, config, run.config)
    distributed.by_first(lambda: workdir.remember(directory, run.config, origin))
    resolved = partial(inputs.scheduled, train=run.inputs.examples[TRAIN])
    return run.swept(sweep.points(run.config, resolved), origin) if swept else run.alone(origin)


def table(result: dict[str, Any]) -> str:
    """The metrics of each split for a person."""
    names = list(dict.fromkeys(name for values in result["metrics"].values() for name in values))
    lines = [f"{result['task']:<24}" + "".join(f"{split:>10}" for split in result["metrics"])]
    for name in names:
        numbers = (values.get(name) for values in result["metrics"].values())
        lines.append(f"{name:<24}" + "".join(f"{'-' if x is None else f'{x:.4f}':>10}" for x in numbers))
    return "\n".join([*lines, f"predictions, pictures and {RESULT}: {result['workdir']}"])


@dataclass(frozen=True)
class _Run:
    inputs: Inputs
    directory: Path

    @property
    def config(self) -> Config:
        return self.inputs.config

    def alone(self, origin: Origin) -> dict[str, Any] | None:
        task, config = self.task(self.config), self.config
        going_on = session.going_on(config, self.directory)
        room, begin = fit.Room(self.mesh), None if going_on else self.begin
        if not session.train(config, task, self.directory, self.mesh, begin=begin, room=room, origin=origin):
            return None
        return self.finished([])

    def swept(self, points: list[tuple[str, Config]], origin: Origin) -> dict[str, Any] | None:
        found = sweep.run(points, self.task, self.directory, self.mesh, begin=self.begin, origin=origin)
        if found is None:
            return None
        say(found.table())
        return self.finished([asdict(point) for point in found.points])

    def task(self, config: Config) -> Task:
        """The task of a run; what compiles is shared by those that differ in rate, length and seed."""
        data, kind, examples = config.data, config.task.kind, self.inputs.examples[TRAIN]
        pad, dev = self.inputs.tokenizer.special.pad, self.measures[DEV]
        own = distributed.own_rows(self.mesh, data.batch_size)
        return fine_tuning(
            config,
            forward=self.forward,
            batches=lambda row: batches.train_batches(
                kind, examples, data, seed=config.run.seed, start_row=row, pad=pad, own=own
            ),
            evaluations=(Evaluation(DEV, config.run.eval_every, lambda params: dev(params)[0]),),
            identity={"data set": self.inputs.digest, "tokenizer": self.inputs.tokenizer.digest, "teacher": ""},
        )

    @cached_property
    def mesh(self) -> Mesh:
        config, mesh = self.config, sharding.make_mesh(self.config.mesh)
        sharding.check(config.model, config.data.batch_size // config.optim.accumulate, mesh)
        attention.check(config.model, config.compute, config.data.row_lengths, mesh.devices.flat[0].platform)
        return mesh

    @cached_property
    def forward(self) -> jax.tree_util.Partial:
        return network.forward(self.config.model, self.config.compute)

    @cached_property
    def measures(self) -> dict[str, evaluation.Evaluate]:
        """What is measured, by split: parameters -> metrics and predictions."""
        config = self.config
        # In batches of a microbatch's size: what fits into memory for training fits here.
        data = replace(config.data, batch_size=config.data.batch_size // config.optim.accumulate)
        return {
            split: evaluation.evaluator(
                config.task.kind,
                self.forward,
                self.inputs.examples[split],
                records,
                data,
                self.inputs.tokenizer,
                config.task,
                config.model.labels,
                self.mesh,
            )
            for split, records in self.inputs.records.items()
            if split != TRAIN
        }

    @cached_property
    def begin(self) -> Callable[[Any], Any] | None:
        """Fresh parameters -> those of a new run; None for random weights."""
        source, config = self.inputs.source, self.config
        if source is None:
            return None
        warmstart.check(source, config)

        def begin(fresh: Any) -> Any:
            params, told = warmstart.adapt(source, config, self.inputs.tokenizer, fresh)
            say(f"{config.run.init_from}: {told}")
            return params

        return begin

    def finished(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Measure the model of the run, and write what is left of it for people."""
        config, shapes = self.config, network.abstract_params(self.config.model, self.mesh)
        restored = checkpoint.restore_params(self.directory / "checkpoints", shapes)
        found = {}
        for split in (DEV, TEST):
            if split in self.measures:
                found[split], predicted = self.measures[split](restored.state)
                records, labels = self.inputs.records[split], config.model.labels
                if distributed.first():
                    outcome.write(self.directory, split, config.task.kind, labels, records, predicted)
        result = {
            "task": config.task.name or config.task.kind,
            "kind": config.task.kind,
            "metric": scores.chosen(config.task, config.model.labels),
            "metrics": found,
            "steps": restored.step,
            "seeds": list(config.sweep.seeds) or [config.run.seed],
            "examples": {split: len(records) for split, records in self.inputs.records.items()},
            "runs": runs,
            "workdir": str(self.directory),
        }
        if distributed.first():
            storage.write(self.directory / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
        return result


def _as_before(config: Config, directory: Path, origin: Origin) -> Config:
    """The config with what followed from the inputs of the run in `directory`, if there is one, unless given now."""
    known = workdir.remembered(directory)
    if known is None:
        return config
    values, before = to_dict(config), to_dict(known[0])
    for name in set(known[1].fitted) - set(origin.given):
        section, _, field = name.partition(".")
        values[section][field] = before[section][field]
    return from_dict(values)


def _fitted(origin: Origin, before: Config, after: Config) -> Origin:
    """The origin of a config of which some fields follow from the inputs: the same command then keeps them."""
    changed = {f"{section}.{name}" for section, name, *_ in workdir.changes(to_dict(before), after)}
    return replace(origin, fitted=tuple(sorted({*origin.fitted, *changed} - set(origin.given))))
