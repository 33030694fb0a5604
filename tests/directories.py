"""Tiny models and the directories of transformers they are written to, for the tests that read and damage them."""

import functools
import json
import warnings
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from small import tiny

from bertjax.huggingface.directory import write as write_directory
from bertjax.model.network import abstract_params

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
NO_PAIR = {"heads": ("mlm_head",)}
MODERN = models.KINDS["modernbert"] | NO_PAIR | {"dropout": 0.0}
NOMIC = models.KINDS["nomic"] | NO_PAIR
KINDS = {
    "bert": ({}, "bert"),
    "bert_without_pair": (NO_PAIR, "bert"),
    "bert_with_pooler": (
        {"heads": ("mlm_head", "pooler"), "activation": "relu", "layer_norm_eps": 1e-5, "dropout": 0.0},
        "bert",
    ),
    "bert_one_type": ({"token_types": 1}, "bert"),
    "albert": ({"share": "all", "embedding_size": 16}, "albert"),
    "albert_2_groups": ({"share": "all", "num_groups": 2, "embedding_size": 16} | NO_PAIR, "albert"),
    "albert_wide": ({"share": "all"}, "albert"),
    "albert_nothing_shared": ({"embedding_size": 16}, "albert"),
    "distilbert": ({"token_types": 0, "attention_output_dropout": False} | NO_PAIR, "distilbert"),
    "roberta": ({"token_types": 1, "activation": "gelu_erf"} | NO_PAIR, "roberta"),
    "modernbert": (MODERN, "modernbert"),
    "modernbert_global": (MODERN | {"window": 0, "rotary_base_local": 0.0, "num_layers": 3}, "modernbert"),
    "nomic": (NOMIC, "nomic_bert"),
    "roberta_but_for_its_head": ({"token_types": 1, "activation": "gelu_tanh"} | NO_PAIR, "bert"),
}
"""Changes to the tiny model, and the family that holds it."""
UNSHARED = {
    "attention": ({"share": "attention", "num_groups": 2}, "bert"),
    "ffn": ({"share": "ffn"}, "bert"),
    "ffn_factorised": ({"share": "ffn", "num_groups": 2, "embedding_size": 16}, "albert"),
    "attention_roberta": ({"share": "attention", "token_types": 1, "activation": "gelu_erf"} | NO_PAIR, "roberta"),
    "modernbert_shared": (MODERN | {"share": "all", "num_layers": 5, "num_groups": 2}, "modernbert"),
    "nomic_shared": (NOMIC | {"share": "ffn"}, "nomic_bert"),
    "all_distilbert": ({"share": "all", "token_types": 0, "attention_output_dropout": False} | NO_PAIR, "distilbert"),
}


LABELS = ("no", "yes", "perhaps, \u00e9")
ASKED = {
    "classify": {"heads": ("pooler", "classifier"), "labels": LABELS},
    "regress": {"heads": ("pooler", "classifier"), "labels": ("score",)},
    "choice": {"heads": ("pooler", "classifier")},
    "tag": {"heads": ("tagger",), "labels": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")},
    "span": {"heads": ("span_head",)},
}
"""Kind of a task -> the head of its model."""
_MODERN_HEAD = {"pooler_activation": "gelu_erf", "pooler_norm": True}
POOLERS = {
    "distilbert": {"pooler_activation": "relu"},
    "modernbert": _MODERN_HEAD,
    "modernbert_global": _MODERN_HEAD | {"pooling": "mean"},
}
"""What a model has before a classifier, where it is not BERT's."""
FIXED = {
    ("bert", "span"): 0.0,
    ("albert", "span"): 0.0,
    ("roberta", "span"): 0.0,
    ("roberta", "choice"): 0.1,
    ("distilbert", "tag"): 0.1,
}
"""Rates of dropout for which config.json has no field of their own."""
FINETUNED = {
    f"{kind}_{asked}": (kind, asked)
    for kind in ("bert", "albert", "distilbert", "roberta", "modernbert", "nomic")
    for asked in ASKED
    if (kind, asked) not in (("nomic", "span"), ("nomic", "choice"))
} | {"modernbert_mean": ("modernbert_global", "classify")}
"""Models with a head for labels, of every kind that transformers has: the kind and the task."""


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"../shared/data/{'/'.join(parts)} is absent")
    return path


@functools.cache
def hf():
    """The transformers package, quiet."""
    torch = pytest.importorskip("torch", reason="the [hf] extra is not installed")
    torch.set_num_threads(1)  # in products this small, more threads only get in each other's way
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason="the [hf] extra is not installed")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def model_of(kind):
    """A tiny model of this kind."""
    if kind in FINETUNED:
        base, asked = FINETUNED[kind]
        head = ASKED[asked] | {"classifier_dropout": FIXED.get((base, asked), 0.25)}
        modern = base in ("modernbert", "modernbert_global")
        if asked not in ("tag", "span") or modern:
            head = POOLERS.get(base, {}) | head
        return replace(model_of(base), **head, token_transform=modern and asked in ("tag", "span"))
    changes, _ = (KINDS | UNSHARED)[kind]
    return tiny(model=changes, objective={"pair": 0.0}, data={"examples": "full_sentences"}).model


@functools.cache
def ours(kind):
    """It, and random parameters."""
    config, rng, flat = model_of(kind), np.random.default_rng(0), {}
    for path, x in flatten_dict(abstract_params(config), sep="/").items():
        flat[path] = (float(path.endswith("scale")) + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
    return config, unflatten_dict(flat, sep="/")


def write(directory, kind="bert", **changes):
    """Export that model; `changes` are other arguments of `bertjax.huggingface.directory.write`."""
    config, params = ours(kind)
    settings = {"config": config, "params": params, "tokenizer": None, "lower_case": True, "card": {}} | changes
    write_directory(directory, **settings)
    (directory / "SHA256SUMS").unlink()  # as of a directory that another program wrote
    return directory


def stored(directory):
    return safetensors.numpy.load_file(directory / "model.safetensors")


def restore(directory, tensors):
    """Replace what is stored."""
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")


def reconfigure(directory, **changes):
    """Replace fields of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same(params, expected):
    """Two parameter trees are equal bit for bit."""
    flat, other = flatten_dict(params, sep="/"), flatten_dict(expected, sep="/")
    assert flat.keys() == other.keys()
    for path, x in flat.items():
        assert x.dtype == np.float32 and x.flags.writeable, path
        np.testing.assert_array_equal(x.view(np.uint32), other[path].view(np.uint32), err_msg=path)


def real_classifier(directory):
    """A published BERT-Tiny that tells the sentiment of a sentence, as transformers keeps it; the sentence, what each
    part of the model gives for it, and its logits.

    It comes without the tables of the embeddings, but with what they give for the sentence. So the place of each token
    is given a row that becomes that, by a scale and a bias of the norm that are good for all of them: for each row y,
    (y - bias) / scale has mean 0 and variance 1, two equations for each of 21 tokens, which Newton's method solves.
    """
    source = shared("weights", "bert_tiny_sst2_encoder")
    values = dict(np.load(source / "inputs_and_expected.npz"))
    y_LH = values["embedding_output_4"].astype(np.float64)
    (L, H), inverse_H, shift_H = y_LH.shape, np.full(y_LH.shape[1], 1 / y_LH.std()), np.zeros(y_LH.shape[1])
    for _ in range(9):
        x_LH = y_LH * inverse_H - shift_H
        wrong = np.concatenate([x_LH.sum(1), (x_LH**2).sum(1) - H])
        by_inverse, by_shift = np.concatenate([y_LH, 2 * x_LH * y_LH]), np.concatenate([0 * y_LH - 1, -2 * x_LH])
        change = np.linalg.pinv(np.concatenate([by_inverse, by_shift], axis=1)) @ wrong
        inverse_H, shift_H = inverse_H - change[:H], shift_H - change[H:]
    assert np.abs(wrong).max() < 1e-9
    tables = {
        "word_embeddings.weight": np.zeros((30522, H)),
        "position_embeddings.weight": np.concatenate([x_LH, np.zeros((512 - L, H))]),
        "token_type_embeddings.weight": np.zeros((2, H)),
        "LayerNorm.weight": 1 / inverse_H,
        "LayerNorm.bias": shift_H / inverse_H,
    }
    directory.mkdir()
    (directory / "config.json").write_text((source / "config.json").read_text())
    made = {f"bert.embeddings.{name}": np.asarray(x, np.float32) for name, x in tables.items()}
    restore(directory, made | stored(source))
    (case,) = json.loads((source / "golden.json").read_text())["cases"]
    return case["text"], values, np.array(case["logits_exact_layernorm_float64"])
