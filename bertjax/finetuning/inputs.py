"""What a fine-tuning run learns from: records, tokenizer, labels, and the config that follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bertjax import storage
from bertjax.config.recipe import override
from bertjax.config.schema import Config, TaskConfig
from bertjax.console import say
from bertjax.corpus import doubts
from bertjax.data import trial
from bertjax.data.tokenizer import Tokenizer, check_vocabulary
from bertjax.errors import ConfigError, DataError
from bertjax.labelled import batches, encode, labels, reading
from bertjax.labelled.example import Example
from bertjax.labelled.records import DEV, SPLITS, TEST, TRAIN, Record
from bertjax.train import workdir
from bertjax.trained import load, warmstart
from bertjax.trained.load import Trained
from bertjax.vocabulary.wordpiece import train_wordpiece


@dataclass(frozen=True)
class Inputs:
    """All that a run takes in. `records` and `examples` are by split: train, dev, and test if there is one."""

    config: Config
    """With what follows from the rest: the model, its labels, the steps."""
    tokenizer: Tokenizer
    records: dict[str, list[Record]]
    examples: dict[str, list[Example]]
    source: Trained | None
    """What a new run begins with; None for random weights, and for a run that goes on."""
    digest: str
    """Of what is learnt and of what is measured while learning."""


def opened(config: Config, directory: Path, *, begun: bool) -> Inputs:
    """The inputs of a run in `directory`, which gets its tokenizer; `begun` = it has a model already.

    Raises ConfigError, DataError or CheckpointError for what does not fit, naming file and line.
    """
    records = {split: found for split in SPLITS if (found := part(config.task, split))}
    config = _with_labels(config, records)
    source = None
    if begun:
        pass  # its model is that of its config
    elif config.run.init_from:
        source = load.load(config.run.init_from)
        config = _of_source(source, config, directory)
    else:
        config = _of_random_weights(config, records[TRAIN], directory)
    tokenizer = tokenizer_of(config, directory)
    examples = {split: encoded(config, tokenizer, chosen) for split, chosen in records.items()}
    digest = reading.digest(records[TRAIN] + records[DEV])
    return Inputs(scheduled(config, examples[TRAIN]), tokenizer, records, examples, source, digest)


def part(task: TaskConfig, split: str) -> list[Record]:
    """The records of a split; [] for a test that is not named. Raises what `reading.read` raises."""
    if split == TEST:
        return reading.read(task, task.test, labelled=False) if task.test else []
    if split == DEV and task.dev:
        return reading.read(task, task.dev)
    train = reading.read(task, task.train)
    return train if task.dev else apart(train, task.dev_share)[split == DEV]


def apart(records: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """The records that are learnt from, and a share of them, at least one, that is not; the same in every run, so that
    seeds are compared on the same dev. Raises DataError if one of the two would be empty.
    """
    count = max(round(len(records) * share), 1)
    if count >= len(records):
        raise DataError(f"task.dev = (): of {len(records)} examples not {count} can be kept apart; name a file")
    aside = set(np.random.default_rng(0).permutation(len(records))[:count].tolist())
    return [r for i, r in enumerate(records) if i not in aside], [r for i, r in enumerate(records) if i in aside]


def encoded(config: Config, tokenizer: Tokenizer, records: Sequence[Record]) -> list[Example]:
    """The examples of a run, to train on or to measure. Raises DataError for a label that the model does not have."""
    task, model = config.task, config.model
    if task.kind in ("classify", "tag"):
        labels.check(records, model.labels, "those of the model")
    types = model.token_types > 1
    return encode.encode(records, task, model.labels, tokenizer, seq_len=config.data.seq_len, token_types=types)


def tokenizer_of(config: Config, directory: Path, *, known: str = "") -> Tokenizer:
    """The tokenizer of a run; `known` = the digest of one that has been tried before. Raises DataError."""
    path = workdir.tokenizer_path(directory, config.data)
    tokenizer = trial.load(path, lower_case=config.data.lower_case, known=known)
    check_vocabulary(tokenizer, config.model.vocab_size)
    return tokenizer


def scheduled(config: Config, train: Sequence[Example]) -> Config:
    """The config with the steps of `task.epochs`: of the run, of its warm-up, between evaluations and between saves."""
    task, data, run = config.task, config.data, config.run
    if task.epochs == 0.0:
        return config
    each = -(-batches.epoch_rows(task.kind, train, data, seed=run.seed) // data.batch_size)
    steps = max(1, round(task.epochs * each))
    often = min(max(1, each // task.evaluations), steps)
    return override(
        config,
        run={"steps": steps, "eval_every": often, "save_every": often, "log_every": min(run.log_every, often)},
        optim={"warmup_steps": round(task.warmup * steps)},
    )


def _with_labels(config: Config, records: dict[str, list[Record]]) -> Config:
    """The config with the labels of its model, which no other split may lack, and whether answers may be missing."""
    task = config.task
    if task.kind == "span" and task.unanswerable == "auto":
        missing = any(record.answers == () for record in records[TRAIN])
        return override(config, task={"unanswerable": "yes" if missing else "no"})
    if task.kind not in ("classify", "tag"):
        return config
    known = task.labels or labels.found(records[TRAIN])
    if len(known) < 2:
        raise DataError(f"task.train = {task.train}: all labels are {known[0]!r}; there is nothing to tell apart")
    for split, chosen in records.items():
        labels.check(chosen, known, "those of task.labels" if task.labels else f"those of {', '.join(task.train)}")
        del split
    return override(config, model={"labels": known})


def _of_source(source: Trained, config: Config, directory: Path) -> Config:
    """The config of a run that begins with this model, whose structure and tokenizer it takes over."""
    path, name = load.tokenizer_file(config.run.init_from), config.run.init_from
    if source.tokenizer is None or path is None:
        raise DataError(f"{name}: has no tokenizer that bertjax reads, so its words cannot be found; add its vocab.txt")
    model = warmstart.finetuned(source, config)
    if config.data.seq_len > model.max_positions:
        fix = "set it to that, and data.buckets to lengths that end with it, or to ()"
        raise ConfigError(f"data.seq_len = {config.data.seq_len}: {name} has {model.max_positions} positions; {fix}")
    own = {".model": "spiece.model", ".txt": "vocab.txt", ".json": "tokenizer.json"}[path.suffix]
    kept = directory / "tokenizer" / own
    if path.absolute() != kept.absolute():  # so that the run needs the source no more
        storage.make(kept.parent)
        storage.write(kept, path.read_bytes())
        storage.write_sums(kept.parent, [own])
    data = replace(
        config.data,
        tokenizer=str(kept) if path.suffix == ".json" else "",
        tokenizer_kind="wordpiece" if path.suffix == ".txt" else "sentencepiece",
        case="uncased" if source.tokenizer.lower_case else "cased",
    )
    return override(replace(config, model=model, data=data))


def _of_random_weights(config: Config, train: list[Record], directory: Path) -> Config:
    """The config of a run whose tokenizer is made of the texts to learn from, unless one is named."""
    say("run.init_from = '': begins with random weights; a pretrained model learns the task from fewer examples")
    data = config.data
    if not data.tokenizer:
        data = replace(
            data, tokenizer_kind="wordpiece", case=data.case if data.case != "auto" else _case(config, train)
        )
        path = workdir.tokenizer_path(directory, data)
        if not path.exists():
            texts = (text for record in train for text in record.texts)
            most, lower_case = config.model.vocab_size, bool(data.lower_case)
            count = train_wordpiece(texts, path, vocab_size=most, lower_case=lower_case, exact=False)
            storage.write_sums(path.parent, [path.name])
            say(f"{path}: {count:,} pieces, {data.case}, made of the texts of task.train")
    path = workdir.tokenizer_path(directory, data)
    pieces = trial.load(path, lower_case=data.lower_case).vocab_size
    model = replace(warmstart.finetuned(None, config), vocab_size=pieces)
    return override(replace(config, model=model, data=data))


def _case(config: Config, train: list[Record]) -> str:
    """Names are known by their capitals; other texts lose them unless that would lose more (`doubts.uncased`)."""
    sample = " ".join(text for record in train[:10_000] for text in record.texts)
    return "cased" if config.task.kind == "tag" or doubts.uncased(sample) else "uncased"
