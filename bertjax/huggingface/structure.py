"""Which family holds a model: its structure decides."""

from typing import Any

from bertjax.config.schema import ModelConfig
from bertjax.errors import ConfigError
from bertjax.huggingface.card import span
from bertjax.huggingface.names import (
    ANSWERS,
    CHOOSES,
    CLASSES,
    CLASSIFIES,
    FAMILIES,
    LABEL_HEADS,
    TAGS,
    TO_HIDDEN,
    ending_of,
    heads_of,
    tensor_names,
)

_CLASSIC: dict[str, Any] = {
    "positions": "learned",
    "window": 0,
    "norm": "layer",
    "norm_place": "post",
    "first_norm": True,
    "embedding_norm": True,
    "ffn": "plain",
    "biases": "all",
    "mlm_transform": True,
    "tie_words": True,
}
_ROTARY = {"positions": "rotary", "rotary_pairs": "halves", "ffn": "gated"}
STRUCTURE: dict[str, dict[str, Any]] = {
    "bert": _CLASSIC,
    "roberta": _CLASSIC,
    "albert": _CLASSIC,
    "distilbert": _CLASSIC | {"token_types": 0, "attention_output_dropout": False},
    "modernbert": {name: value for name, value in _CLASSIC.items() if name != "window"}
    | _ROTARY
    | {"norm": "layer_no_bias", "norm_place": "pre", "first_norm": False, "biases": "decoder", "token_types": 0},
    "nomic_bert": _CLASSIC | _ROTARY | {"biases": "heads"},
}
"""By family: what all its models are, in ModelConfig's fields."""
_OF_MLM_HEAD = ("mlm_transform", "tie_words")
"""Of these, what a model without an MLM head has not."""

DROPOUTS: dict[str, dict[str, tuple[str, Any]]] = {
    "bert": dict.fromkeys((CLASSIFIES, CHOOSES, TAGS), ("classifier_dropout", None)) | {ANSWERS: ("", 0.0)},
    "albert": dict.fromkeys((CLASSIFIES, CHOOSES, TAGS), ("classifier_dropout_prob", 0.1)) | {ANSWERS: ("", 0.0)},
    "roberta": dict.fromkeys((CLASSIFIES, TAGS), ("classifier_dropout", None))
    | {CHOOSES: ("", None), ANSWERS: ("", 0.0)},
    "distilbert": dict.fromkeys((CLASSIFIES, CHOOSES), ("seq_classif_dropout", 0.2))
    | {TAGS: ("", None), ANSWERS: ("qa_dropout", 0.1)},
    "modernbert": dict.fromkeys((CLASSIFIES, CHOOSES, TAGS, ANSWERS), ("classifier_dropout", 0.0)),
    "nomic_bert": dict.fromkeys((CLASSIFIES, TAGS), ("classifier_dropout", None)),
}
"""By family and class: the field of config.json that is `classifier_dropout`, "" where there is none, and what holds
where it says nothing; None = the dropout of the encoder."""


MOST_LABELS = 20
"""How many labels the card names."""


def nearest(config: ModelConfig) -> str:
    """The family that a model is most alike."""
    if (near := _nearest_structure(config)) != "bert":
        return near
    if config.token_types == 0:
        return "distilbert"
    shared = config.share == "all" and config.copies < config.num_layers
    if shared or config.embedding_size < config.hidden_size:
        return "albert"
    # RoBERTa's MLM head computes the erf form whatever hidden_act says.
    fits = config.token_types == 1 and "pair_head" not in config.heads and config.activation == "gelu_erf"
    return "roberta" if fits else "bert"


def _nearest_structure(config: ModelConfig) -> str:
    return min(("bert", "modernbert", "nomic_bert"), key=lambda family: len(_misfits(family, config)))


def choose(config: ModelConfig) -> str:
    """The family that holds a model of this structure. Raises ConfigError naming the fields that none can hold."""
    family = _nearest_structure(config)
    if misfits := _misfits(family, config):
        raise _held_by_none(config, misfits, f"transformers' {CLASSES[family]}, the nearest, has")
    family = nearest(config)
    if family == "distilbert":
        only: dict[str, Any] = {"embedding_size": config.hidden_size, "layer_norm_eps": 1e-12}
        if not ending_of(config):
            only = {"heads": ("mlm_head",)} | only
        for field, value in only.items():
            if getattr(config, field) != value:
                left = "without token types only DistilBERT's architecture is left, and it has"
                raise _held_by_none(config, {field: value}, left)
    labelled = [head for head in config.heads if head in LABEL_HEADS]
    if len(labelled) > 1:
        raise _held_by_none(config, {"heads": labelled[0]}, "a model of transformers has one head for labels, as")
    if labelled and ending_of(config) not in FAMILIES[family].labelled:
        has = tuple(FAMILIES[family].labelled)
        raise _held_by_none(config, {"heads": ", ".join(has)}, f"for labels transformers' {CLASSES[family]} has")
    if misfits := {name: x for name, x in label_structure(family, config).items() if getattr(config, name) != x}:
        raise _held_by_none(config, misfits, f"transformers' {CLASSES[family]} has")
    return family


def _held_by_none(config: ModelConfig, misfits: dict[str, Any], who_has: str) -> ConfigError:
    fields = ", ".join(f"model.{name} = {getattr(config, name)}" for name in misfits)
    has = ", ".join(str(value) for value in misfits.values())
    return ConfigError(f"{fields}: {who_has} {has}; this model cannot be exported")


def _misfits(family: str, config: ModelConfig) -> dict[str, Any]:
    """Fields of a model that no model of the family has so, and what they have."""
    found = {name: value for name, value in STRUCTURE[family].items() if getattr(config, name) != value}
    if "mlm_head" not in config.heads:
        found = {name: value for name, value in found.items() if name not in _OF_MLM_HEAD}
    if family in ("modernbert", "nomic_bert") and config.embedding_size != config.hidden_size:
        found["embedding_size"] = config.hidden_size
    if family == "nomic_bert" and config.token_types == 0:
        found["token_types"] = 2
    return found


def label_structure(family: str, config: ModelConfig) -> dict[str, Any]:
    """What a family has for the pooler, and the transform of tokens, of this model; {} where it has neither."""
    fields: dict[str, Any] = {"pooling": "cls", "pooler_activation": "tanh", "pooler_norm": False}
    if family == "distilbert":
        fields["pooler_activation"] = "relu"
    if family == "modernbert":
        fields = {"pooling": config.pooling, "pooler_activation": config.activation, "pooler_norm": True}
    if "pooler" in config.heads and "pooler" in heads_of(family, ending_of(config)):
        return fields
    if ending_of(config) in (TAGS, ANSWERS):
        of_tokens = {"token_transform": family == "modernbert"}
        return of_tokens | fields if family == "modernbert" else of_tokens
    return {}


def head_dropout(family: str, config: ModelConfig) -> float:
    """What stands before the last layer of a head for labels where this model is trained on in transformers."""
    field, without = DROPOUTS[family][ending_of(config)]
    return config.classifier_dropout if field else config.dropout if without is None else without


def notes(family: str, config: ModelConfig, held: ModelConfig) -> list[str]:
    """Where the model as the family holds it (`held`) is not the trained one (`config`), or not in training."""
    found = []
    if held.share != config.share:
        part = "whole layers were" if config.share == "all" else f"the {config.share} parts of the layers were"
        found.append(f"In pretraining {part} shared; here each layer has its own copy. The function is the same.")
    if dropped := [head.replace("_", " ") for head in config.heads if head not in held.heads]:
        have = "has" if len(dropped) == 1 else "have"
        found.append(f"The {' and the '.join(dropped)} of pretraining {have} no place in this architecture.")
    found += _notes_of_labels(family, held) if ending_of(held) else []
    if TO_HIDDEN in tensor_names(family):
        if config.embedding_size == config.hidden_size:
            found.append("`embedding_hidden_mapping_in` is the identity: the model has no such product.")
        pair = "the input of the pair head, and " if "pair_head" in held.heads else ""
        found.append(f"In training, transformers' ALBERT drops {pair}no feed-forward output.")
    if family == "modernbert" and config.dropout > 0:
        found.append(
            "In training, transformers drops inside the feed-forward part where pretraining dropped its output."
        )
    if family != "modernbert" and config.dropout > 0 and config.attention_output_dropout == (family == "distilbert"):
        does = "does not drop" if config.attention_output_dropout else "drops"
        found.append(f"In training, transformers {does} the output of attention, unlike in pretraining.")
    return found


def _notes_of_labels(family: str, held: ModelConfig) -> list[str]:
    found = []
    if held.labels:
        shown = ", ".join(map(span, held.labels[:MOST_LABELS]))
        more = f" and {len(held.labels) - MOST_LABELS} more" if len(held.labels) > MOST_LABELS else ""
        found.append(f"Labels: {shown}{more}.")
    theirs = head_dropout(family, held)
    if theirs != held.classifier_dropout:
        found.append(
            f"In training, transformers' rate of dropout before the last layer is {theirs:g}, and here it was"
            f" {held.classifier_dropout:g}."
        )
    if family == "roberta" and ending_of(held) == CLASSIFIES and held.classifier_dropout > 0.0:
        found.append("In training, transformers' RoBERTa also drops the input of the first layer of the classifier.")
    return found
