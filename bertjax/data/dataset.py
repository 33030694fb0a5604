"""The prepared data set on disk: its format, its opening without TensorFlow, and its verification.

A record holds the tokens of a document and the lengths of its sentences; a very long document is several records, so
that no read is large. Training sees a split as one stream of tokens, document after document, and the index says where
sentences, documents and records begin in it. The index lies beside the shards as plain arrays that are mapped, not
loaded. TFDS's own metadata lies there as well, so that `tfds.builder_from_directory` opens the directory too.

bertjax.json               what the data set was made from and of, and the size and CRC-32 of every file
token_counts.npy           int64 [vocab_size], of the train split
SPLIT.sentences.npy        int32 [sentences], length of each in tokens, at least 1
SPLIT.documents.npy        int64 [documents + 1], where each begins among the sentences, then their number
SPLIT.records.npy          int64 [records + 1], where each begins among the tokens, then their number
SPLIT.digests.npy          uint64 [documents], hash of the text of each
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from bertjax.config.schema import DataConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError, one_line
from bertjax.storage import checksum

FORMAT_VERSION = 4
METADATA = "bertjax.json"
SPLITS = ("train", "validation")
INDEX: dict[str, Any] = {"sentences": np.int32, "documents": np.int64, "records": np.int64, "digests": np.uint64}
SETTINGS = ("source", "format", "text_field", "case", "holdout")
"""The fields of DataConfig on which the content of a prepared data set depends, beside the tokenizer."""

FEATURES = ("tokens", "sentence_lengths")
"""What a record holds: arrays of `token_dtype` and of int32, each as its bytes."""

_FEATURE_CLASSES = {
    "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "tensorflow_datasets.core.features.tensor_feature.Tensor",
}


def token_dtype(vocab_size: int) -> Any:
    """The narrowest dtype that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.int32


def encode_record(tokens: np.ndarray, sentence_lengths: np.ndarray) -> bytes:
    """The bytes of a record, from arrays of the right types: those that TFDS writes, in a hundredth of its time."""
    example = tf_example_pb2.Example()
    for name, array in zip(FEATURES, (tokens, sentence_lengths), strict=True):
        example.features.feature[name].bytes_list.value.append(array.tobytes())
    # Deterministic, because protobuf otherwise orders a map differently in each process.
    return example.SerializeToString(deterministic=True)


class Records:
    """The records of a split: `records[i]` is the dict that TFDS decodes, in a fifth of TFDS's time.

    Safe for threads. Raises DataError that names the shard, which the errors of ArrayRecord do not.
    """

    def __init__(self, source: Any, shards: list[Path], ends: np.ndarray, dtype: Any) -> None:
        self._source, self._shards, self._ends, self._dtype = source, shards, ends, dtype

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, record: int) -> dict[str, np.ndarray]:
        """{"tokens": uint16 or int32 [n], "sentence_lengths": int32 [sentences]}, read-only."""
        if not 0 <= record < len(self):
            raise IndexError(record)
        try:
            features = tf_example_pb2.Example.FromString(self._source.data_source[record]).features.feature
            arrays = zip(FEATURES, (self._dtype, np.int32), strict=True)
            return {name: np.frombuffer(features[name].bytes_list.value[0], dtype) for name, dtype in arrays}
        except Exception as error:  # ArrayRecord and protobuf raise several kinds, none of which names the file
            shard = self._shards[int(np.searchsorted(self._ends, record, side="right"))]
            raise DataError(_damaged(shard, error)) from error


@dataclass(frozen=True)
class Split:
    """One stream of tokens: its documents' sentences one after the other."""

    name: str
    source: Any  # sequence of {"tokens", "sentence_lengths"}, one for each record
    sentence_lengths: np.ndarray  # int32 [sentences], in tokens, at least 1
    document_offsets: np.ndarray  # int64 [documents + 1], where each begins among the sentences
    record_offsets: np.ndarray  # int64 [records + 1], where each begins among the tokens
    digests: np.ndarray  # uint64 [documents]
    source_documents: tuple[int, ...]  # documents of each entry of data.source, in order

    def tokens(self, start: int, end: int) -> np.ndarray:
        """int32 [end - start], tokens `start` to `end` of the split, from the records they are in. Safe for threads."""
        record = int(self.record_offsets.searchsorted(start, side="right")) - 1
        parts = []
        while start < end:
            first, after = int(self.record_offsets[record]), int(self.record_offsets[record + 1])
            tokens = self.source[record]["tokens"]
            if len(tokens) != after - first:
                fix = "delete the data set and run `bertjax prepare` again"
                raise DataError(f"{self.name}.records.npy: does not fit the shards at record {record}; {fix}")
            parts.append(tokens[start - first : end - first])
            start, record = after, record + 1
        return parts[0].astype(np.int32) if len(parts) == 1 else np.concatenate([np.zeros(0, np.int32), *parts])


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, opened."""

    directory: Path
    vocab_size: int
    tokenizer_digest: str
    token_counts: np.ndarray  # int64 [vocab_size], of the train split
    digest: str  # SHA-256 of its files' checksums: another corpus, split or tokenizer has another
    settings: dict  # what it was made with, as `settings` gives it
    summary: dict  # its counts, as `prepare` returned them
    files: dict  # name -> {"size", "crc32"}
    train: Split
    validation: Split


def settings(data: DataConfig, tokenizer: Tokenizer) -> dict:
    """What the content of a prepared data set depends on; `case` is what it is with this tokenizer, never auto."""
    chosen = {name: getattr(data, name) for name in SETTINGS}
    case = "uncased" if tokenizer.lower_case else "cased"
    # As JSON has it.
    chosen |= {"source": list(data.source), "case": case}
    return chosen | {"tokenizer_digest": tokenizer.digest, "format_version": FORMAT_VERSION}


def check_tokenizer(prepared: Prepared, tokenizer: Tokenizer) -> None:
    """Raises DataError if the data set was made with another tokenizer: its ids would mean other words."""
    if prepared.tokenizer_digest != tokenizer.digest:
        raise DataError(
            f"the data set was prepared with tokenizer {prepared.tokenizer_digest[:8]}, but data.tokenizer is"
            f" {tokenizer.digest[:8]}; set data.tokenizer to the one it was prepared with, or prepare it again"
        )


def matches(prepared: Prepared, data: DataConfig, tokenizer: Tokenizer) -> bool:
    """Whether `prepared` was made with these settings and tokenizer. Files that changed since are not noticed."""
    return prepared.settings == settings(data, tokenizer)


def load(directory: Path) -> Prepared:
    """Open a prepared data set: maps the index, checks that each file is there with its size, reads no shard.

    Raises DataError for a directory that is missing or of another format version, and for a file that is damaged.
    """
    directory = Path(directory)
    metadata = _metadata(directory)
    for name, file in metadata["files"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != file["size"]:
            found = f"{path.stat().st_size} bytes instead of {file['size']}" if path.is_file() else "missing"
            raise DataError(_damaged(path, found))
    try:
        builder = open_builder(directory, _FEATURE_CLASSES.__contains__)
    except Exception as error:  # TFDS raises many kinds on damaged metadata
        raise DataError(_damaged(directory / "dataset_info.json", error)) from error
    digest = hashlib.sha256(json.dumps(metadata["files"], sort_keys=True, allow_nan=False).encode()).hexdigest()
    made = {name: metadata[name] for name in ("vocab_size", "tokenizer_digest", "settings", "summary", "files")}
    counts = _array(directory / "token_counts.npy", np.int64)
    train, validation = (_split(name, directory, builder, metadata) for name in SPLITS)
    return Prepared(directory, **made, token_counts=counts, digest=digest, train=train, validation=validation)


def _split(name: str, directory: Path, builder: Any, metadata: dict) -> Split:
    index = {part: _array(directory / f"{name}.{part}.npy", dtype) for part, dtype in INDEX.items()}
    present = name in builder.info.splits  # TFDS has no empty splits
    lengths = builder.info.splits[name].shard_lengths if present else []
    if sum(lengths) != len(index["records"]) - 1:
        raise DataError(_damaged(directory / f"{name}.records.npy", "of another number of records"))
    records = Records(
        builder.as_data_source(name) if present else None,
        [Path(path) for path in builder.info.splits[name].filepaths] if present else [],
        np.cumsum(lengths, dtype=np.int64),
        token_dtype(metadata["vocab_size"]),
    )
    documents = tuple(source["documents"][name] for source in metadata["summary"]["sources"])
    return Split(name, records, index["sentences"], index["documents"], index["records"], index["digests"], documents)


def _array(path: Path, dtype: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"{array.dtype} array of {array.ndim} dimensions")
        return np.asarray(array)  # still mapped; without the overhead of its class
    except (OSError, ValueError, EOFError) as error:
        raise DataError(_damaged(path, error)) from error


def verify(directory: Path) -> Iterator[tuple[str, str]]:
    """Read and check every file: (name, "") for each that is whole, (name, problem) for each that is not.

    Checksums first, then every record of a whole shard against the index. Raises DataError as `load` does, but not
    for a file that is missing or of another size: that is a problem like others.
    """
    directory = Path(directory)
    damaged = False
    for name, file in _metadata(directory)["files"].items():
        try:
            found = checksum(directory / name)
            problem = "" if found == file else f"is {found}, was written as {file}"
        except OSError as error:
            problem = error.strerror or str(error)
        damaged |= bool(problem)
        yield name, problem
    if not damaged:
        prepared = load(directory)
        for split in (prepared.train, prepared.validation):
            yield f"index of the {split.name} split", _misfit(split)


def _misfit(split: Split) -> str:
    sentence = 0
    for record in range(len(split.source)):
        content = split.source[record]
        lengths = content["sentence_lengths"]
        expected = split.sentence_lengths[sentence : sentence + len(lengths)]
        size = split.record_offsets[record + 1] - split.record_offsets[record]
        if not (np.array_equal(lengths, expected) and lengths.sum() == len(content["tokens"]) == size):
            return f"does not fit the shards at record {record}"
        sentence += len(lengths)
    whole = sentence == len(split.sentence_lengths) == split.document_offsets[-1]
    return "" if whole else "has other sentences than the shards"


def open_builder(directory: Path, known: Callable[[str], bool]) -> Any:
    """The TFDS builder of a data set on disk, whose features.json may name only classes that are `known`.

    TFDS imports whatever classes are named there, which runs their modules. Raises ValueError for any other class, and
    one of many other kinds of exception where files are damaged or missing.
    """
    features = json.loads((directory / "features.json").read_text(encoding="utf-8"))
    foreign = [name for name in class_names(features) if not known(name)]
    if foreign:
        raise ValueError(f"features.json names {foreign[0]!r}, a class that is not to be imported")
    return tfds.builder_from_directory(directory)


def class_names(tree: Any) -> Iterator[str]:
    """Every class that a features.json names: under its two spellings, in TFDS's older form, in JSON within strings."""
    if isinstance(tree, str) and tree.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            tree = json.loads(tree)
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree if isinstance(tree, list) else []):
        if key in ("pythonClassName", "python_class_name", "type") and isinstance(value, str):
            yield value
        else:
            yield from class_names(value)


def _metadata(directory: Path) -> dict:
    path = directory / METADATA
    if not path.is_file():
        raise DataError(f"{directory}: no prepared data set; run `bertjax prepare`")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["format_version"]
        missing = {"tokenizer_digest", "vocab_size", "settings", "summary", "files"} - metadata.keys()
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
