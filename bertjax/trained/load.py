"""A trained model wherever it lies: in a work directory or in a Hugging Face directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax.config.schema import ModelConfig
from bertjax.data import tokenizer
from bertjax.errors import CheckpointError, DataError
from bertjax.huggingface import directory as convert
from bertjax.model.network import abstract_params
from bertjax.tasks import inputs
from bertjax.train import checkpoint, workdir

HEADS = ("mlm_head", "pooler", "pair_head")
"""The parts of `bertjax.model.network.Pretrainer` beside the encoder."""


@dataclass(frozen=True)
class Pretrained:
    """A model and what it was trained with."""

    model: ModelConfig
    params: Any  # float32 NumPy arrays, the tree of `bertjax.model.network.Pretrainer`
    heads: frozenset[str]  # of HEADS: those that were trained
    tokenizer: tokenizer.Tokenizer | None  # None where a Hugging Face directory has none that bertjax reads


def load(path: str | Path) -> Pretrained:
    """The newest checkpoint of a work directory, or the model of a Hugging Face directory; nothing is put on a device.

    Raises ConfigError, CheckpointError or DataError for a directory that is neither, or damaged.
    """
    path = Path(path).expanduser()
    if (path / "checkpoints").is_dir():
        return _of_workdir(path)
    if (path / "config.json").is_file():
        return _of_hugging_face(path)
    raise CheckpointError(f"{path}: neither a work directory with checkpoints nor a Hugging Face directory; name one")


def _of_workdir(path: Path) -> Pretrained:
    config = workdir.load_config(path)
    restored = checkpoint.restore_params(path / "checkpoints", abstract_params(config.model))
    words = tokenizer.load(workdir.tokenizer_path(path, config.data), lower_case=config.data.lower_case)
    inputs.check_vocabulary(config, words)
    if words.digest != restored.position.tokenizer:
        raise DataError(f"{path}: was trained with another tokenizer than data.tokenizer names; restore that one")
    return Pretrained(config.model, restored.state, _heads(config.model), words)


def _of_hugging_face(path: Path) -> Pretrained:
    found = convert.read(path)
    readable = found.tokenizer is not None and found.tokenizer.suffix in tokenizer.SUFFIXES
    words = tokenizer.load(found.tokenizer, lower_case=found.lower_case) if readable and found.tokenizer else None
    return Pretrained(found.model, found.params, _heads(found.model) - set(found.fresh), words)


def _heads(model: ModelConfig) -> frozenset[str]:
    return frozenset(head for head in HEADS if getattr(model, head, True))
