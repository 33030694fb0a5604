"""Weights: the parameters of a model here and the tensors of transformers there.

A matrix is [out, in] there and kernel[in..., out...] here; the layers are tensors of their own there and stacked on the
first axis here. Every name and shape must be what config.json asks for before any tensor is loaded.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config.schema import ModelConfig
from bertjax.errors import CheckpointError
from bertjax.huggingface import names
from bertjax.huggingface.config_json import FIELDS
from bertjax.huggingface.names import POSITION, TO_HIDDEN
from bertjax.huggingface.safetensors import DTYPES, Tensor, load, tensors
from bertjax.model.network import abstract_params

Flat = dict[str, np.ndarray]
"""Parameters by path ("encoder/groups/ffn/up/kernel"), or tensors by name."""
Stored = dict[str, list[Tensor]]
"""What a directory holds by plain name (`names.plain_name`); more than one where tensors are tied."""


Paths = tuple[str, ...]
"""Kernels that are one tensor, or a parameter alone."""


@dataclass(frozen=True)
class Slot:
    """The tensors that parameters are stored as: their names without prefix, and the shape of each."""

    names: list[str]
    shape: tuple[int, ...]


def stored_in(directory: Path, family: str) -> Stored:
    """The tensors in `directory`, of which nothing is loaded yet. Raises CheckpointError for files that are damaged."""
    stored: Stored = {}
    for tensor in tensors(directory):
        stored.setdefault(names.plain_name(family, tensor.name), []).append(tensor)
    return stored


def label_rows(family: str, ending: str, stored: Stored) -> int:
    """How many rows the last layer of the head for labels has; 1 where that is not to be seen."""
    table = names.FAMILIES[family].labelled[ending]
    (last,) = (name for path, name in table.items() if path.endswith("/dense"))
    shapes = [stored[f"{last}.{leaf}"][0].shape for leaf in ("weight", "bias") if f"{last}.{leaf}" in stored]
    return next((shape[0] for shape in shapes if shape and shape[0]), 1)


def read_weights(
    directory: Path, stored: Stored, family: str, config: ModelConfig, first_position: int
) -> tuple[ModelConfig, dict[str, Any], tuple[str, ...]]:
    """The weights `stored` in `directory`, whose config.json says `config` with all the heads that there may be.

    Returns the config with the heads that are there, and an MLM head where none is for labels; its parameters, float32
    NumPy arrays in the tree of `bertjax.model.network.Network`; and the heads for pretraining that the family has and
    the directory has not. The MLM head that comes in any case is then initialised.

    Raises CheckpointError with everything that is wrong with the names and shapes, and for weights of a function that
    the model does not compute.
    """
    ending = names.ending_of(config)
    layout = _layout(family, config, first_position)
    present = {_part(paths[0]) for paths, slot in layout.items() if slot.names[0] in stored} | {"encoder"}
    if "pair_head" in present:
        present.add("pooler")  # which it needs: if it is not there, it is missed
    if ending:
        present |= set(names.heads_of(family, ending))
    layout = {paths: slot for paths, slot in layout.items() if _part(paths[0]) in present}
    _check_names(directory, stored, list(layout.values()))

    fresh = tuple(head for head in names.heads_of(family, "") if head not in present)
    kept = present if ending else present | {"mlm_head"}
    config = dataclasses.replace(config, heads=tuple(head for head in config.heads if head in kept))
    flat: Flat = {}
    for paths, slot in layout.items():
        whole = np.stack([load(stored[name]) for name in slot.names])
        flat |= dict(zip(paths, np.split(whole, len(paths), axis=1) if len(paths) > 1 else [whole], strict=True))
    shapes = _shapes(config)
    if f"{TO_HIDDEN}/kernel" not in shapes:
        _drop_identity(directory, flat)
    flat = {path: _ours(path, x, first_position, shapes[path]) for path, x in flat.items()}
    if "mlm_head" in fresh and "mlm_head" in kept:
        flat |= _fresh_mlm_head(config, shapes)
    return config, unflatten_dict(flat, sep="/"), fresh


def to_family(family: str, config: ModelConfig, params: Any) -> tuple[ModelConfig, Flat]:
    """The same function as this family has it: no sharing but ALBERT's, the identity for its product of E = H, and no
    head that it has not.

    Raises CheckpointError for parameters of another model than `config`.
    """
    flat = {path: np.asarray(x, np.float32) for path, x in flatten_dict(params, sep="/").items()}
    shapes = _shapes(config)
    if wrong := sorted(p for p in shapes.keys() | flat.keys() if p not in flat or flat[p].shape != shapes.get(p)):
        raise CheckpointError(f"params: {', '.join(wrong[:10])}: missing, unknown or of another shape for this model")
    if TO_HIDDEN in names.FAMILIES[family].others and config.embedding_size == config.hidden_size:
        flat |= {f"{TO_HIDDEN}/kernel": np.eye(config.hidden_size, dtype=np.float32)}
        flat |= {f"{TO_HIDDEN}/bias": np.zeros(config.hidden_size, np.float32)}
    parts = {"encoder", *names.heads_of(family, names.ending_of(config))}
    flat = {path: x for path, x in flat.items() if _part(path) in parts}
    config = dataclasses.replace(config, heads=tuple(head for head in config.heads if head in parts))
    if config.share == "none" or (config.share == "all" and "num_groups" in FIELDS[family]):
        return config, flat
    repeats, whole = config.repeats, {}
    for path, x in flat.items():
        if path.startswith("encoder/groups/layers/"):
            whole[path.replace("/layers/", "/")] = x.reshape(-1, *x.shape[2:])
        else:
            whole[path] = np.repeat(x, repeats, axis=0) if path.startswith("encoder/groups/") else x
    return dataclasses.replace(config, share="none", num_groups=1), whole


def to_tensors(family: str, config: ModelConfig, flat: Flat, first_position: int) -> Flat:
    """What `to_family` gives as tensors by their full names."""
    found: Flat = {}
    ending = names.ending_of(config)
    for paths, slot in _layout(family, config, first_position).items():
        count, (rows, *rest) = len(slot.names), slot.shape
        each = []
        for path in paths:
            x = flat[path]
            if path == POSITION:
                x = np.pad(x, ((first_position, 0), (0, 0)))  # rows of padding, which attention never sees
            if path.endswith("/kernel"):
                x = x.reshape(count, *rest, rows // len(paths)).swapaxes(1, 2)
            each.append(x.reshape(count, rows // len(paths), *rest))
        prefix = names.prefix(family, ending, _part(paths[0]))
        whole = np.concatenate(each, axis=1)
        found |= {prefix + name: np.ascontiguousarray(one) for name, one in zip(slot.names, whole, strict=True)}
    return found


def _part(path: str) -> str:
    return path.partition("/")[0]


@functools.cache
def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model; nothing is allocated."""
    return {path: x.shape for path, x in flatten_dict(abstract_params(config), sep="/").items()}


def _names(layout: dict[Paths, Slot], part: str) -> list[str]:
    return [name for paths, slot in layout.items() if _part(paths[0]) == part for name in slot.names]


def _layout(family: str, config: ModelConfig, first_position: int) -> dict[Paths, Slot]:
    """Where the parameters of a model that shares nothing, or whole layers, are stored."""
    found, shapes = names.tensor_names(family, names.ending_of(config)), dict(_shapes(config))
    layout: dict[Paths, Slot] = {}
    if TO_HIDDEN in found:  # also where the two sizes are equal
        shapes[f"{TO_HIDDEN}/kernel"] = (config.embedding_size, config.hidden_size)
        shapes[f"{TO_HIDDEN}/bias"] = (config.hidden_size,)
    for path, shape in shapes.items():
        module, _, leaf = path.rpartition("/")
        stacked = path.startswith("encoder/groups/")
        there = shape[stacked:]
        if leaf == "kernel":
            there = there[::-1]
        elif path == POSITION:
            there = (there[0] + first_position, there[1])
        # The layer before the groups has the names of one in them.
        path_there, module_there = (x.replace("encoder/first/", "encoder/groups/") for x in (path, module))
        name = found.get(path_there) or f"{found[module_there]}.{'bias' if leaf == 'bias' else 'weight'}"
        layers = range(config.apart, config.apart + shape[0]) if stacked else range(1)
        layout[(path,)] = Slot([name.format(i) for i in layers], there)
    for paths in _fused(family, shapes):
        slots = [layout.pop((path,)) for path in paths]
        rows = sum(slot.shape[0] for slot in slots)
        layout[paths] = Slot(slots[0].names, (rows, *slots[0].shape[1:]))
    return layout


def _fused(family: str, shapes: dict[str, tuple[int, ...]]) -> list[Paths]:
    """The kernels that are one tensor, of the layers in groups and of the one before them."""
    stems = ("encoder/first/", "encoder/groups/")
    found = [tuple(f"{stem}{p}/kernel" for p in paths) for paths in names.FAMILIES[family].fused for stem in stems]
    return [paths for paths in found if paths[0] in shapes]


def _ours(path: str, x: np.ndarray, first_position: int, shape: tuple[int, ...]) -> np.ndarray:
    """Stacked tensors, [copies, ...], as the parameter of this shape."""
    if path == POSITION:
        x = x[:, first_position:]
    if path.endswith("/kernel"):
        x = x.swapaxes(1, 2)
    return np.ascontiguousarray(x.reshape(shape))


def _drop_identity(directory: Path, flat: Flat) -> None:
    """ALBERT has this product also where the two sizes are equal; this model does not, so it must do nothing."""
    kernel, bias = (flat.pop(f"{TO_HIDDEN}/{leaf}", None) for leaf in ("kernel", "bias"))
    if kernel is not None and bias is not None and (bias.any() or not np.array_equal(kernel[0], np.eye(bias.size))):
        raise CheckpointError(
            f"{directory}: encoder.embedding_hidden_mapping_in is not the identity: a product between embeddings and"
            " layers of one size has no place in bertjax.model.network, so this model cannot be read"
        )


def _fresh_mlm_head(config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> Flat:
    """As a new model has it; always the same."""
    draw = jax.nn.initializers.truncated_normal(config.initializer_range)
    flat = {path: np.zeros(shape, np.float32) for path, shape in shapes.items() if _part(path) == "mlm_head"}
    flat["mlm_head/norm/scale"] += 1.0
    kernel = "mlm_head/dense/kernel"
    return flat | {kernel: np.array(draw(jax.random.key(0), flat[kernel].shape, np.float32))}


def _check_names(directory: Path, stored: Stored, slots: list[Slot]) -> None:
    """Refuse, in one error, every tensor that is missing, unknown or of another shape than its slot."""
    shapes = {name: slot.shape for slot in slots for name in slot.names}
    problems = [f"{name} is missing" for name in shapes if name not in stored]
    for name, copies in stored.items():
        for tensor in copies if name not in names.BUFFERS else []:
            if name not in shapes:
                problems.append(f"{tensor.name!r:.80} is unknown")
            elif tensor.shape != shapes[name] or tensor.dtype not in DTYPES:
                wanted = f"{list(shapes[name])} of {', '.join(DTYPES)}"
                problems.append(f"{tensor.name} is {list(tensor.shape)} of {tensor.dtype}, not {wanted}")
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{directory}: the weights are not those of config.json: {'; '.join(problems[:10])}{more};"
            " take both from one source"
        )
