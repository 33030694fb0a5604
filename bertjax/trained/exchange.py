"""`bertjax import` and `bertjax export`: between a Hugging Face directory and a work directory."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bertjax import storage
from bertjax.config.recipe import override, to_dict
from bertjax.config.schema import Config, ModelConfig
from bertjax.console import say
from bertjax.data import trial
from bertjax.data.tokenizer import SUFFIXES, check_vocabulary
from bertjax.errors import DataError
from bertjax.huggingface.directory import Contents, read, write
from bertjax.huggingface.names import ANSWERS, CHOOSES, CLASSIFIES, TAGS, ending_of
from bertjax.model.network import abstract_params
from bertjax.train import checkpoint, metrics, workdir
from bertjax.train.state import TrainState
from bertjax.trained.load import check_restored

PRIVATE = {"data": ("source", "tokenizer", "prepared"), "task": ("train", "dev", "test")}
"""Fields that are paths of the machine, and nobody else's business."""
MEASURED = ("eval_", "dev_", "test_")
"""What the numbers of the card begin with in metrics.jsonl."""
ENDINGS = ("ending0", "ending1", "ending2", "ending3")


def import_directory(source: Path, directory: Path) -> Config:
    """Write the model in `source` as step 0 of a work directory, whole or not at all; returns the config it gets.

    `directory` must be new or empty. The model in it can be evaluated, called and exported, and a new run can begin
    with it (`run.init_from`); there is no optimizer state to go on from. Raises CheckpointError for a directory that
    cannot be read, DataError for one without a tokenizer, StorageError where it cannot write.
    """
    directory = directory.absolute()
    with storage.new_directory(directory) as partial:
        found = read(source)
        if found.tokenizer is None or found.tokenizer.suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise DataError(f"{source}: has no tokenizer file ({known}) that can be read; add the one it came with")
        tokenizer = trial.load(found.tokenizer, lower_case=found.lower_case)
        config = _config(found, directory / "tokenizer" / found.tokenizer.name)
        check_vocabulary(tokenizer, config.model.vocab_size)
        (partial / "tokenizer").mkdir()
        shutil.copyfile(found.tokenizer, partial / "tokenizer" / found.tokenizer.name)
        storage.write_sums(partial / "tokenizer", [found.tokenizer.name])
        identity = {"data set": "", "tokenizer": tokenizer.digest, "teacher": ""}
        state = TrainState(step=np.zeros([], np.int32), params=found.params, opt_state=())  # type: ignore[arg-type]
        saves = checkpoint.Checkpoints(partial / "checkpoints", keep=1)
        saves.save(0, state, identity=identity, rows=0, config=config)
        saves.close()
        workdir.save_config(partial, config)
    if "mlm_head" in found.fresh and "mlm_head" in config.model.heads:
        say(f"{source}: has no head for masked words; it gets a new one, which must be trained")
    return config


def _config(found: Contents, tokenizer: Path) -> Config:
    """Of a run that could have made the model; what it says of the data is a guess from the model's structure."""
    model = found.config
    pairs = "pair_head" in model.heads and model.token_types != 1
    examples = "sop" if model.embedding_size < model.hidden_size or model.share != "none" else "nsp"
    task = _task(model, seq_len=min(128, model.max_positions))
    return override(
        Config(model=model),
        objective={"pair": float(pairs)},
        data={
            "tokenizer": str(tokenizer),
            "case": "uncased" if found.lower_case else "cased",
            "seq_len": min(128, model.max_positions),
            "max_predictions": min(20, model.max_positions),
            "examples": examples if pairs else "doc_sentences",
            "packing": len(task["endings"]) if "endings" in task else 1,
        },
        task=task,
    )


def _task(model: ModelConfig, *, seq_len: int) -> dict[str, Any]:
    """Of a model with a head for labels, which files its run read being unknown; {} of another."""
    kind = {CLASSIFIES: "classify", CHOOSES: "choice", TAGS: "tag", ANSWERS: "span"}.get(ending_of(model), "")
    if kind == "classify" and len(model.labels) == 1:
        return {"kind": "regress"}
    fields: dict[str, dict[str, Any]] = {
        "": {},
        "span": {"max_question": max(min(64, seq_len - 8), 1)},
        "choice": {"endings": ENDINGS[: max(min(4, seq_len // 5), 2)]},
    }
    return {"kind": kind} | fields.get(kind, {"labels": model.labels})


def export_directory(config: Config, directory: Path, out: Path, step: checkpoint.Wanted = "newest") -> int:
    """Write a checkpoint in `directory` as a Hugging Face directory `out`, whole or not at all; its step.

    Raises what `checkpoint.restore_params` and `huggingface.directory.write` raise, and DataError for another
    tokenizer.
    """
    restored = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model), step=step)
    path = workdir.tokenizer_path(directory, config.data)
    tokenizer = trial.load(path, lower_case=config.data.lower_case, known=restored.identity["tokenizer"])
    check_restored(config, directory, restored, tokenizer)
    shown = to_dict(config)
    card: dict[str, Any] = {
        "bertjax": version("bertjax"),
        "steps": restored.step,
        "data set": restored.identity["data set"] or "none",
        "tokenizer": restored.identity["tokenizer"],
        "held out": _held_out(directory, restored.step) or "not evaluated",
        "config": {},
    }
    phases = ("phases",) if config.phases.steps else ()
    for section in ("model", "task" if config.task.kind else "objective", "optim", "data", *phases):
        left_out = PRIVATE.get(section, ())
        card["config"][section] = {name: value for name, value in shown[section].items() if name not in left_out}
    write(out, config.model, restored.state, tokenizer=path, lower_case=config.data.lower_case, card=card)
    return restored.step


def _held_out(directory: Path, step: int) -> dict[str, Any]:
    """The last evaluation of each kind until then."""
    found: dict[str, Any] = {}
    lines = [line for line in metrics.read(directory / metrics.METRICS) if line["step"] <= step]
    for kind in MEASURED:
        numbers = [{name: x for name, x in line.items() if name.startswith(kind)} for line in lines]
        found |= next((one for one in reversed(numbers) if one), {})
    return found
