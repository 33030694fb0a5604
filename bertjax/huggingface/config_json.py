"""config.json of transformers: the model that it describes, and the one that describes a model."""

from pathlib import Path
from typing import Any

from bertjax.config.schema import ModelConfig
from bertjax.errors import CheckpointError
from bertjax.huggingface import labels
from bertjax.huggingface.names import CLASSES, ending_of, first_position, heads_of
from bertjax.huggingface.structure import STRUCTURE

_COMMON: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "num_layers": ("num_hidden_layers", 12),
    "hidden_size": ("hidden_size", 768),
    "num_heads": ("num_attention_heads", 12),
    "ffn_size": ("intermediate_size", 3072),
    "max_positions": ("max_position_embeddings", 512),
    "token_types": ("type_vocab_size", 2),
    "activation": ("hidden_act", "gelu"),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "initializer_range": ("initializer_range", 0.02),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
}
FIELDS: dict[str, dict[str, tuple[str, Any]]] = {
    "bert": _COMMON,
    "roberta": _COMMON | {"vocab_size": ("vocab_size", 50265)},
    "albert": _COMMON
    | {
        "vocab_size": ("vocab_size", 30000),
        "hidden_size": ("hidden_size", 4096),
        "num_heads": ("num_attention_heads", 64),
        "ffn_size": ("intermediate_size", 16384),
        "embedding_size": ("embedding_size", 128),
        "num_groups": ("num_hidden_groups", 1),
        "activation": ("hidden_act", "gelu_new"),
        "dropout": ("hidden_dropout_prob", 0.0),
        "attention_dropout": ("attention_probs_dropout_prob", 0.0),
    },
    "distilbert": {
        "vocab_size": ("vocab_size", 30522),
        "num_layers": ("n_layers", 6),
        "hidden_size": ("dim", 768),
        "num_heads": ("n_heads", 12),
        "ffn_size": ("hidden_dim", 3072),
        "max_positions": ("max_position_embeddings", 512),
        "activation": ("activation", "gelu"),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.1),
        "initializer_range": ("initializer_range", 0.02),
    },
    "modernbert": {
        "vocab_size": ("vocab_size", 50368),
        "num_layers": ("num_hidden_layers", 22),
        "hidden_size": ("hidden_size", 768),
        "num_heads": ("num_attention_heads", 12),
        "ffn_size": ("intermediate_size", 1152),
        "max_positions": ("max_position_embeddings", 8192),
        "activation": ("hidden_activation", "gelu"),
        "dropout": ("mlp_dropout", 0.0),
        "attention_dropout": ("attention_dropout", 0.0),
        "initializer_range": ("initializer_range", 0.02),
        "layer_norm_eps": ("norm_eps", 1e-5),
    },
    "nomic_bert": _COMMON
    | {
        "vocab_size": ("vocab_size", 30528),
        "max_positions": ("max_position_embeddings", 2048),
        "activation": ("hidden_act", "silu"),
        "dropout": ("hidden_dropout_prob", 0.0),
        "attention_dropout": ("attention_probs_dropout_prob", 0.0),
    },
}
"""By family: ModelConfig's fields in config.json, and what holds where the file says nothing."""
ALSO_COMMON = ("num_layers", "hidden_size", "num_heads")
"""DistilBERT accepts the other families' names of these too."""

ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""What transformers computes for a name. ALBERT v1 says "gelu", although Google trained it with the tanh form."""
_ALL_REQUIRED = {"is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True}
_CLASSIC_REQUIRED = _ALL_REQUIRED | {"position_embedding_type": "absolute", "inner_group_num": 1}
REQUIRED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "albert", "distilbert"), _CLASSIC_REQUIRED),
    "modernbert": _ALL_REQUIRED
    | dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), False)
    | {"decoder_bias": True},
    "nomic_bert": _ALL_REQUIRED,
}
"""Fields that may say nothing else: it would be a function that `bertjax.model.network` does not compute."""
MAX_LAYERS = 1000
LARGEST = 3.4e38  # what float32 holds
PAD = {"bert": 0, "roberta": 1, "albert": 0, "distilbert": 0, "modernbert": 50283, "nomic_bert": 0}
"""`pad_token_id` of each family where config.json says nothing."""
FULL, SLIDING = "full_attention", "sliding_attention"
_BASES = {FULL: 160_000.0, SLIDING: 10_000.0}  # ModernBERT's; nomic-bert's only one is 1,000


def to_json(family: str, config: ModelConfig, pad: int) -> dict[str, Any]:
    """config.json of a model as its family holds it; `pad` is the id of the padding."""
    ending = ending_of(config) or ("ForPreTraining" if "pair_head" in config.heads else "ForMaskedLM")
    values: dict[str, Any] = {"architectures": [CLASSES[family] + ending], "model_type": family}
    values |= {name: getattr(config, field) for field, (name, _) in FIELDS[family].items()}
    values["max_position_embeddings"] += first_position(family, pad)
    activation = FIELDS[family]["activation"][0]
    values[activation] = next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)
    if family == "albert":
        values |= {"num_hidden_groups": config.copies, "inner_group_num": 1}
    if family == "modernbert":
        every = config.global_every if config.window else 1
        local = config.rotary_base_local or config.rotary_base
        bases = {FULL: config.rotary_base, SLIDING: local if config.window else _BASES[SLIDING]}
        values |= {
            "classifier_activation": values[activation],
            "classifier_pooling": config.pooling,
            "embedding_dropout": config.dropout,
            "local_attention": 2 * config.window if config.window else 128,
            "layer_types": [SLIDING if i % every else FULL for i in range(config.num_layers)],
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
            # As readers before transformers 5 have them.
            "global_attn_every_n_layers": every,
            "global_rope_theta": bases[FULL],
            "local_rope_theta": bases[SLIDING],
        }
    if family == "nomic_bert":
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if ending_of(config):
        values |= labels.to_json(family, config)
    return values | {"tie_word_embeddings": True, "pad_token_id": pad}


def from_json(path: Path, family: str, values: dict[str, Any]) -> tuple[ModelConfig, int]:
    """The model that config.json (`path`, `values`) describes, with every head for pretraining that its family has, and
    the row of the position table that is position 0. Raises CheckpointError with a line for each wrong field.
    """
    fields, errors = _fields(family, values)
    pad, position_0 = values.get("pad_token_id", PAD[family]), 0
    if type(pad) is int and pad >= 0:
        position_0 = first_position(family, pad)
    elif family == "roberta":
        errors.append(f"pad_token_id = {pad!r:.60}: must be a whole number, at least 0")
    if family == "roberta" and fields.get("activation", "gelu_erf") != "gelu_erf":
        errors.append(f"hidden_act = {values['hidden_act']!r}: only 'gelu', which RoBERTa's head always computes")
    required = REQUIRED[family]
    if family == "modernbert":
        required = required | {"classifier_activation": values.get("hidden_activation", "gelu")}
    errors += [
        f"{name} = {values[name]!r:.60}: only {only!r} is supported"
        for name, only in required.items()
        if name in values and (type(values[name]), values[name]) != (type(only), only)
    ]
    if not errors:
        fields["max_positions"] -= position_0
        errors = _broken_relations(fields)
    if not errors and family in ("modernbert", "nomic_bert"):
        turned, errors = (_modernbert_layers if family == "modernbert" else _nomic_bert_layers)(fields, values)
        fields |= turned
    if errors:
        raise CheckpointError("\n".join(f"{path}: {error}" for error in errors))
    groups = fields.pop("num_groups", fields["num_layers"])
    if groups < fields["num_layers"]:
        fields |= {"share": "all", "num_groups": groups}
    fields = {"embedding_size": fields["hidden_size"]} | STRUCTURE[family] | fields | {"heads": heads_of(family, "")}
    return ModelConfig(**fields), position_0


def _modernbert_layers(fields: dict[str, Any], values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Which layers are local, how far they see, the bases of their rotations, and what is pooled."""
    layers, local, errors = fields["num_layers"], values.get("local_attention", 128), []
    every = values.get("global_attn_every_n_layers", 3)
    if type(every) is not int or every < 1:
        errors.append(f"global_attn_every_n_layers = {every!r:.60}: must be a whole number, at least 1")
        every = 3
    kinds = values.get("layer_types") or [SLIDING if i % every else FULL for i in range(layers)]
    periods = [
        n for n in (every, *range(1, layers + 1)) if kinds == [SLIDING if i % n else FULL for i in range(layers)]
    ]
    if not periods:
        errors.append(f"layer_types = {kinds!r:.60}: must be {FULL!r} for each n-th of {layers} layers, the first on")
    if type(local) is not int or local < 2:
        errors.append(f"local_attention = {local!r:.60}: must be a whole number, at least 2")
    pooling = values.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        errors.append(f"classifier_pooling = {pooling!r:.60}: must be one of cls, mean")
    rope = values.get("rope_parameters") or {}
    old = {FULL: values.get("global_rope_theta"), SLIDING: values.get("local_rope_theta")}
    bases = {}
    for kind, base in _BASES.items():
        told = rope.get(kind) or {} if isinstance(rope, dict) else {}
        told = told if isinstance(told, dict) else {"rope_theta": told}
        bases[kind] = told.get("rope_theta", old[kind] or base)
        errors += _rope_errors(kind, told, bases[kind])
    if errors:
        return {}, errors
    if periods[0] == 1:
        return {"pooling": pooling, "window": 0, "rotary_base": float(bases[FULL])}, []
    same = bases[SLIDING] == bases[FULL]
    return {
        "pooling": pooling,
        "window": local // 2,
        "global_every": periods[0],
        "rotary_base": float(bases[FULL]),
        "rotary_base_local": 0.0 if same else float(bases[SLIDING]),
    }, []


def _nomic_bert_layers(fields: dict[str, Any], values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The base of the rotations."""
    told = values.get("rope_parameters") or {}
    told = told if isinstance(told, dict) else {"rope_theta": None}
    base: Any = told.get("rope_theta", 1000.0)
    errors = _rope_errors("nomic_bert", told, base)
    size, whole = values.get("head_dim"), fields["hidden_size"] // fields["num_heads"]
    if size not in (None, whole):
        errors.append(f"head_dim = {size!r:.60}: only {whole}, hidden_size / num_attention_heads, is supported")
    return ({}, errors) if errors else ({"rotary_base": float(base)}, [])


def _rope_errors(name: str, told: dict[str, Any], base: Any) -> list[str]:
    errors = []
    if told.get("rope_type", "default") != "default":
        errors.append(f"rope_parameters, {name}: rope_type = {told['rope_type']!r:.60}: only 'default' is supported")
    if type(base) not in (int, float) or not 1 <= base <= LARGEST:
        errors.append(f"rope_parameters, {name}: rope_theta = {base!r:.60}: must be a number, at least 1")
    return errors


def _fields(family: str, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    fields, errors = {}, []
    for field, (own, default) in FIELDS[family].items():
        name = own
        if family == "distilbert" and field in ALSO_COMMON and own not in values and _COMMON[field][0] in values:
            name = _COMMON[field][0]
        value = values.get(name, default)
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
    most = 1.0 if "dropout" in field else LARGEST
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
