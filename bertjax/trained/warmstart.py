"""The parameters of a new run from a trained model of another length, vocabulary, depth or sharing (`run.init_from`).

What the model's shapes leave open is decided so that the function stays the same where it can:

- layers    `run.init_layers` says which layers of the model become those of the run. Layers that share weights in the
            run must come from layers that share them too; weights that were shared are copied for each layer.
- words     a row of the word table, and of the MLM head's bias, goes to the piece that is spelled alike, also from
            WordPiece to SentencePiece ("##ing" and "ing"); special pieces by their role. Other pieces begin fresh.
- positions cut, or repeated from the first on where the run has more (as Longformer does, arXiv 2004.05150).
- types     where the run has no token types, type 0 is added to the positions: every token had one. Where the model
            had none, they begin at zero.
- heads     copied where both have one, else fresh.

Shape letters: C copies of a part of a layer, M positions, T token types, V pieces; a trailing dot is the rest.
"""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config.schema import Config, ModelConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import ConfigError
from bertjax.model.network import PARTS, SHARED
from bertjax.trained.load import HEADS, Pretrained

_SAME = ("hidden_size", "embedding_size", "num_heads", "ffn_size", "activation", "layer_norm_eps")
_WORD, _POSITION, _TYPE = (f"encoder/embeddings/{name}" for name in ("word", "position", "token_type"))
_LAYERS = "encoder/groups/"


def check(source: Pretrained, config: Config, tokens: Tokenizer) -> None:
    """Raise ConfigError with a line for everything that keeps a run from starting with this model."""
    ours, theirs, name = config.model, source.model, f"run.init_from = {config.run.init_from!r}"
    errors = [
        f"model.{field} = {getattr(ours, field)!r}: {name} has {getattr(theirs, field)!r}; set it to that"
        for field in _SAME
        if getattr(ours, field) != getattr(theirs, field)
    ]
    if source.tokenizer is None:
        errors.append(f"{name}: has no tokenizer that bertjax reads, so its words cannot be found; add its vocab.txt")
    try:
        layers = layer_map(config.run.init_layers, ours.num_layers, theirs.num_layers)
    except ConfigError as error:
        raise ConfigError("\n".join([*errors, str(error)])) from None
    for part in PARTS:
        copies = [layer * _copies(theirs, part) // theirs.num_layers for layer in layers]
        each = ours.num_layers // _copies(ours, part)
        if any(len(set(copies[first : first + each])) > 1 for first in range(0, ours.num_layers, each)):
            errors.append(
                f"model.share = {ours.share!r}: {name} has different {part} weights in layers that would share them;"
                f" set it to {theirs.share!r}"
            )
    if errors:
        raise ConfigError("\n".join(errors))


def layer_map(rule: str, count: int, available: int) -> list[int]:
    """Which of `available` layers, from 0, become the `count` layers of a run.

    `rule` is `run.init_layers`: spread (evenly, the first and the last among them: of 12 layers 0, 2, 4, 7, 9, 11,
    DistilBERT's choice), first, second (every second), or the layers themselves, as "0,2,4". Raises ConfigError.
    """
    if count > available:
        raise ConfigError(f"model.num_layers = {count}: run.init_from has {available}; set it to {available} or fewer")
    rules = {
        "spread": np.linspace(0, available - 1, count).round().astype(int).tolist(),
        "first": list(range(count)),
        "second": list(range(0, 2 * count, 2)),
    }
    layers = rules[rule] if rule in rules else [int(layer) for layer in rule.split(",")]
    if len(layers) != count or max(layers) >= available:
        raise ConfigError(
            f"run.init_layers = {rule!r}: must give model.num_layers = {count} layers from 0 to {available - 1}"
        )
    return layers


def adapt(source: Pretrained, config: Config, tokens: Tokenizer, fresh: Any) -> tuple[Any, str]:
    """The model's parameters in the shapes of `fresh`, a new model's, as NumPy arrays; and a line that tells what of
    them is from where. `check` must have passed.
    """
    ours, theirs = config.model, source.model
    layers = layer_map(config.run.init_layers, ours.num_layers, theirs.num_layers)
    old = {path.replace("groups/layers/", "groups/"): x for path, x in flatten_dict(source.params, sep="/").items()}
    new = {path: np.array(x) for path, x in flatten_dict(fresh, sep="/").items()}
    to_v, from_v = _same_pieces(source.tokenizer, tokens, min(ours.vocab_size, theirs.vocab_size))
    absent = {head for head in HEADS if head not in source.heads}
    for path, x in new.items():
        part = path.split("/")[0]
        if part in absent:
            continue
        if path in (_WORD, "mlm_head/bias"):
            x[to_v] = old[path][from_v]
        elif path == _POSITION:
            new[path] = _positions(ours, theirs, old)
        elif path == _TYPE:
            types_T = np.arange(ours.token_types)
            new[path] = old[_TYPE][np.where(types_T < theirs.token_types, types_T, 0)] if _TYPE in old else 0 * x
        elif path.startswith(_LAYERS):
            new[path] = _layers(path, x, old, layers, ours, theirs)
        else:
            new[path] = old[path]
    begun = [head for head in sorted(absent) if any(path.startswith(head) for path in new)]
    told = f"layers {', '.join(map(str, layers))} of {theirs.num_layers}, {len(to_v):,} of {tokens.vocab_size:,} pieces"
    return unflatten_dict(new, sep="/"), told + (f"; new: {', '.join(begun)}" if begun else "")


def _copies(model: ModelConfig, part: str) -> int:
    return model.copies if part in SHARED[model.share] else model.num_layers


def _layers(
    path: str, x: np.ndarray, old: dict[str, np.ndarray], layers: list[int], ours: ModelConfig, theirs: ModelConfig
) -> np.ndarray:
    """The stack of a parameter of the layers, [C, .], or [groups, layers of a group, .] if it is not shared."""
    path = path.replace("groups/layers/", "groups/")
    part = path.removeprefix(_LAYERS).split("/")[0]
    copies, mine = _copies(theirs, part), _copies(ours, part)
    firsts = [layers[copy * ours.num_layers // mine] for copy in range(mine)]
    rest = x.shape[1 if part in SHARED[ours.share] else 2 :]
    old_C = old[path].reshape(copies, *rest)
    return old_C[[layer * copies // theirs.num_layers for layer in firsts]].reshape(x.shape)


def _positions(ours: ModelConfig, theirs: ModelConfig, old: dict[str, np.ndarray]) -> np.ndarray:
    rows_M = np.arange(ours.max_positions) % theirs.max_positions
    if ours.token_types == 0 and _TYPE in old:
        return old[_POSITION][rows_M] + old[_TYPE][0]
    return old[_POSITION][rows_M]


def _same_pieces(old: Tokenizer | None, new: Tokenizer, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the pieces of `new` that `old` has too, and their ids there."""
    assert old is not None  # `check` saw to it
    if old.digest == new.digest:  # also rows beyond the vocabulary
        return np.arange(rows), np.arange(rows)
    ids = {spelling: index for index, spelling in enumerate(old.spellings)}
    pairs = {index: ids[spelling] for index, spelling in enumerate(new.spellings) if spelling in ids}
    pairs |= {getattr(new.special, role): getattr(old.special, role) for role in ("pad", "unk", "cls", "sep", "mask")}
    return np.array(list(pairs)), np.array(list(pairs.values()))
