"""Fine-tuned models of every kind, small, with random weights: the parameters, and work directories of them."""

import functools

import jax
import numpy as np
from small import tiny

from bertjax.config.recipe import from_dict, to_dict
from bertjax.data import tokenizer
from bertjax.model.network import abstract_params
from bertjax.train import checkpoint, workdir
from bertjax.train.state import TrainState

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "?", "."]
HEADS = {
    "classify": ("pooler", "classifier"),
    "regress": ("pooler", "classifier"),
    "choice": ("pooler", "classifier"),
    "tag": ("tagger",),
    "span": ("span_head",),
}
LABELS = {
    "classify": ("bad", "good", "so so"),
    "regress": ("similarity",),
    "choice": (),
    "tag": ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"),
    "span": (),
}


def write_pieces(path):
    """A vocabulary of letters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(PIECES) + "\n")
    return tokenizer.load(path, lower_case=True)


def config_of(kind, **sections):
    """The config of a run of this kind; the model has one layer."""
    values = to_dict(tiny(model={"heads": HEADS[kind], "labels": LABELS[kind], "num_layers": 1}, task={"kind": "tag"}))
    values["task"] |= {"kind": kind, "train": ("train",)}
    values["data"] |= {"tokenizer_kind": "wordpiece"}
    if kind == "choice":
        values["task"]["endings"], values["data"]["packing"] = ("0", "1"), 2
    if kind == "span":
        values["task"]["max_question"] = 8
    for section, fields in sections.items():
        values[section] |= fields
    return from_dict(values)


@functools.cache
def params_of(model):
    """Random parameters, of which the logits differ much."""
    rng = np.random.default_rng(1)

    def draw(path, x):
        if path[-1].key == "scale":
            return np.ones(x.shape, np.float32)
        return ((0.02 if path[-1].key == "bias" else 0.3) * rng.normal(size=x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(model))


def write(directory, config):
    """A work directory, of a run that has done one step."""
    words = write_pieces(directory / "tokenizer" / "vocab.txt")
    state = TrainState(step=np.ones([], np.int32), params=params_of(config.model), opt_state=())
    saves = checkpoint.Checkpoints(directory / "checkpoints", keep=1)
    identity = {"data set": "of labels", "tokenizer": words.digest, "teacher": ""}
    saves.save(1, state, identity=identity, rows=8, config=config)
    saves.close()
    workdir.save_config(directory, config)
    return directory
