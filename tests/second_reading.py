"""A model directory with a damaged file that still loads: is it the model that was there, or what the file now says?

The formats have no checksums: a flipped bit may leave a file that is as valid and says something else. So a damaged
file is read a second time, by another reader; what was loaded must differ from what was there just as the file does.
"""

import hashlib
import json
from dataclasses import asdict

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict
from foreign import HARD
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from bertjax.huggingface.config_json import ACTIVATIONS, FIELDS, REQUIRED
from bertjax.huggingface.names import ending_of
from bertjax.huggingface.structure import DROPOUTS

SAME, ANOTHER, WRONG = "harmless", "another value", "silent wrong"

PIECES = {"pieces", "special", "ids"}
_ROTATION, _WINDOW = {"rotary_base", "rotary_base_local"}, {"window", "global_every", "rotary_base_local"}
MAY_CHANGE = {
    "rope_parameters": _ROTATION,
    "global_rope_theta": _ROTATION,
    "local_rope_theta": _ROTATION,
    "layer_types": _WINDOW,
    "local_attention": _WINDOW,
    "global_attn_every_n_layers": _WINDOW,
}
"""Keys of config.json that are read together, so that one of them may change nothing, and what it may change."""


def verdict(found, whole, file, before, after):
    """Whether `found`, which loads with a file whose content was `before` and is now `after`, is `whole`, as it loaded
    before, or differs from it as the file says. Other scores of pieces are another value, also where no text shows it.
    """
    change = changed(found, whole)
    fits, other = _READINGS[file](found, whole, before, after, change)
    if not fits:
        return WRONG
    return ANOTHER if change or other else SAME


def changed(found, whole):
    """In what two models differ: fields of the config; "params", "heads", "pieces", "special", "lower_case", "ids"."""
    config, other = asdict(found.config), asdict(whole.config)
    change = {name for name in config if config[name] != other[name]}
    if found.heads != whole.heads:
        change.add("heads")
    if different(found.params, whole.params):
        change.add("params")
    for name in ("pieces", "special", "lower_case"):
        if getattr(found.tokenizer, name) != getattr(whole.tokenizer, name):
            change.add(name)
    ids, lengths = found.tokenizer.encode_batch(HARD)
    others, other_lengths = whole.tokenizer.encode_batch(HARD)
    if not np.array_equal(ids, others) or not np.array_equal(lengths, other_lengths):
        change.add("ids")
    return change


def different(params, others):
    """How many numbers of two trees differ; all if their names or shapes do."""
    flat, other = flatten_dict(params, sep="/"), flatten_dict(others, sep="/")
    if {name: x.shape for name, x in flat.items()} != {name: x.shape for name, x in other.items()}:
        return sum(x.size for x in flat.values())
    return sum(int((x.view(np.uint32) != other[name].view(np.uint32)).sum()) for name, x in flat.items())


def _fits_config(found, whole, before, after, change):
    """Each key that says something else changes its field to what it says, and nothing changes but that."""
    before, after = json.loads(before), json.loads(after)
    family = before["model_type"]
    known = {key: (field, default) for field, (key, default) in FIELDS[family].items()}
    allowed = set()
    for key in before.keys() | after.keys():
        default = known[key][1] if key in known else REQUIRED[family].get(key)
        value, other = after.get(key, default), before.get(key, default)
        if value == other:
            continue
        if key in REQUIRED[family] or key == "model_type":
            return False, True  # it should have been refused
        allowed |= MAY_CHANGE.get(key, set())
        if key in known:
            field = known[key][0]
            allowed.add(field)
            read = getattr(found.config, field)
            if read != (ACTIVATIONS[value] if field == "activation" else value):
                return False, True
        if family == "roberta" and key == "pad_token_id":  # how many rows of the table of positions are of padding
            allowed |= {"max_positions", "params"}
    of_head = {"labels", "classifier_dropout"} if ending_of(found.config) else set()
    return change <= allowed | of_head and (not of_head or _fits_head(family, after, found.config)), False


def _fits_head(family, values, config):
    """The head for labels is as config.json says, or as transformers has it where that says nothing."""
    told = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(len(config.labels))}
    field, default = DROPOUTS[family][ending_of(config)]
    dropout = values.get(field)
    if dropout is None:
        dropout = config.dropout if default is None else default
    labels = tuple(told[str(i)] for i in range(len(told))) if config.labels else ()
    return (config.labels, config.classifier_dropout) == (labels, dropout)


def _fits_weights(found, whole, before, after, change):
    """As many numbers differ as in the tensors that the format's own library reads. It refuses more, as of metadata."""
    others = safetensors.numpy.load(before)
    try:
        tensors = safetensors.numpy.load(after)
    except safetensors.SafetensorError:
        return not change, False
    other = different(tensors, others)
    return change <= {"params"} and other == different(found.params, whole.params), other > 0


def _fits_settings(found, whole, before, after, change):
    uncased = json.loads(after).get("do_lower_case") is not False
    return change <= {"lower_case", "ids"} and found.tokenizer.lower_case == uncased, False


def _fits_vocabulary(found, whole, before, after, change):
    lines = [line.rstrip("\r") for line in after.decode().removesuffix("\n").split("\n")]
    return change <= PIECES and found.tokenizer.pieces == lines, False


def _fits_sentencepiece(found, whole, before, after, change):
    model = ModelProto.FromString(after)
    fits = change <= PIECES and found.tokenizer.pieces == [piece.piece for piece in model.pieces]
    return fits, model != ModelProto.FromString(before)


def _fits_tokenizer_json(found, whole, before, after, change):
    """A vocabulary is an object of ids, or a list of pieces with scores; added pieces have their ids beside them."""
    if found.tokenizer.digest != hashlib.sha256(after).hexdigest():
        return not change, False  # there is a vocab.txt or a spiece.model, which is read in its place
    values = json.loads(after)
    vocabulary = values["model"]["vocab"]
    if isinstance(vocabulary, dict):
        named = {index: piece for piece, index in vocabulary.items()}
    else:
        named = {index: piece for index, (piece, _) in enumerate(vocabulary)}
    named |= {token["id"]: token["content"] for token in values["added_tokens"]}
    fits = change <= PIECES and found.tokenizer.pieces == [named[i] for i in range(len(named))]
    return fits, values != json.loads(before)


_READINGS = {
    "config.json": _fits_config,
    "model.safetensors": _fits_weights,
    "tokenizer_config.json": _fits_settings,
    "vocab.txt": _fits_vocabulary,
    "spiece.model": _fits_sentencepiece,
    "tokenizer.json": _fits_tokenizer_json,
}
"""By file: whether what changed in a model is what changed in it, and whether it says something else in any case."""
