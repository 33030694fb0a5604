"""The architectures of Hugging Face transformers as tables: how each names its parameters and its configuration.

A column is a family. BERT and RoBERTa have the same encoder, so tables of the encoder have one column for both.
"""

import math
import re
from pathlib import Path
from typing import Any

from bertjax.config.schema import ModelConfig
from bertjax.errors import CheckpointError, ConfigError
from bertjax.model.heads import HEADS

FAMILIES = ("bert", "roberta", "albert", "distilbert")
"""`model_type`, in the order of the columns."""

FIELDS: dict[str, tuple[str, str, tuple[Any, ...]]] = {  # name in three families, in DistilBERT, default of each family
    "vocab_size": ("vocab_size", "vocab_size", (30522, 50265, 30000, 30522)),
    "num_layers": ("num_hidden_layers", "n_layers", (12, 12, 12, 6)),
    "hidden_size": ("hidden_size", "dim", (768, 768, 4096, 768)),
    "num_heads": ("num_attention_heads", "n_heads", (12, 12, 64, 12)),
    "ffn_size": ("intermediate_size", "hidden_dim", (3072, 3072, 16384, 3072)),
    "embedding_size": ("embedding_size", "", (None, None, 128, None)),
    "num_groups": ("num_hidden_groups", "", (None, None, 1, None)),
    "max_positions": ("max_position_embeddings", "max_position_embeddings", (512, 512, 512, 512)),
    "token_types": ("type_vocab_size", "", (2, 2, 2, None)),
    "activation": ("hidden_act", "activation", ("gelu", "gelu", "gelu_new", "gelu")),
    "dropout": ("hidden_dropout_prob", "dropout", (0.1, 0.1, 0.0, 0.1)),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout", (0.1, 0.1, 0.0, 0.1)),
    "initializer_range": ("initializer_range", "initializer_range", (0.02, 0.02, 0.02, 0.02)),
    "layer_norm_eps": ("layer_norm_eps", "", (1e-12, 1e-12, 1e-12, None)),
}
"""ModelConfig's fields in config.json. The default holds where the file says nothing; None: there is no such field."""
ALSO_COMMON = ("num_layers", "hidden_size", "num_heads")
"""DistilBERT accepts the other families' names of these too."""

ACTIVATIONS = {"gelu": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
"""What transformers computes for a name. ALBERT v1 says "gelu", although Google trained it with the tanh form."""
REQUIRED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "inner_group_num": 1,
}
"""Fields that may say nothing else: it would be a function that `bertjax.model.network` does not compute."""
MAX_LAYERS = 1000
PAD = dict(zip(FAMILIES, (0, 1, 0, 0), strict=True))
"""`pad_token_id` of each family where config.json says nothing."""

WORD, POSITION, TO_HIDDEN = (f"encoder/embeddings/{name}" for name in ("word", "position", "to_hidden"))

ENCODER = {  # BERT and RoBERTa, ALBERT, DistilBERT; a prefix like "bert." may stand before each
    WORD: ("embeddings.word_embeddings.weight",) * 3,
    POSITION: ("embeddings.position_embeddings.weight",) * 3,
    "encoder/embeddings/token_type": (*("embeddings.token_type_embeddings.weight",) * 2, ""),
    "encoder/embeddings/norm": ("embeddings.LayerNorm",) * 3,
    TO_HIDDEN: ("", "encoder.embedding_hidden_mapping_in", ""),
    "pooler": ("pooler.dense", "pooler", ""),
}
"""A parameter, or the module of a kernel (or scale) and a bias. Here and below, "": the family has none."""
LAYERS = ("encoder.layer.{}.", "encoder.albert_layer_groups.{}.albert_layers.0.", "transformer.layer.{}.")
LAYER = {  # what follows it, in the same columns
    "attention/query": ("attention.self.query", "attention.query", "attention.q_lin"),
    "attention/key": ("attention.self.key", "attention.key", "attention.k_lin"),
    "attention/value": ("attention.self.value", "attention.value", "attention.v_lin"),
    "attention/out": ("attention.output.dense", "attention.dense", "attention.out_lin"),
    "attention/norm": ("attention.output.LayerNorm", "attention.LayerNorm", "sa_layer_norm"),
    "ffn/up": ("intermediate.dense", "ffn", "ffn.lin1"),
    "ffn/down": ("output.dense", "ffn_output", "ffn.lin2"),
    "ffn/norm": ("output.LayerNorm", "full_layer_layer_norm", "output_layer_norm"),
}
HEAD = {  # a column for each family; never with a prefix
    "mlm_head/dense": ("cls.predictions.transform.dense", "lm_head.dense", "predictions.dense", "vocab_transform"),
    "mlm_head/norm": (
        "cls.predictions.transform.LayerNorm",
        "lm_head.layer_norm",
        "predictions.LayerNorm",
        "vocab_layer_norm",
    ),
    "mlm_head/bias": ("cls.predictions.bias", "lm_head.bias", "predictions.bias", "vocab_projector.bias"),
    "pair_head/dense": ("cls.seq_relationship", "", "sop_classifier.classifier", ""),
}
DECODERS = ("cls.predictions.decoder", "lm_head.decoder", "predictions.decoder", "vocab_projector")
"""Its weight is the word table, and its bias that of the MLM head: second names of these tensors."""
CLASSIFIER = {
    "bert": ("classifier",),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "albert": ("classifier",),
    "distilbert": ("pre_classifier", "classifier"),
}
"""The layers of the head of *ForSequenceClassification; the last has a row for each label."""
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants that old versions saved."""


def tensor_names(family: str) -> dict[str, str]:
    """Parameter, or module of a kernel (or scale) and a bias -> name without prefix; {} is the layer or group."""
    column = FAMILIES.index(family)
    body = max(0, column - 1)
    found = {path: row[body] for path, row in ENCODER.items()}
    found |= {f"encoder/groups/{path}": LAYERS[body] + row[body] for path, row in LAYER.items()}
    found |= {path: row[column] for path, row in HEAD.items()}
    return {path: name for path, name in found.items() if name}


def plain_name(family: str, name: str) -> str:
    """A stored name as the tables have it: without prefix, of today, and the first of two tied tensors."""
    column = FAMILIES.index(family)
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(f"{family}.")))
    tied = {f"{DECODERS[column]}.weight": ENCODER[WORD][0], f"{DECODERS[column]}.bias": HEAD["mlm_head/bias"][column]}
    return tied.get(name, name)


def has(family: str, field: str) -> bool:
    """Whether the family's config.json has this field of ModelConfig."""
    return FIELDS[field][2][FAMILIES.index(family)] is not None


def first_position(family: str, pad: int) -> int:
    """The row of the position table that is position 0: RoBERTa counts from the row after that of the padding id."""
    return pad + 1 if family == "roberta" else 0


def choose(config: ModelConfig) -> str:
    """The family that holds a model of this structure. Raises ConfigError naming the field that none can hold."""
    if config.positions != "learned":
        raise ConfigError(
            f"model.positions = {config.positions}: BERT, ALBERT, DistilBERT and RoBERTa have learned positions; this"
            " model cannot be exported"
        )
    if config.token_types == 0:
        rules: dict[str, tuple[Any, Any]] = {
            "heads": (config.heads, ("mlm_head",)),
            "embedding_size": (config.embedding_size, config.hidden_size),
            "layer_norm_eps": (config.layer_norm_eps, 1e-12),
        }
        for field, (value, only) in rules.items():
            if value != only:
                raise ConfigError(
                    f"model.{field} = {value}: without token types only DistilBERT's architecture is left, and it has"
                    f" {only}; this model cannot be exported"
                )
        return "distilbert"
    shared = config.share == "all" and config.copies < config.num_layers
    if shared or config.embedding_size < config.hidden_size:
        return "albert"
    # RoBERTa's MLM head computes the erf form whatever hidden_act says.
    fits = config.token_types == 1 and "pair_head" not in config.heads and config.activation == "gelu_erf"
    return "roberta" if fits else "bert"


def to_json(family: str, config: ModelConfig, pad: int) -> dict[str, Any]:
    """config.json of a model that shares nothing, or whole layers in ALBERT; `pad` is the id of the padding."""
    column = FAMILIES.index(family)
    class_name = ("Bert", "Roberta", "Albert", "DistilBert")[column] + "For"
    class_name += "PreTraining" if "pair_head" in config.heads else "MaskedLM"
    values: dict[str, Any] = {"architectures": [class_name], "model_type": family}
    for field, (common, distil, defaults) in FIELDS.items():
        if defaults[column] is not None:
            values[distil if family == "distilbert" else common] = getattr(config, field)
    values["max_position_embeddings"] += first_position(family, pad)
    activation = FIELDS["activation"][family == "distilbert"]
    values[str(activation)] = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    if has(family, "num_groups"):
        values |= {"num_hidden_groups": config.copies, "inner_group_num": 1}
    return values | {"tie_word_embeddings": True, "pad_token_id": pad}


def notes(family: str, config: ModelConfig, held: ModelConfig) -> list[str]:
    """Where the model as the family holds it (`held`) is not the trained one (`config`), or not in training."""
    found = []
    if held.share != config.share:
        part = "whole layers were" if config.share == "all" else f"the {config.share} parts of the layers were"
        found.append(f"In pretraining {part} shared; here each layer has its own copy. The function is the same.")
    if TO_HIDDEN in tensor_names(family):
        if config.embedding_size == config.hidden_size:
            found.append("`embedding_hidden_mapping_in` is the identity: the model has no such product.")
        found.append("In training, transformers' ALBERT drops the input of the pair head, and no feed-forward output.")
    if config.dropout > 0 and config.attention_output_dropout == (family == "distilbert"):
        does = "does not drop" if config.attention_output_dropout else "drops"
        found.append(f"In training, transformers {does} the output of attention, unlike in pretraining.")
    return found


def from_json(path: Path, family: str, values: dict[str, Any]) -> tuple[ModelConfig, int]:
    """The model that config.json (`path`, `values`) describes, with every part its family has, and the row of the
    position table that is position 0. Raises CheckpointError with a line for each wrong field.
    """
    fields, errors = _fields(family, values)
    pad, position_0 = values.get("pad_token_id", PAD[family]), 0
    if type(pad) is int and pad >= 0:
        position_0 = first_position(family, pad)
    elif family == "roberta":
        errors.append(f"pad_token_id = {pad!r:.60}: must be a whole number, at least 0")
    if family == "roberta" and fields.get("activation", "gelu_erf") != "gelu_erf":
        errors.append(f"hidden_act = {values['hidden_act']!r}: only 'gelu', which RoBERTa's head always computes")
    errors += [
        f"{name} = {values[name]!r:.60}: only {only!r} is supported"
        for name, only in REQUIRED.items()
        if name in values and (type(values[name]), values[name]) != (type(only), only)
    ]
    if not errors:
        fields["max_positions"] -= position_0
        errors = _broken_relations(fields)
    if errors:
        raise CheckpointError("\n".join(f"{path}: {error}" for error in errors))
    groups = fields.pop("num_groups", fields["num_layers"])
    if groups < fields["num_layers"]:
        fields |= {"share": "all", "num_groups": groups}
    if family == "distilbert":
        fields |= {"token_types": 0, "attention_output_dropout": False}
    parts = {path.partition("/")[0] for path in tensor_names(family)}
    fields["heads"] = tuple(head for head in HEADS if head in parts)
    return ModelConfig(**({"embedding_size": fields["hidden_size"]} | fields)), position_0


def _fields(family: str, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    column, fields, errors = FAMILIES.index(family), {}, []
    for field, (common, distil, defaults) in FIELDS.items():
        if defaults[column] is None:
            continue
        name = common
        if family == "distilbert" and not (field in ALSO_COMMON and common in values and distil not in values):
            name = distil
        value = values.get(name, defaults[column])
        if fault := _fault(field, value):
            errors.append(f"{name} = {value!r:.60}: {fault}")
        else:
            fields[field] = ACTIVATIONS[value] if field == "activation" else type(getattr(ModelConfig, field))(value)
    return fields, errors


def _fault(field: str, value: Any) -> str:
    kind = type(getattr(ModelConfig, field))
    if kind is str:
        known = isinstance(value, str) and value in ACTIVATIONS
        return "" if known else f"must be one of {', '.join(ACTIVATIONS)}"
    if kind is int:
        return "" if type(value) is int and 0 < value < 2**31 else "must be a whole number, at least 1"
    most = 1.0 if "dropout" in field else math.inf
    fits = type(value) in (int, float) and 0 <= value < most
    return "" if fits else f"must be a number, at least 0 and below {most}"


def _broken_relations(fields: dict[str, Any]) -> list[str]:
    hidden, layers, heads = fields["hidden_size"], fields["num_layers"], fields["num_heads"]
    embedding, groups = fields.get("embedding_size", hidden), fields.get("num_groups", layers)
    relations = [
        (hidden % heads == 0, f"num_attention_heads = {heads}: must divide hidden_size = {hidden}"),
        (layers <= MAX_LAYERS, f"num_hidden_layers = {layers}: must be at most {MAX_LAYERS}"),
        (layers % groups == 0, f"num_hidden_groups = {groups}: must divide num_hidden_layers = {layers}"),
        (embedding <= hidden, f"embedding_size = {embedding}: must be at most hidden_size = {hidden}"),
        (fields["max_positions"] > 0, "max_position_embeddings: no position is left beside those of padding"),
    ]
    return [message for holds, message in relations if not holds]
