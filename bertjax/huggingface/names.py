"""The architectures of Hugging Face transformers as values: how each names the parameters of a model."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bertjax.config.schema import ModelConfig
from bertjax.model.heads import HEADS

LABEL_HEADS = {"classifier", "tagger", "span_head"}
WORD, POSITION, TO_HIDDEN = (f"encoder/embeddings/{name}" for name in ("word", "position", "to_hidden"))


@dataclass(frozen=True)
class Family:
    """Names of tensors, without the prefix that may stand before all but those of the heads.

    A path is a parameter, or the module of a kernel (or scale) and a bias: "weight" and "bias" there.
    """

    prefix: str
    layer: str  # before those of layer {}
    layers: dict[str, str]  # path in a layer -> what follows
    others: dict[str, str]  # path -> name
    decoder: str  # its weight is the word table, and its bias that of the MLM head: second names of these tensors
    labelled: dict[str, dict[str, str]]  # class, by its ending -> path -> full name; others as above
    fused: tuple[tuple[str, ...], ...] = ()  # kernels that are one tensor, its rows those of each in turn


CLASSIFIES, CHOOSES, TAGS, ANSWERS = (
    f"For{what}" for what in ("SequenceClassification", "MultipleChoice", "TokenClassification", "QuestionAnswering")
)
_TOKENS = {TAGS: {"tagger/dense": "classifier"}, ANSWERS: {"span_head/dense": "qa_outputs"}}
_CLASSIFIER = {"classifier/dense": "classifier"}
_LABELLED = {CLASSIFIES: _CLASSIFIER, CHOOSES: _CLASSIFIER} | _TOKENS
_BERT = Family(
    prefix="bert.",
    layer="encoder.layer.{}.",
    layers={
        "attention/query": "attention.self.query",
        "attention/key": "attention.self.key",
        "attention/value": "attention.self.value",
        "attention/out": "attention.output.dense",
        "attention/norm": "attention.output.LayerNorm",
        "ffn/up": "intermediate.dense",
        "ffn/down": "output.dense",
        "ffn/norm": "output.LayerNorm",
    },
    others={
        WORD: "embeddings.word_embeddings.weight",
        POSITION: "embeddings.position_embeddings.weight",
        "encoder/embeddings/token_type": "embeddings.token_type_embeddings.weight",
        "encoder/embeddings/norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
        "mlm_head/dense": "cls.predictions.transform.dense",
        "mlm_head/norm": "cls.predictions.transform.LayerNorm",
        "mlm_head/bias": "cls.predictions.bias",
        "pair_head/dense": "cls.seq_relationship",
    },
    decoder="cls.predictions.decoder",
    labelled=_LABELLED,
)
_ROBERTA = Family(
    prefix="roberta.",
    layer=_BERT.layer,
    layers=_BERT.layers,
    others={path: name for path, name in _BERT.others.items() if path.startswith(("encoder", "pooler"))}
    | {"mlm_head/dense": "lm_head.dense", "mlm_head/norm": "lm_head.layer_norm", "mlm_head/bias": "lm_head.bias"},
    decoder="lm_head.decoder",
    labelled=_LABELLED | {CLASSIFIES: {"pooler": "classifier.dense", "classifier/dense": "classifier.out_proj"}},
)
_ALBERT = Family(
    prefix="albert.",
    layer="encoder.albert_layer_groups.{}.albert_layers.0.",
    layers={
        "attention/query": "attention.query",
        "attention/key": "attention.key",
        "attention/value": "attention.value",
        "attention/out": "attention.dense",
        "attention/norm": "attention.LayerNorm",
        "ffn/up": "ffn",
        "ffn/down": "ffn_output",
        "ffn/norm": "full_layer_layer_norm",
    },
    others={path: name for path, name in _BERT.others.items() if path.startswith("encoder")}
    | {
        TO_HIDDEN: "encoder.embedding_hidden_mapping_in",
        "pooler": "pooler",
        "mlm_head/dense": "predictions.dense",
        "mlm_head/norm": "predictions.LayerNorm",
        "mlm_head/bias": "predictions.bias",
        "pair_head/dense": "sop_classifier.classifier",
    },
    decoder="predictions.decoder",
    labelled=_LABELLED,
)
_DISTILBERT = Family(
    prefix="distilbert.",
    layer="transformer.layer.{}.",
    layers={
        "attention/query": "attention.q_lin",
        "attention/key": "attention.k_lin",
        "attention/value": "attention.v_lin",
        "attention/out": "attention.out_lin",
        "attention/norm": "sa_layer_norm",
        "ffn/up": "ffn.lin1",
        "ffn/down": "ffn.lin2",
        "ffn/norm": "output_layer_norm",
    },
    others={
        WORD: "embeddings.word_embeddings.weight",
        POSITION: "embeddings.position_embeddings.weight",
        "encoder/embeddings/norm": "embeddings.LayerNorm",
        "mlm_head/dense": "vocab_transform",
        "mlm_head/norm": "vocab_layer_norm",
        "mlm_head/bias": "vocab_projector.bias",
    },
    decoder="vocab_projector",
    labelled=_TOKENS | dict.fromkeys((CLASSIFIES, CHOOSES), {"pooler": "pre_classifier"} | _CLASSIFIER),
)
_MODERNBERT = Family(
    prefix="model.",
    layer="layers.{}.",
    layers={
        "attention/norm": "attn_norm",
        "attention/query": "attn.Wqkv",
        "attention/key": "attn.Wqkv",
        "attention/value": "attn.Wqkv",
        "attention/out": "attn.Wo",
        "ffn/norm": "mlp_norm",
        "ffn/gate": "mlp.Wi",
        "ffn/up": "mlp.Wi",
        "ffn/down": "mlp.Wo",
    },
    others={
        WORD: "embeddings.tok_embeddings.weight",
        "encoder/embeddings/norm": "embeddings.norm",
        "encoder/norm": "final_norm",
        "mlm_head/dense": "head.dense",
        "mlm_head/norm": "head.norm",
        "mlm_head/bias": "decoder.bias",
    },
    decoder="decoder",
    # The first layers have the names of those of the MLM head, which has another last one.
    labelled={
        ending: {f"{first}": "head.dense", f"{first}/norm": "head.norm", f"{head}/dense": "classifier"}
        for ending, first, head in (
            (CLASSIFIES, "pooler", "classifier"),
            (CHOOSES, "pooler", "classifier"),
            (TAGS, "tagger/transform", "tagger"),
            (ANSWERS, "span_head/transform", "span_head"),
        )
    },
    fused=(("attention/query", "attention/key", "attention/value"), ("ffn/gate", "ffn/up")),
)
_NOMIC_BERT = Family(
    # As files have them, which transformers renames when it loads or saves.
    prefix="nomic_bert.",
    layer="encoder.layers.{}.",
    layers={
        "attention/query": "attn.Wqkv",
        "attention/key": "attn.Wqkv",
        "attention/value": "attn.Wqkv",
        "attention/out": "attn.out_proj",
        "attention/norm": "norm1",
        "ffn/gate": "mlp.fc12",
        "ffn/up": "mlp.fc11",
        "ffn/down": "mlp.fc2",
        "ffn/norm": "norm2",
    },
    others={
        WORD: "embeddings.word_embeddings.weight",
        "encoder/embeddings/token_type": "embeddings.token_type_embeddings.weight",
        "encoder/embeddings/norm": "emb_ln",
        "pooler": "pooler.dense",
        "mlm_head/dense": "cls.predictions.transform.dense",
        "mlm_head/norm": "cls.predictions.transform.layer_norm",
        "mlm_head/bias": "cls.predictions.bias",
    },
    decoder="cls.predictions.decoder",
    labelled={CLASSIFIES: _CLASSIFIER, TAGS: _TOKENS[TAGS]},
    fused=(("attention/query", "attention/key", "attention/value"),),
)
FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "albert": _ALBERT,
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    "nomic_bert": _NOMIC_BERT,
}
"""`model_type` -> the family."""

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "albert": "Albert",
    "distilbert": "DistilBert",
    "modernbert": "ModernBert",
    "nomic_bert": "NomicBert",
}
"""What the classes of each family begin with."""

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants that old versions saved."""


def ending_of(config: ModelConfig) -> str:
    """Of the class that a model with these heads is; "" of one without a head for labels."""
    if "classifier" in config.heads:
        return CLASSIFIES if config.labels else CHOOSES
    return {"tagger": TAGS, "span_head": ANSWERS}.get(next((h for h in config.heads if h in LABEL_HEADS), ""), "")


def found_ending(family: str, told: Any, stored: Collection[str]) -> str:
    """Of the class whose head for labels is among the plain names `stored`; "" if none is.

    Several classes may have the same names: `told`, the "architectures" of config.json, then says which it is, and
    without it, whether there is a pooler. Raises ValueError with the possible classes in a family that has none.
    """
    f = FAMILIES[family]
    # The MLM head may have names that are also in such a head.
    mlm = {name for path, name in f.others.items() if path.startswith("mlm_head")}
    possible = [
        ending
        for ending, table in f.labelled.items()
        if any(f"{name}.{leaf}" in stored for name in set(table.values()) - mlm for leaf in ("weight", "bias"))
    ]
    for name in told if isinstance(told, list) else []:
        for ending in possible:
            if isinstance(name, str) and name.endswith(ending):
                return ending
    if TAGS in possible and "pooler" in f.others and f"{f.others['pooler']}.weight" not in stored:
        return TAGS
    alike = [ending for ending in possible if set(f.labelled[ending].values()) == set(f.labelled[TAGS].values())]
    if len(alike) > 1 and "pooler" not in f.others:
        raise ValueError(", ".join(CLASSES[family] + ending for ending in alike))
    return next((ending for ending in (CLASSIFIES, TAGS, ANSWERS, CHOOSES) if ending in possible), "")


def heads_of(family: str, ending: str) -> tuple[str, ...]:
    """The heads of a class for labels; with "", all those for pretraining that the family has."""
    parts = {path.partition("/")[0] for path in tensor_names(family, ending)}
    if ending:
        parts &= {"pooler", "classifier"} if "classifier/dense" in FAMILIES[family].labelled[ending] else LABEL_HEADS
    return tuple(head for head in HEADS if head in parts)


def tensor_names(family: str, ending: str = "") -> dict[str, str]:
    """Parameter, or module of a kernel (or scale) and a bias -> name without prefix; {} is the layer or group.

    Of a class for labels, also those of its pretraining, but for an MLM head that it has in pieces.
    """
    f = FAMILIES[family]
    own = f.labelled.get(ending, {})
    others = f.others
    if set(own.values()) & {name for path, name in others.items() if path.startswith("mlm_head")}:
        others = {path: name for path, name in others.items() if not path.startswith("mlm_head")}
    return others | own | {f"encoder/groups/{path}": f.layer + name for path, name in f.layers.items()}


def prefix(family: str, ending: str, part: str) -> str:
    """What stands before the names of a part of the model, in a file of this class."""
    f = FAMILIES[family]
    of_the_base = part == "encoder" or (part == "pooler" and "pooler" not in f.labelled.get(ending, {}))
    return f.prefix if of_the_base else ""


def plain_name(family: str, name: str) -> str:
    """A stored name as the tables have it: without prefix, of today, and the first of two tied tensors."""
    f = FAMILIES[family]
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(f.prefix)))
    tied = {f"{f.decoder}.weight": f.others[WORD], f"{f.decoder}.bias": f.others["mlm_head/bias"]}
    return tied.get(name, name)


def first_position(family: str, pad: int) -> int:
    """The row of the position table that is position 0: RoBERTa counts from the row after that of the padding id."""
    return pad + 1 if family == "roberta" else 0
