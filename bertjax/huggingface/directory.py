"""The way in and out: a model directory of Hugging Face transformers, read or written as a whole.

config.json, model.safetensors, the tokenizer's files, those of sentence encoders, and the model card, README.md.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.config.schema import ModelConfig
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import CheckpointError, DataError
from bertjax.huggingface import config_json, labels, names, structure
from bertjax.huggingface.card import model_card
from bertjax.huggingface.safetensors import WEIGHTS, dump, read_json
from bertjax.huggingface.sentence_files import sentence_files
from bertjax.huggingface.tokenizers import find_tokenizer, tokenizer_files
from bertjax.huggingface.weights import label_rows, read_weights, stored_in, to_family, to_tensors

CONFIG = "config.json"


@dataclass(frozen=True)
class Contents:
    """What a directory holds."""

    config: ModelConfig  # its heads are those that the directory holds, and an MLM head where none is for labels
    params: dict[str, Any]  # float32 NumPy arrays, the tree of `bertjax.model.network.Network`
    fresh: tuple[
        str, ...
    ]  # heads for pretraining that the directory does not hold; an mlm_head in config is initialised
    family: str
    tokenizer: Path | None  # vocab.txt or spiece.model; tokenizer.json if there is neither
    lower_case: bool  # what tokenizer_config.json says of it; True if nothing; a tokenizer.json says it itself


def read(directory: Path) -> Contents:
    """The model in `directory`, of any family in `names.FAMILIES`, with any of its heads.

    Raises CheckpointError for a directory that is damaged, of another architecture, or whose weights and config.json do
    not belong together; everything that is wrong with the names is in one error.
    """
    path = directory / CONFIG
    if not directory.exists():
        raise CheckpointError(absent(directory))
    values = read_json(path)
    family = values.get("model_type")
    if not isinstance(family, str) or family not in names.FAMILIES:
        known = ", ".join(names.FAMILIES)
        raise CheckpointError(f"{path}: model_type = {family!r:.60}: must be one of {known}")
    config, first_position = config_json.from_json(path, family, values)
    stored = stored_in(directory, family)
    told = values.get("architectures")
    try:
        ending = names.found_ending(family, told, stored)
    except ValueError as possible:
        fix = f"its last layer may be of {possible}; name the one in a list"
        raise CheckpointError(f"{path}: architectures = {told!r:.60}: {fix}") from None
    if ending:
        rows = label_rows(family, ending, stored)
        config = labels.with_head(path, family, values, config, ending=ending, rows=rows)
    config, params, fresh = read_weights(directory, stored, family, config, first_position)
    tokenizer, lower_case = find_tokenizer(directory)
    return Contents(config, params, fresh, family, tokenizer, lower_case)


def absent(directory: Path) -> str:
    """What to say of a model directory that does not exist: most likely it is the name of a model of the hub."""
    name = str(directory)
    told = f"{name}: there is no such directory here, and nothing is downloaded"
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        return f"{told}; name a directory with a model"
    local = name.rpartition("/")[2]
    return f"{told}; get it from the hub with `hf download {name} --local-dir={local}`, and name {local}"


def write(
    directory: Path,
    config: ModelConfig,
    params: Any,
    *,
    tokenizer: Path | None,
    lower_case: bool | None,
    card: dict[str, Any],
) -> None:
    """Write a model for transformers' `from_pretrained`, whole or not at all; `directory` must be new or empty.

    The class follows from the heads, and its family from the structure (`structure.choose`). Sharing that it does not
    have is undone, each layer getting a copy of its own, heads that it does not have are left out, and the card says
    so. `card` is shown in the card as a table; it is public.

    Raises ConfigError naming a field that no family can hold, CheckpointError for parameters of another model,
    DataError for the tokenizer, StorageError where it cannot write.
    """
    with storage.new_directory(directory) as partial:
        family = structure.choose(config)
        loaded = load_tokenizer(tokenizer, lower_case=lower_case) if tokenizer else None
        if loaded and loaded.vocab_size > config.vocab_size:
            pieces = f"{loaded.vocab_size} pieces, more than model.vocab_size = {config.vocab_size}"
            raise DataError(f"{tokenizer}: has {pieces}")
        held, flat = to_family(family, config, params)
        pad = loaded.special.pad if loaded else config_json.PAD[family] % config.vocab_size
        values, files = config_json.to_json(family, held, pad), {}
        if tokenizer and loaded:
            cls, sep = loaded.special.cls, loaded.special.sep
            values |= {"bos_token_id": cls, "eos_token_id": sep, "cls_token_id": cls, "sep_token_id": sep}
            files = tokenizer_files(tokenizer, loaded, held)
            files |= {} if names.ending_of(held) else sentence_files(held)
        shown = model_card(values, structure.notes(family, config, held), card, tokenizer=bool(tokenizer))
        files |= {CONFIG: (json.dumps(values, indent=2, allow_nan=False) + "\n").encode(), "README.md": shown.encode()}
        files[WEIGHTS] = dump(to_tensors(family, held, flat, names.first_position(family, pad)))
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        storage.write_sums(partial, files.keys() - {"README.md"})  # which is for people to change
