"""The parameters of a new run from a trained model of another length, vocabulary, depth or sharing (`run.init_from`).

What the model's shapes leave open is decided so that the function stays the same where it can:

- layers    `run.init_layers` says which layers of the model become those of the run. Layers that share weights in the
            run must come from layers that share them too; weights that were shared are copied for each layer.
- words     a row of the word table, and of the MLM head's bias, goes to the piece that is spelled alike, also from
            WordPiece to SentencePiece ("##ing" and "ing"); special pieces by their role. Any other piece begins
            as the mean of the pieces into which the model's tokenizer cuts it, or fresh where it knows none of them.
- positions cut, or repeated from the first on where the run has more (as Longformer does, arXiv 2004.05150).
- types     where the run has no token types, type 0 is added to the positions: every token had one. Where the model
            had none, they begin at zero.
- rotary    the bases are those of the run: a larger one is how a model gets used to longer rows.
- heads     copied where both have one, else fresh. The last layer of one for labels is copied where the labels are the
            same, in any order. A pooler, or transform of tokens, that the model has not begins as the dense layer and
            the norm of its MLM head where it is of that form: so ModernBERT's classifiers begin.

Shape letters: C copies of a part of a layer, M positions, T token types, V pieces; a trailing dot is the rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config.schema import Config, ModelConfig
from bertjax.errors import ConfigError
from bertjax.huggingface.structure import label_structure, nearest
from bertjax.model.encoder import PARTS, SHARED
from bertjax.model.heads import HEADS

if TYPE_CHECKING:  # timing a step of random weights takes no tokenizer
    from bertjax.data.tokenizer import Tokenizer
    from bertjax.trained.load import Trained

_SAME = (
    "hidden_size",
    "embedding_size",
    "num_heads",
    "ffn_size",
    "activation",
    "layer_norm_eps",
    "positions",
    "rotary_pairs",
    "window",
    "global_every",
    "norm",
    "norm_place",
    "first_norm",
    "embedding_norm",
    "ffn",
    "biases",
    "mlm_transform",
    "tie_words",
)
_SAME_POOLER = ("pooler_activation", "pooler_norm")
_HEADS = {
    "classify": ("pooler", "classifier"),
    "regress": ("pooler", "classifier"),
    "choice": ("pooler", "classifier"),
    "tag": ("tagger",),
    "span": ("span_head",),
}
"""`task.kind` -> the heads of its model."""
_TRANSFORMS = {
    "mlm_head": ("mlm_head/dense", "mlm_head/norm"),
    "pooler": ("pooler", "pooler/norm"),
    "tagger": ("tagger/transform", "tagger/transform/norm"),
    "span_head": ("span_head/transform", "span_head/transform/norm"),
}
"""Head -> where it has a dense layer from the hidden states to as many numbers, and the norm after that."""
_TOLD = ("rotary_base", "rotary_base_local")  # which longer rows may change, as ModernBERT's second phase does
_WORD, _POSITION, _TYPE = (f"encoder/embeddings/{name}" for name in ("word", "position", "token_type"))
_LAYERS = "encoder/groups/"


def finetuned(source: Trained | None, config: Config) -> ModelConfig:
    """The model of a run that fine-tunes `source` (None: random weights of the structure of `config.model`).

    It has the structure of the source, the heads that `task.kind` needs, and of `config.model` the labels, the rates of
    dropout and a `pooling` that is no default. A pooler or transform of tokens that the source does not have is what
    the family most alike has in transformers. Of a number, the label is the name of its column where none is given.
    """
    asked, kind = config.model, config.task.kind
    structure = asked if source is None else source.config
    labels = {"choice": (), "span": (), "regress": asked.labels or (config.task.label,)}.get(kind, asked.labels)
    model = replace(
        structure,
        heads=_HEADS[kind],
        labels=labels,
        dropout=asked.dropout,
        attention_dropout=asked.attention_dropout,
        classifier_dropout=asked.classifier_dropout,
    )
    if source is None or not source.heads & set(_HEADS[kind]):
        model = replace(model, **label_structure(nearest(model), model))
    return replace(model, pooling="mean") if asked.pooling == "mean" else model


def check(source: Trained, config: Config) -> None:
    """Raise ConfigError with a line for everything that keeps a run from starting with this model."""
    ours, theirs, name = config.model, source.config, f"run.init_from = {config.run.init_from!r}"
    errors = [
        f"model.{field} = {getattr(ours, field)!r}: {name} has {getattr(theirs, field)!r}; set it to that"
        for field in _SAME + _same_of_heads(source.heads & set(ours.heads), theirs)
        if getattr(ours, field) != getattr(theirs, field)
    ]
    if source.tokenizer is None:
        errors.append(f"{name}: has no tokenizer that bertjax reads, so its words cannot be found; add its vocab.txt")
    try:
        layers = layer_map(config.run.init_layers, ours.num_layers, theirs.num_layers)
    except ConfigError as error:
        raise ConfigError("\n".join([*errors, str(error)])) from None
    if not ours.first_norm and (layers[0] != 0 or 0 in layers[1:]):
        layer_0 = "with model.first_norm = False the first layer comes from layer 0, and no other"
        raise ConfigError("\n".join([*errors, f"run.init_layers = {config.run.init_layers}: {layer_0}; say so"]))
    for part in PARTS:
        copies = [_copy_of(theirs, part, layer) for layer in _grouped(layers, ours)]
        each = len(copies) // _copies(ours, part)
        if any(len(set(copies[first : first + each])) > 1 for first in range(0, len(copies), each)):
            errors.append(
                f"model.share = {ours.share!r}: {name} has different {part} weights in layers that would share them;"
                f" set it to {theirs.share!r}"
            )
    if errors:
        raise ConfigError("\n".join(errors))


def layer_map(layers: tuple[int, ...], count: int, available: int) -> list[int]:
    """Which of `available` layers, from 0, become the `count` layers of a run: `layers`, which is `run.init_layers`.

    () = evenly spread, the first and the last among them: of 12 layers 0, 2, 4, 7, 9, 11 become 6, which is
    DistilBERT's choice. Raises ConfigError.
    """
    if count > available:
        raise ConfigError(f"model.num_layers = {count}: run.init_from has {available}; set it to {available} or fewer")
    if not layers:
        return np.linspace(0, available - 1, count).round().astype(int).tolist()
    if len(layers) != count or max(layers) >= available:
        raise ConfigError(
            f"run.init_layers = {layers}: must give model.num_layers = {count} layers from 0 to {available - 1}"
        )
    return list(layers)


def adapt(source: Trained, config: Config, tokenizer: Tokenizer, fresh: Any) -> tuple[Any, str]:
    """The model's parameters in the shapes of `fresh`, a new model's, as NumPy arrays; and a line that tells what of
    them is from where. `check` must have passed.
    """
    ours, theirs = config.model, source.config
    layers = layer_map(config.run.init_layers, ours.num_layers, theirs.num_layers)
    old = {path.replace("groups/layers/", "groups/"): x for path, x in flatten_dict(source.params, sep="/").items()}
    new = {path: np.array(x) for path, x in flatten_dict(fresh, sep="/").items()}
    assert source.tokenizer is not None  # `check` saw to it
    to_v, from_v = same_pieces(source.tokenizer, tokenizer, min(ours.vocab_size, theirs.vocab_size))
    parts = parts_of(source.tokenizer, tokenizer, to_v)
    absent = {head for head in HEADS if head not in source.heads}
    order = _order(ours.labels, theirs.labels)
    for path, x in new.items():
        part = path.split("/")[0]
        if part in absent:
            continue
        if path.startswith(("classifier/dense", "tagger/dense")):
            new[path] = x if order is None else old[path][..., order]
        elif path in (_WORD, "mlm_head/word", "mlm_head/bias"):
            x[to_v] = old[path][from_v]
            for index, part_k in parts.items():
                x[index] = old[path][part_k].mean(axis=0)
        elif path == _POSITION:
            new[path] = _positions(ours, theirs, old)
        elif path == _TYPE:
            types_T = np.arange(ours.token_types)
            new[path] = old[_TYPE][np.where(types_T < theirs.token_types, types_T, 0)] if _TYPE in old else 0 * x
        elif path.startswith(_LAYERS):
            new[path] = _layers(path, x, old, _grouped(layers, ours), ours, theirs)
        else:
            new[path] = old[path]
    begun = [head for head in sorted(absent) if head in ours.heads]
    transforms, taken = _transforms(new, old, begun, source, ours)
    new |= transforms
    told = f"layers {', '.join(map(str, layers))} of {theirs.num_layers}"
    told += f", {len(to_v):,} of {tokenizer.vocab_size:,} pieces"
    for field in _TOLD:
        if getattr(ours, field) != getattr(theirs, field):
            told += f", model.{field} {getattr(ours, field):g} instead of {getattr(theirs, field):g}"
    if ours.pooling != theirs.pooling and "pooler" in ours.heads and "pooler" in source.heads:
        told += f", model.pooling {ours.pooling} instead of {theirs.pooling}"
    told += f", {len(parts):,} more from the mean of their parts" if parts else ""
    told += "".join(f"; {place} from its {head}" for place, head in taken.items())
    begun = [head for head in begun if head not in taken]
    if order is None:
        both = [head for head in ("classifier", "tagger") if head in source.heads and head in ours.heads]
        begun += [f"{head}, as the labels are others" for head in both]
    return unflatten_dict(new, sep="/"), told + (f"; new: {', '.join(begun)}" if begun else "")


def _same_of_heads(both: frozenset[str], theirs: ModelConfig) -> tuple[str, ...]:
    """Fields of heads that a model and a run both have, in which they must be equal."""
    of_tokens = bool(both & {"tagger", "span_head"})
    transformed = "pooler" in both or (of_tokens and theirs.token_transform)
    return ("token_transform",) * of_tokens + _SAME_POOLER * transformed


def _order(ours: tuple[str, ...], theirs: tuple[str, ...]) -> list[int] | None:
    """Which row of a last layer is that of each label; None where the labels are not the same."""
    if sorted(ours) != sorted(theirs):
        return None
    return [theirs.index(label) for label in ours] if ours else [0]


def _transforms(
    new: dict[str, np.ndarray], old: dict[str, np.ndarray], begun: list[str], source: Trained, ours: ModelConfig
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The parameters of new poolers and transforms of tokens that a head of the source has alike; and which has which.

    Alike: a dense layer of this size, the same activation, a norm.
    """
    theirs = source.config
    found: dict[str, np.ndarray] = {}
    taken: dict[str, str] = {}
    for head in begun:
        dense, norm = _TRANSFORMS.get(head, ("", ""))
        if head == "mlm_head" or f"{norm}/scale" not in new:
            continue
        for other, (old_dense, old_norm) in _TRANSFORMS.items():
            activation = theirs.activation if other == "mlm_head" else theirs.pooler_activation
            mine = [path for path in new if path.startswith((f"{dense}/kernel", f"{dense}/bias", f"{norm}/"))]
            froms = {path: path.replace(norm, old_norm).replace(dense, old_dense) for path in mine}
            same = all(path in old and old[path].shape == new[one].shape for one, path in froms.items())
            if other in source.heads and activation == ours.pooler_activation and same:
                found |= {one: old[path] for one, path in froms.items()}
                taken[dense] = other
                break
    return found, taken


def _grouped(layers: list[int], config: ModelConfig) -> list[int]:
    """Those of the groups, counted without the layer that stands before them in both models, if one does."""
    return [layer - config.apart for layer in layers[config.apart :]]


def _copies(config: ModelConfig, part: str) -> int:
    return config.copies if part in SHARED[config.share] else config.num_layers - config.apart


def _copy_of(config: ModelConfig, part: str, layer: int) -> int:
    """Which copy of a part this layer of the groups uses."""
    return layer * _copies(config, part) // (config.num_layers - config.apart)


def _layers(
    path: str, x: np.ndarray, old: dict[str, np.ndarray], layers: list[int], ours: ModelConfig, theirs: ModelConfig
) -> np.ndarray:
    """The stack of a parameter of the layers, [C, .], or [groups, layers of a group, .] if it is not shared."""
    path = path.replace("groups/layers/", "groups/")
    part = path.removeprefix(_LAYERS).split("/")[0]
    copies, mine = _copies(theirs, part), _copies(ours, part)
    firsts = [layers[copy * len(layers) // mine] for copy in range(mine)]
    rest = x.shape[1 if part in SHARED[ours.share] else 2 :]
    old_C = old[path].reshape(copies, *rest)
    return old_C[[_copy_of(theirs, part, layer) for layer in firsts]].reshape(x.shape)


def _positions(ours: ModelConfig, theirs: ModelConfig, old: dict[str, np.ndarray]) -> np.ndarray:
    rows_M = np.arange(ours.max_positions) % theirs.max_positions
    if ours.token_types == 0 and _TYPE in old:
        return old[_POSITION][rows_M] + old[_TYPE][0]
    return old[_POSITION][rows_M]


def same_pieces(old: Tokenizer, new: Tokenizer, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the pieces of `new` that `old` has too, and their ids there; of the same tokenizer, all `rows`."""
    if old.digest == new.digest:  # also rows beyond the vocabulary
        return np.arange(rows), np.arange(rows)
    ids = {spelling: index for index, spelling in enumerate(old.spellings)}
    pairs = {index: ids[spelling] for index, spelling in enumerate(new.spellings) if spelling in ids}
    pairs |= {getattr(new.special, role): getattr(old.special, role) for role in ("pad", "unk", "cls", "sep", "mask")}
    return np.array(list(pairs)), np.array(list(pairs.values()))


def parts_of(old: Tokenizer, new: Tokenizer, known_v: np.ndarray) -> dict[int, np.ndarray]:
    """The ids in `old` of what each piece of `new` is made of, int32 [k]; without those in `known_v`, and without those
    of which `old` knows no part.
    """
    others = sorted(set(range(new.vocab_size)) - set(known_v.tolist()))
    ids_n, lengths = old.encode_batch([new.spellings[index] for index in others])
    parts = zip(others, np.split(ids_n, np.cumsum(lengths)[:-1]), strict=True) if others else ()
    known = {index: part_k[part_k != old.special.unk] for index, part_k in parts}
    return {index: part_k for index, part_k in known.items() if len(part_k)}
