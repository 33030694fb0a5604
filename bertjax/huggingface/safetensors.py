"""JSON and safetensors: files that somebody else made are checked before they are used, and nothing is executed.

The header of a safetensors file is read by itself first, so that names, types and shapes can be refused before any
tensor is loaded, and a file that lies about its sizes costs nothing.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from bertjax import storage
from bertjax.errors import CheckpointError, NumericError

DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16)}
"""What weights may be stored as; all become float32."""
SIZES = {name: dtype.itemsize for name, dtype in DTYPES.items()} | {"F64": 8, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""Bytes of an element. The others may be in a file, but only in tensors that are not used."""
HEADER_LIMIT = 100_000_000  # bytes of a safetensors header, as in the format's own library
JSON_LIMIT = 10_000_000  # bytes of another JSON file
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: `start` is its first byte in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError if there is none."""
    try:
        return parse_object(storage.read(path, JSON_LIMIT))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); name a directory with a model") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a JSON object ({error}); copy it again") from None


def parse_object(text: bytes) -> dict[str, Any]:
    """The object that `text` is; ValueError or RecursionError if it is not one, or says a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a key stands there twice")
        return values

    values = json.loads(text, object_pairs_hook=unique)
    if not isinstance(values, dict):
        raise ValueError("something else")
    return values


def tensors(directory: Path) -> list[Tensor]:
    """What model.safetensors, or the shards that model.safetensors.index.json lists, hold. Reads headers only.

    Raises CheckpointError for a file that is missing, damaged or not safetensors, and for a shard outside `directory`.
    """
    if os.path.lexists(directory / WEIGHTS):
        return _header(directory / WEIGHTS)
    if not os.path.lexists(directory / INDEX):
        pickles = [p.name for p in sorted(directory.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")]
        if pickles:
            raise CheckpointError(
                f"{directory / pickles[0]}: loading this format can run code, so it is not read; convert it to"
                f" {WEIGHTS} where you trust it, with transformers: model.save_pretrained(directory)"
            )
        raise CheckpointError(f"{directory}: holds neither {WEIGHTS} nor {INDEX}; name a directory with a model")
    places = read_json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{directory / INDEX}: has no weight_map; copy it again")
    for file in places.values():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise CheckpointError(f"{directory / INDEX}: {file!r:.80} is not the name of a shard in this directory")
    found = [tensor for file in sorted(set(places.values())) for tensor in _header(directory / file)]
    listed = set(places.items())
    stray = {(tensor.name, tensor.file.name) for tensor in found} ^ listed
    if stray:
        name, file = min(stray)
        fault = "lists it, but it is not there" if (name, file) in listed else "does not list it there"
        raise CheckpointError(f"{directory / file}: {name!r:.80}: {INDEX} {fault}; copy the directory again")
    return found


def load(copies: list[Tensor]) -> np.ndarray:
    """A tensor as float32. It may be stored more than once (tied), but then the same: CheckpointError if not.

    Raises NumericError if it is not finite.
    """
    first, *others = (_load(tensor) for tensor in copies)
    if not np.isfinite(first).all():
        name = f"{copies[0].file}: {copies[0].name}"
        raise NumericError(f"{name} is not finite, so the model is of no use; copy it again, or name another")
    for tensor, other in zip(copies[1:], others, strict=True):
        if not np.array_equal(first.view(np.uint32), other.view(np.uint32)):
            raise CheckpointError(
                f"{tensor.file}: {tensor.name} differs from {copies[0].name}; in this architecture they are one tensor,"
                " so a model with two cannot be read"
            )
    return first


def dump(tensors: dict[str, np.ndarray]) -> bytes:
    """The content of a safetensors file of these tensors, which transformers takes for one that PyTorch saved."""
    return safetensors.numpy.save(tensors, {"format": "pt"})


def _load(tensor: Tensor) -> np.ndarray:
    dtype, count = DTYPES[tensor.dtype], math.prod(tensor.shape)
    try:
        with tensor.file.open("rb") as file:  # whose header was read, and no pipe
            file.seek(tensor.start)
            data = file.read(count * dtype.itemsize)
        return np.frombuffer(data, dtype, count).reshape(tensor.shape).astype(np.float32)
    except (OSError, ValueError) as error:  # it was longer when its header was read
        raise CheckpointError(f"{tensor.file}: {tensor.name} cannot be read ({error}); copy the file again") from None


def _header(path: Path) -> list[Tensor]:
    """The tensors of a file, which must fill it without gap or overlap, as the format asks."""
    try:
        with storage.opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER_LIMIT, size - 8):
                raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
            header = parse_object(file.read(length))
        header.pop("__metadata__", None)
        found, end = [], 8 + length
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)) or len(shape) > 8:
                raise ValueError(f"{name!r:.80} has an impossible shape or place")
            if dtype not in SIZES:
                raise ValueError(f"{name!r:.80} is of the unknown type {dtype!r:.20}")
            if 8 + length + start != end or stop - start != math.prod(shape) * SIZES[dtype]:
                raise ValueError(f"{name!r:.80} does not stand where its neighbours and its shape put it")
            found.append(Tensor(name, path, dtype, tuple(shape), end))
            end = 8 + length + stop
        if end != size:
            raise ValueError(f"{size:,} bytes where its header asks for {end:,}")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the directory again") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error}); copy it again") from None
    return found
