"""The prepared data set on disk: its format, its opening without TensorFlow, and its verification.

A record holds the tokens of a document and the lengths of its sentences; a very long document is several records, so
that no read is large. Training sees a split as one stream of tokens, document after document, and the index says where
sentences, documents and records begin in it. The index lies beside the shards as plain arrays that are mapped, not
loaded. TFDS's own metadata lies there as well, so that `tfds.builder_from_directory` opens the directory too.

No byte is used before the checksum of its file was found to be that of what was written: of a shard when it is first
read (`bertjax.data.records`), of all else when the data set is opened. TFDS and NumPy read some damage as other values.

bertjax.json               what the data set was made from and of, the size and CRC-32 of every file, its own CRC-32
token_counts.npy           int64 [vocab_size], of the train split
SPLIT.sentences.npy        int32 [sentences], length of each in tokens, at least 1
SPLIT.documents.npy        int64 [documents + 1], where each begins among the sentences, then their number
SPLIT.records.npy          int64 [records + 1], where each begins among the tokens, then their number
SPLIT.digests.npy          uint64 [documents], hash of the text of each
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from bertjax import storage
from bertjax.config.made import DATA_SET
from bertjax.config.schema import DataConfig
from bertjax.data.records import Records, damaged, difference, other_size, token_dtype
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError

FORMAT_VERSION = 4
METADATA = "bertjax.json"
SPLITS = ("train", "validation")
INDEX: dict[str, Any] = {"sentences": np.int32, "documents": np.int64, "records": np.int64, "digests": np.uint64}
SETTINGS = tuple(name.removeprefix("data.") for name in DATA_SET)
"""The fields of DataConfig on which the content of a prepared data set depends, beside the tokenizer."""

COUNTS = "token_counts.npy"
TFDS_METADATA = ("dataset_info.json", "features.json")
OPENED = (COUNTS, *TFDS_METADATA, *(f"{split}.{part}.npy" for split in SPLITS for part in INDEX))
"""The files beside METADATA and the shards."""

_COUNTS = dict.fromkeys(("documents", "sentences", "tokens", "unknown"), int)
_FILE = {"size": int, "crc32": int}
_FORM: dict[Any, Any] = {
    "tokenizer_digest": str,
    "vocab_size": int,
    "settings": {field.name: field.type for field in dataclasses.fields(DataConfig) if field.name in SETTINGS}
    | {"source": [str], "tokenizer_digest": str, "format_version": int},
    "summary": _COUNTS
    | {
        "splits": dict.fromkeys(SPLITS, _COUNTS),
        "sources": [{"source": str, "documents": dict.fromkeys(SPLITS, int)}],
        "skipped": {str: int},
    },
    "files": dict.fromkeys(OPENED, _FILE) | {str: _FILE},
}
"""What METADATA holds, as `_misformed` takes it."""

_FEATURE_CLASSES = {
    "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "tensorflow_datasets.core.features.tensor_feature.Tensor",
}


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
    directory: Path

    def tokens(self, start: int, end: int) -> np.ndarray:
        """int32 [end - start], tokens `start` to `end` of the split, from the records they are in. Safe for threads."""
        record = int(self.record_offsets.searchsorted(start, side="right")) - 1
        parts = []
        while start < end:
            first, after = int(self.record_offsets[record]), int(self.record_offsets[record + 1])
            tokens = self.source[record]["tokens"]
            if len(tokens) != after - first:
                problem = f"does not fit the shards at record {record}"
                raise damaged(self.directory / f"{self.name}.records.npy", problem)
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
    """Open a prepared data set: maps the index, which is read once to be checked, and reads no shard.

    Raises DataError for a directory that is missing or of another format version, and for a file that is damaged; of a
    shard only its size is known by then.
    """
    directory = Path(directory)
    metadata = _metadata(directory)
    for name, written in metadata["files"].items():
        compare = difference if name in OPENED else other_size
        if found := compare(directory / name, written):
            raise damaged(directory / name, found)
    try:
        builder = open_builder(directory, _FEATURE_CLASSES.__contains__)
    except Exception as error:  # TFDS raises many kinds on damaged metadata
        raise damaged(directory / "dataset_info.json", error) from error
    counts = _array(directory / COUNTS, np.int64)
    if len(counts) != metadata["vocab_size"]:
        raise damaged(directory / COUNTS, f"{len(counts)} counts for {metadata['vocab_size']} pieces")
    # What TFDS writes beside them is not content, and may differ between its versions.
    content = {name: written for name, written in metadata["files"].items() if name not in TFDS_METADATA}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
    made = {name: metadata[name] for name in ("vocab_size", "tokenizer_digest", "settings", "summary", "files")}
    train, validation = (_split(name, directory, builder, metadata) for name in SPLITS)
    return Prepared(directory, **made, token_counts=counts, digest=digest, train=train, validation=validation)


def _split(name: str, directory: Path, builder: Any, metadata: dict) -> Split:
    index = {part: _array(directory / f"{name}.{part}.npy", dtype) for part, dtype in INDEX.items()}
    present = name in builder.info.splits  # TFDS has no empty splits
    lengths = builder.info.splits[name].shard_lengths if present else []
    shards = [Path(path).name for path in builder.info.splits[name].filepaths] if present else []
    if unknown := [shard for shard in shards if shard not in metadata["files"]]:
        raise damaged(directory / METADATA, f"no checksum of {unknown[0]}")
    documents = tuple(source["documents"][name] for source in metadata["summary"]["sources"])
    if sum(documents) != len(index["digests"]):
        problem = f"has {sum(documents)} documents of {name}, and the index {len(index['digests'])}"
        raise damaged(directory / METADATA, problem)
    for part, count, end in (
        ("documents", len(index["digests"]), len(index["sentences"])),
        ("records", sum(lengths), index["sentences"].sum(dtype=np.int64)),
    ):
        if len(index[part]) != count + 1 or index[part][0] != 0 or index[part][-1] != end:
            raise damaged(directory / f"{name}.{part}.npy", f"does not divide {end} into {count}")
    records = Records(
        builder.as_data_source(name).data_source if present else None,
        [(directory / shard, metadata["files"][shard]) for shard in shards],
        lengths,
        token_dtype(metadata["vocab_size"]),
    )
    arrays = (index["sentences"], index["documents"], index["records"], index["digests"])
    return Split(name, records, *arrays, documents, directory)


def _array(path: Path, dtype: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(f"{array.dtype} array of {array.ndim} dimensions")
        return np.asarray(array)  # still mapped; without the overhead of its class
    except Exception as error:  # NumPy reads the header with Python's own tokenizer and parser
        raise damaged(path, error) from error


def verify(directory: Path) -> Iterator[tuple[str, str]]:
    """Read and check every file: (name, "") for each that is whole, (name, problem) for each that is not.

    Checksums first, then every record of a whole shard against the index. Raises DataError as `load` does, but not
    for a file that is missing or of other bytes: that is a problem like others.
    """
    directory = Path(directory)
    files = _metadata(directory)["files"]
    found = {METADATA: ""} | {name: difference(directory / name, written) for name, written in files.items()}
    yield from found.items()
    if not any(found.values()):
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
    """What METADATA says, in the form of `_FORM`."""
    path = directory / METADATA
    if not path.is_file():
        raise DataError(f"{directory}: no prepared data set; run `bertjax prepare`")
    try:
        metadata, whole = storage.unseal(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        fix = f"this bertjax reads {FORMAT_VERSION}; delete {directory} and run `bertjax prepare` again"
        raise DataError(f"{path}: format_version = {version!r:.40}, {fix}")
    if not whole:
        raise damaged(path, "its checksum is that of another text")
    for problem in _misformed(metadata, _FORM):
        raise damaged(path, problem)
    return metadata


def _misformed(value: Any, form: Any, place: str = "") -> Iterator[str]:
    """What is not of a form: a type, [form of each element], {key: its form} or {str: form of each other key}."""
    kind: Any = form if isinstance(form, type) else type(form)
    if type(value) is not kind:  # and not a subclass: True is an int
        yield f"{place} is {value!r:.40}, not of type {kind.__name__}"
    elif isinstance(form, list):
        for number, element in enumerate(value):
            yield from _misformed(element, form[0], f"{place}[{number}]")
    elif isinstance(form, dict):
        other = form.get(str)
        for key in [key for key in form if key is not str] + [key for key in value if other and key not in form]:
            name = f"{place}.{key}" if place else key
            yield from _misformed(value[key], form.get(key, other), name) if key in value else [f"no {name}"]
