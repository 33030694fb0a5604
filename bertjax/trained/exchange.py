"""`bertjax import` and `bertjax export`: between a Hugging Face directory and a work directory."""

import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.config.recipe import override, to_dict
from bertjax.config.schema import Config
from bertjax.data import tokenizer
from bertjax.errors import DataError, StorageError
from bertjax.huggingface import directory as convert
from bertjax.model.network import abstract_params
from bertjax.tasks import inputs
from bertjax.tasks.pretrain import check_restored
from bertjax.train import checkpoint, metrics, workdir
from bertjax.train.step import TrainState

PRIVATE = ("source", "tokenizer", "prepared")
"""Fields of `data` that are paths of the machine, and nobody else's business."""


def import_directory(source: Path, directory: Path) -> Config:
    """Write the model in `source` as step 0 of a work directory, whole or not at all; returns the config it gets.

    `directory` must be new or empty. It can be evaluated, asked, exported and begun from (`run.init_from`), but holds
    no optimizer state to go on from. Raises CheckpointError for a directory that cannot be read, DataError for one
    without a tokenizer, StorageError where it cannot write.
    """
    directory = directory.absolute()
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise StorageError(f"{directory}: exists and is not an empty directory; name a new --workdir")
    found = convert.read(source)
    if found.tokenizer is None or found.tokenizer.suffix not in tokenizer.SUFFIXES:
        known = ", ".join(tokenizer.SUFFIXES)
        raise DataError(f"{source}: has no tokenizer file ({known}) that can be read; add the one it was trained with")
    words = tokenizer.load(found.tokenizer, lower_case=found.lower_case)
    config = _config(found, directory / "tokenizer" / found.tokenizer.name)
    inputs.check_vocabulary(config, words)
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        (partial / "tokenizer").mkdir(parents=True)
        shutil.copyfile(found.tokenizer, partial / "tokenizer" / found.tokenizer.name)
        writes = checkpoint.Checkpoints(partial / "checkpoints", keep=1)
        state = TrainState(step=np.zeros([], np.int32), params=found.params, opt_state=())  # type: ignore[arg-type]
        writes.save(0, state, position=checkpoint.Position(0, "", words.digest), config=config)
        writes.close()
        workdir.save_config(partial, config)
        partial.replace(directory)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror}); check disk and permissions") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if "mlm_head" in found.fresh:
        print(f"{source}: has no head for masked words; it gets a new one, which must be trained", file=sys.stderr)
    return config


def _config(found: convert.Imported, path: Path) -> Config:
    """Of a run that could have made the model; what it says of the data is a guess from the model's structure."""
    model = found.model
    pairs = model.pair_head and model.token_types != 1
    kind = "sop" if model.embedding_size < model.hidden_size or model.share != "none" else "nsp"
    return override(
        Config(model=model),
        objective={"pair": float(pairs)},
        data={
            "tokenizer": str(path),
            "lower_case": found.lower_case,
            "seq_len": min(128, model.max_positions),
            "max_predictions": min(20, model.max_positions),
            "examples": kind if pairs else "doc_sentences",
        },
    )


def export_directory(config: Config, directory: Path, out: Path) -> int:
    """Write the newest checkpoint in `directory` as a Hugging Face directory `out`, whole or not at all; its step.

    Raises what `checkpoint.restore_params` and `convert.write` raise, and DataError for another tokenizer.
    """
    restored = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model))
    path = workdir.tokenizer_path(directory, config.data)
    check_restored(config, directory, restored, tokenizer.load(path, lower_case=config.data.lower_case))
    shown = to_dict(config)
    card: dict[str, Any] = {
        "bertjax": version("bertjax"),
        "steps": restored.step,
        "data set": restored.position.data or "none",
        "tokenizer": restored.position.tokenizer,
        "held out": _held_out(directory) or "not evaluated",
        "config": {name: shown[name] for name in ("model", "objective", "optim")},
    }
    card["config"]["data"] = {name: value for name, value in shown["data"].items() if name not in PRIVATE}
    convert.write(out, config.model, restored.state, tokenizer=path, lower_case=config.data.lower_case, card=card)
    return restored.step


def _held_out(directory: Path) -> dict[str, Any]:
    """The last evaluation during training."""
    lines = [line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line]
    return {name: value for name, value in lines[-1].items() if name.startswith("eval_")} if lines else {}
