"""Weights: the parameters of a model here and the tensors of transformers there.

A matrix is [out, in] there and kernel[in..., out...] here; the layers are tensors of their own there and stacked on the
first axis here. Every name and shape must be what config.json asks for before any tensor is loaded.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from bertjax.config.schema import ModelConfig
from bertjax.errors import CheckpointError
from bertjax.huggingface import names
from bertjax.huggingface.names import POSITION, TO_HIDDEN
from bertjax.huggingface.safetensors import DTYPES, Tensor, load, tensors
from bertjax.model.network import abstract_params

Flat = dict[str, np.ndarray]
"""Parameters by path ("encoder/groups/ffn/up/kernel"), or tensors by name."""
Stored = dict[str, list[Tensor]]
"""What a directory holds by plain name (`names.plain_name`); more than one where tensors are tied."""


@dataclass(frozen=True)
class Slot:
    """The tensors that a parameter is stored as: their names without prefix, and the shape of each."""

    names: list[str]
    shape: tuple[int, ...]


def read_weights(
    directory: Path, family: str, config: ModelConfig, first_position: int
) -> tuple[ModelConfig, dict[str, Any], tuple[str, ...], Flat | None]:
    """The weights in `directory`, whose config.json says `config` with all the heads that its family has.

    Returns the config with the heads that are there, and an MLM head in any case; its parameters, float32 NumPy arrays
    in the tree of `bertjax.model.network.Network`; the heads of the family that are not there, of which the MLM head is
    initialised; and the head of *ForSequenceClassification, if there is one, as transformers has it.

    Raises CheckpointError with everything that is wrong with the names and shapes, and for weights of a function that
    the model does not compute.
    """
    stored: Stored = {}
    for tensor in tensors(directory):
        stored.setdefault(names.plain_name(family, tensor.name), []).append(tensor)

    layout = _layout(family, config, first_position)
    present = {_part(path) for path, slot in layout.items() if slot.names[0] in stored} | {"encoder"}
    if "pair_head" in present:
        present.add("pooler")  # which it needs: if it is not there, it is missed
    layout = {path: slot for path, slot in layout.items() if _part(path) in present}
    classifier = _classifier(family, config, stored)
    _check_names(directory, stored, [*layout.values(), *classifier])

    fresh = tuple(head for head in config.heads if head not in present)
    config = dataclasses.replace(config, heads=tuple(h for h in config.heads if h in present or h == "mlm_head"))
    flat = {path: np.stack([load(stored[name]) for name in slot.names]) for path, slot in layout.items()}
    shapes = _shapes(config)
    if f"{TO_HIDDEN}/kernel" not in shapes:
        _drop_identity(directory, flat)
    flat = {path: _ours(path, x, first_position, shapes[path]) for path, x in flat.items()}
    if "mlm_head" in fresh:
        flat |= _fresh_mlm_head(config, shapes)
    heads = {slot.names[0]: load(stored[slot.names[0]]) for slot in classifier}
    return config, unflatten_dict(flat, sep="/"), fresh, heads or None


def to_family(family: str, config: ModelConfig, params: Any) -> tuple[ModelConfig, Flat]:
    """The same function as this family has it: no sharing but ALBERT's, and the identity for its product of E = H.

    Raises CheckpointError for parameters of another model than `config`.
    """
    flat = {path: np.asarray(x, np.float32) for path, x in flatten_dict(params, sep="/").items()}
    shapes = _shapes(config)
    if wrong := sorted(p for p in shapes.keys() | flat.keys() if p not in flat or flat[p].shape != shapes.get(p)):
        raise CheckpointError(f"params: {', '.join(wrong[:10])}: missing, unknown or of another shape for this model")
    if TO_HIDDEN in names.tensor_names(family) and config.embedding_size == config.hidden_size:
        flat |= {f"{TO_HIDDEN}/kernel": np.eye(config.hidden_size, dtype=np.float32)}
        flat |= {f"{TO_HIDDEN}/bias": np.zeros(config.hidden_size, np.float32)}
    if config.share == "none" or (config.share == "all" and names.has(family, "num_groups")):
        return config, flat
    repeats, whole = config.num_layers // config.copies, {}
    for path, x in flat.items():
        if path.startswith("encoder/groups/layers/"):
            whole[path.replace("/layers/", "/")] = x.reshape(-1, *x.shape[2:])
        else:
            whole[path] = np.repeat(x, repeats, axis=0) if path.startswith("encoder/groups/") else x
    return dataclasses.replace(config, share="none", num_groups=1), whole


def to_tensors(family: str, config: ModelConfig, flat: Flat, first_position: int) -> Flat:
    """What `to_family` gives as tensors by their full names."""
    found: Flat = {}
    for path, slot in _layout(family, config, first_position).items():
        x = flat[path]
        if path == POSITION:
            x = np.pad(x, ((first_position, 0), (0, 0)))  # rows of padding, which attention never sees
        if path.endswith("/kernel"):
            x = x.reshape(len(slot.names), *slot.shape[::-1]).swapaxes(1, 2)
        x = x.reshape(len(slot.names), *slot.shape)
        prefix = "" if _part(path) in ("mlm_head", "pair_head") else f"{family}."
        found |= {prefix + name: np.ascontiguousarray(one) for name, one in zip(slot.names, x, strict=True)}
    return found


def _part(path: str) -> str:
    return path.partition("/")[0]


@functools.cache
def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model; nothing is allocated."""
    return {path: x.shape for path, x in flatten_dict(abstract_params(config), sep="/").items()}


def _layout(family: str, config: ModelConfig, first_position: int) -> dict[str, Slot]:
    """Where each parameter of a model that shares nothing, or whole layers, is stored."""
    found, shapes, layout = names.tensor_names(family), dict(_shapes(config)), {}
    if TO_HIDDEN in found:  # also where the two sizes are equal
        shapes[f"{TO_HIDDEN}/kernel"] = (config.embedding_size, config.hidden_size)
        shapes[f"{TO_HIDDEN}/bias"] = (config.hidden_size,)
    for path, shape in shapes.items():
        module, _, leaf = path.rpartition("/")
        stacked = path.startswith("encoder/groups/")
        there = shape[stacked:]
        if leaf == "kernel":
            out = math.prod(shapes[f"{module}/bias"][stacked:])
            there = (out, math.prod(there) // out)
        elif leaf == "bias":
            there = (math.prod(there),)
        elif path == POSITION:
            there = (there[0] + first_position, there[1])
        name = found.get(path) or f"{found[module]}.{'bias' if leaf == 'bias' else 'weight'}"
        layout[path] = Slot([name.format(i) for i in range(shape[0] if stacked else 1)], there)
    return layout


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
    flat["mlm_head/norm/scale"] += 1
    kernel = "mlm_head/dense/kernel"
    return flat | {kernel: np.array(draw(jax.random.key(0), flat[kernel].shape, np.float32))}


def _classifier(family: str, config: ModelConfig, stored: Stored) -> list[Slot]:
    """The tensors of the head for classifying sequences, if there is one."""
    H, layers = config.hidden_size, names.CLASSIFIER[family]
    bias = stored.get(f"{layers[-1]}.bias")
    labels = bias[0].shape[0] if bias and bias[0].shape else 1
    slots = []
    for layer in layers:
        rows = labels if layer == layers[-1] else H
        slots += [Slot([f"{layer}.weight"], (rows, H)), Slot([f"{layer}.bias"], (rows,))]
    return slots if any(slot.names[0] in stored for slot in slots) else []


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
