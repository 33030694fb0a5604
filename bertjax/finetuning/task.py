"""The task of learning labels, whatever the data: the model with its head, the term of its kind, its own judge."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.finetuning import scores
from bertjax.finetuning.terms import TERMS
from bertjax.labelled.records import DEV
from bertjax.model import network
from bertjax.model.cost import flops_per_token
from bertjax.train.checkpoint import Identity
from bertjax.train.task import Evaluation, Task
from bertjax.trained import warmstart


def fine_tuning(
    config: Config,
    *,
    batches: Callable[[int], Any],
    forward: jax.tree_util.Partial | None = None,
    evaluations: tuple[Evaluation, ...] = (),
    identity: Identity | None = None,
) -> Task:
    """The task of learning the labels of these batches. `forward` None = that of the model of `config`."""
    model, kind = config.model, config.task.kind
    return Task(
        init=partial(network.init, model),
        forward=forward or network.forward(model, config.compute),
        terms={kind: (1.0, TERMS[kind])},
        batches=batches,
        evaluations=evaluations,
        identity=identity or {},
        flops_per_token=flops_per_token(model, config.data.seq_len, predicted=0.0)["total"],
        selects=(DEV, scores.chosen(config.task, model.labels)),
    )


def without_data(config: Config) -> Config:
    """The config of a run whose data is not there: with the head of its task, and with two labels if it names none."""
    if config.task.kind in ("classify", "tag"):
        labels = config.model.labels or config.task.labels or ("0", "1")
        config = override(config, model={"labels": labels})
    source = None
    if config.run.init_from:
        from bertjax.trained.load import load  # here: random weights take no tokenizer

        source = load(config.run.init_from)
    return override(replace(config, model=warmstart.finetuned(source, config)))
