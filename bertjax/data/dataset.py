"""The prepared data set on disk: its format, and its opening without TensorFlow.

One record is one document: its tokens and the lengths of its sentences. Beside the shards lie TFDS's own metadata, so
that `tfds.builder_from_directory` opens the directory too, `index.npz` with all sentence lengths, so that examples can
be planned without reading the shards, and `bertjax.json` with what the data set was made from.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from bertjax.config import DataConfig
from bertjax.errors import DataError

FORMAT_VERSION = 1
SPLITS = ("train", "validation")
SETTINGS = ("source", "format", "text_field", "lower_case", "holdout")
"""The fields of DataConfig on which the content of a prepared data set depends, beside the tokenizer."""

FEATURE_CLASSES = {
    "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "tensorflow_datasets.core.features.tensor_feature.Tensor",
}


def token_dtype(vocab_size: int) -> Any:
    """The narrowest dtype that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.int32


def features_of(vocab_size: int) -> Any:
    """What a record holds, in TFDS's terms."""
    dtypes = {"tokens": token_dtype(vocab_size), "sentence_lengths": np.int32}
    vectors = {
        name: tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes") for name, dtype in dtypes.items()
    }
    return tfds.features.FeaturesDict(vectors)


class Records:
    """The documents of a split: `records[i]` is the dict that TFDS decodes, in a fifth of TFDS's time.

    Safe for threads. Raises DataError that names the shard, which the errors of ArrayRecord do not.
    """

    def __init__(self, source: Any, shards: list[Path], ends: np.ndarray, dtype: Any) -> None:
        self._source, self._shards, self._ends, self._dtype = source, shards, ends, dtype

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, document: int) -> dict[str, np.ndarray]:
        """{"tokens": uint16 or int32 [n], "sentence_lengths": int32 [sentences]}, read-only."""
        if not 0 <= document < len(self):
            raise IndexError(document)
        try:
            features = tf_example_pb2.Example.FromString(self._source.data_source[document]).features.feature
            return {
                "tokens": np.frombuffer(features["tokens"].bytes_list.value[0], self._dtype),
                "sentence_lengths": np.frombuffer(features["sentence_lengths"].bytes_list.value[0], np.int32),
            }
        except Exception as error:  # ArrayRecord and protobuf raise several kinds, none of which names the file
            shard = self._shards[int(np.searchsorted(self._ends, document, side="right"))]
            raise DataError(_damaged(shard, error)) from error


@dataclass(frozen=True)
class Split:
    """The documents of one split: `source[i]` is document i, whose sentences the index describes without reading it."""

    name: str
    source: Any  # sequence of {"tokens", "sentence_lengths"}
    document_offsets: np.ndarray  # int64 [documents + 1], where each document begins in sentence_lengths
    sentence_lengths: np.ndarray  # int32 [sentences], in tokens, at least 1

    def tokens(self, document: int) -> np.ndarray:
        """int32 [n], the sentences of a document one after the other. Safe for threads."""
        tokens = self.source[document]["tokens"].astype(np.int32)
        start, end = self.document_offsets[document : document + 2]
        if tokens.size != self.sentence_lengths[start:end].sum():
            fix = "delete the data set and run `bertjax prepare` again"
            raise DataError(f"index.npz: does not fit the {self.name} shards at document {document}; {fix}")
        return tokens


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, opened."""

    directory: Path
    vocab_size: int
    tokenizer_digest: str
    token_counts: np.ndarray  # int64 [vocab_size], of the train split
    digest: str  # SHA-256 of the index: another corpus, split or tokenizer has another
    settings: dict  # what it was made with
    summary: dict  # what `prepare` returned
    train: Split
    validation: Split


def settings(data: DataConfig, digest: str) -> dict:
    """What the content of a prepared data set depends on."""
    chosen = {name: getattr(data, name) for name in SETTINGS}
    return chosen | {"tokenizer_digest": digest, "format_version": FORMAT_VERSION}


def matches(prepared: Prepared, data: DataConfig, tokenizer_digest: str) -> bool:
    """Whether `prepared` was made with these settings and tokenizer. Files that changed since are not noticed."""
    return prepared.settings == settings(data, tokenizer_digest)


def load(directory: Path) -> Prepared:
    """Open a prepared data set: reads the index, checks that each shard is there and whole, reads no shard.

    Raises DataError for a directory that is missing or of another format version, and for a file that is damaged.
    """
    directory = Path(directory)
    metadata = _metadata(directory)
    for name, size in metadata["shards"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != size:
            found = f"{path.stat().st_size} bytes instead of {size}" if path.is_file() else "missing"
            raise DataError(_damaged(path, found))
    try:
        content = (directory / "index.npz").read_bytes()
        index = dict(np.load(io.BytesIO(content), allow_pickle=False))
        token_counts = index["token_counts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(_damaged(directory / "index.npz", error)) from error
    try:
        # TFDS imports whatever classes features.json names, so it may only name those that are written here.
        features = json.loads((directory / "features.json").read_text())
        if not set(_values(features, "pythonClassName")) <= FEATURE_CLASSES:
            raise ValueError("features.json names other classes")
        builder = tfds.builder_from_directory(directory)
        train, validation = (_split(name, builder, index, metadata["vocab_size"]) for name in SPLITS)
    except Exception as error:  # TFDS raises many kinds on damaged metadata
        raise DataError(_damaged(directory / "dataset_info.json", error)) from error
    digest = hashlib.sha256(content).hexdigest()
    made = {name: metadata[name] for name in ("vocab_size", "tokenizer_digest", "settings", "summary")}
    return Prepared(directory, **made, token_counts=token_counts, digest=digest, train=train, validation=validation)


def _split(name: str, builder: Any, index: dict[str, np.ndarray], vocab_size: int) -> Split:
    present = name in builder.info.splits  # TFDS has no empty splits
    records = Records(
        builder.as_data_source(name) if present else None,
        [Path(path) for path in builder.info.splits[name].filepaths] if present else [],
        np.cumsum(builder.info.splits[name].shard_lengths if present else [], dtype=np.int64),
        token_dtype(vocab_size),
    )
    return Split(name, records, index[f"{name}_document_offsets"], index[f"{name}_sentence_lengths"])


def _values(tree: Any, key: str) -> Iterator[Any]:
    """Every value of `key`, at any depth."""
    if isinstance(tree, dict):
        yield from ([tree[key]] if key in tree else [])
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _values(branch, key)


def _metadata(directory: Path) -> dict:
    path = directory / "bertjax.json"
    if not path.is_file():
        raise DataError(f"{directory}: no prepared data set; run `bertjax prepare`")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["format_version"]
        missing = {"tokenizer_digest", "vocab_size", "settings", "summary", "shards"} - metadata.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(path, error)) from error
    if version != FORMAT_VERSION:
        fix = f"this bertjax reads {FORMAT_VERSION}; delete {directory} and run `bertjax prepare` again"
        raise DataError(f"{path}: format_version = {version!r}, {fix}")
    if missing:
        raise DataError(_damaged(path, f"no {', '.join(sorted(missing))}"))
    return metadata


def _damaged(path: Path, problem: object) -> str:
    return f"{path}: missing or damaged ({one_line(problem)}); delete {path.parent} and run `bertjax prepare` again"


def one_line(problem: object) -> str:
    """The text of an error, without its line breaks."""
    return " ".join(str(problem).split())[:200] or type(problem).__name__
