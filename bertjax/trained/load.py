"""A trained model wherever it lies, in a work directory or in a Hugging Face directory; on the host."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.config.schema import ComputeConfig, Config, ModelConfig, TaskConfig
from bertjax.data import trial
from bertjax.data.tokenizer import SUFFIXES, Tokenizer, check_vocabulary
from bertjax.errors import CheckpointError, DataError
from bertjax.huggingface.directory import absent, read
from bertjax.huggingface.tokenizers import find_tokenizer
from bertjax.model.network import abstract_params
from bertjax.train import checkpoint, workdir


@dataclass(frozen=True)
class Trained:
    """A model and what it was trained with."""

    config: ModelConfig
    compute: ComputeConfig  # the dtype of its training; all else as this machine has it
    params: Any  # float32 NumPy arrays, the tree of `bertjax.model.network.Network`
    heads: frozenset[str]  # those of config.heads that were trained
    tokenizer: Tokenizer | None  # None where a Hugging Face directory has none that bertjax reads
    task: TaskConfig = TaskConfig()  # of its fine-tuning; the defaults where it had none, or came from elsewhere
    seq_len: int = 0  # most tokens of an example of that task; 0 = the positions of the model


def load(path: str | Path) -> Trained:
    """The newest checkpoint of a work directory, which may be in a bucket (gs://BUCKET/PATH), or the model of a Hugging
    Face directory; nothing is put on a device.

    Raises ConfigError, CheckpointError or DataError for a directory that is neither, or damaged.
    """
    path = storage.place(path)
    if (path / "checkpoints").is_dir():
        return _of_workdir(path)
    if not path.exists():
        raise CheckpointError(absent(path))
    if os.path.lexists(path / "config.json"):
        return _of_hugging_face(path)
    raise CheckpointError(f"{path}: neither a work directory with checkpoints nor a Hugging Face directory; name one")


def tokenizer_file(path: str | Path) -> Path | None:
    """The file of the tokenizer of a model that `load` takes; None where a Hugging Face directory has none to read."""
    path = storage.place(path)
    if (path / "checkpoints").is_dir():
        return workdir.tokenizer_path(path, workdir.load_config(path).data)
    found, _ = find_tokenizer(path)
    return found if found and found.suffix in SUFFIXES else None


def word_tokenizer(path: str | Path, heads: frozenset[str], tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer of a model, from `path`, that can be asked about words: with a trained MLM head and a tokenizer.

    Raises CheckpointError or DataError for one that cannot.
    """
    if "mlm_head" not in heads:
        raise CheckpointError(f"{path}: has no trained head for masked words; pretrain one with run.init_from = {path}")
    if tokenizer is None:
        raise DataError(f"{path}: has no tokenizer that bertjax reads; add the one it came with")
    return tokenizer


def check_restored(config: Config, directory: Path, restored: checkpoint.Restored, tokenizer: Tokenizer) -> None:
    """Raise an error if a checkpoint in `directory` is of another model than `config` says, or of another tokenizer."""
    workdir.check_same_run(directory, restored.config, config, sections=("model",))
    trained_with = restored.identity["tokenizer"]
    if tokenizer.digest != trained_with:
        raise DataError(
            f"data.tokenizer: {tokenizer.digest[:8]} is not {trained_with[:8]}, with which the run in {directory} was"
            " trained; name that one"
        )


def _of_workdir(path: Path) -> Trained:
    config = workdir.load_config(path)
    restored = checkpoint.restore_params(path / "checkpoints", abstract_params(config.model))
    known, place = restored.identity["tokenizer"], workdir.tokenizer_path(path, config.data)
    tokenizer = trial.load(place, lower_case=config.data.lower_case, known=known)
    check_vocabulary(tokenizer, config.model.vocab_size)
    check_restored(config, path, restored, tokenizer)
    compute = ComputeConfig(dtype=config.compute.dtype)
    # Positions beyond the rows of a fine-tuned model may never have been trained, and it is measured without them. Of
    # one that was imported, these rows are not known.
    length = config.data.seq_len if config.task.train else 0
    return Trained(config.model, compute, restored.state, frozenset(config.model.heads), tokenizer, config.task, length)


def _of_hugging_face(path: Path) -> Trained:
    found = read(path)
    tokenizer = None
    if found.tokenizer and found.tokenizer.suffix in SUFFIXES:
        tokenizer = trial.load(found.tokenizer, lower_case=found.lower_case)
        if tokenizer.vocab_size > found.config.vocab_size:
            pieces, rows = tokenizer.vocab_size, found.config.vocab_size
            raise DataError(f"{path}: its tokenizer has {pieces} pieces and its model {rows}; restore the one it had")
    return Trained(
        found.config, ComputeConfig(), found.params, frozenset(found.config.heads) - set(found.fresh), tokenizer
    )
