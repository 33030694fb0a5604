"""The task of pretraining, whatever the data: the model, its terms and what they cost.

Timing a step and compiling it ahead take no more than this: none of the packages that read data or tokenize.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from bertjax.config.schema import Config
from bertjax.model import network
from bertjax.model.cost import flops_per_token, predicted_share
from bertjax.tasks.terms import terms
from bertjax.train.checkpoint import Identity
from bertjax.train.task import Evaluation, Task


def pretraining(
    config: Config,
    *,
    batches: Callable[[int], Any],
    evaluations: tuple[Evaluation, ...] = (),
    identity: Identity | None = None,
) -> Task:
    """The task of learning from these batches by the terms of `config.objective` that need no teacher."""
    return Task(
        init=partial(network.init, config.model),
        forward=network.forward(config.model, config.compute),
        terms=terms(config.objective),
        batches=batches,
        evaluations=evaluations,
        identity=identity or {},
        flops_per_token=flops_per_token(config.model, config.data.seq_len, predicted=predicted_share(config.data))[
            "total"
        ],
    )
