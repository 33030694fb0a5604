"""The labelled examples of a run: read, those for dev put aside, and as tokens."""

from collections.abc import Sequence

import numpy as np

from bertjax.config.schema import Config, TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError
from bertjax.labelled.encode import encode
from bertjax.labelled.example import Example
from bertjax.labelled.labels import check
from bertjax.labelled.reading import read
from bertjax.labelled.records import Record


def part(task: TaskConfig, name: str) -> list[Record]:
    """The records of a part: train, dev or test, [] for a test that is not named. Raises what `reading.read` raises."""
    if name == "test":
        return read(task, task.test) if task.test else []
    if name == "dev" and task.dev:
        return read(task, task.dev)
    train = read(task, task.train)
    if task.dev:
        return train
    kept, aside = apart(train, task.dev_share)
    return aside if name == "dev" else kept


def apart(records: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """The records that are learnt from, and a share of them, at least one, that is not; the same in every run, so that
    seeds are compared on the same dev. Raises DataError if one of the two would be empty.
    """
    count = max(round(len(records) * share), 1)
    if count >= len(records):
        raise DataError(f"task.dev = (): of {len(records)} examples not {count} can be kept apart; name a file")
    aside = np.zeros(len(records), bool)
    aside[np.random.default_rng(0).permutation(len(records))[:count]] = True
    kept = [record for record, is_aside in zip(records, aside, strict=True) if not is_aside]
    return kept, [record for record, is_aside in zip(records, aside, strict=True) if is_aside]


def encoded(config: Config, tokenizer: Tokenizer, records: Sequence[Record]) -> list[Example]:
    """The examples of a run, to train on or to measure. Raises DataError for a label that the model does not have."""
    task, model = config.task, config.model
    if task.kind in ("classify", "tag"):
        check(records, model.labels, "those of the model")
    types = model.token_types > 1
    return encode(records, task, model.labels, tokenizer, seq_len=config.data.seq_len, token_types=types)
