"""The records of a prepared data set: the tokens of a document as bytes, in shards that are checked before their use.

A record is what TFDS writes for the features below, made and read in a fraction of its time.
"""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from bertjax.errors import DataError, one_line
from bertjax.storage import checksum

FEATURES = ("tokens", "sentence_lengths")
"""What a record holds: arrays of `token_dtype` and of int32, each as its bytes."""

Fingerprint = dict[str, int]
"""{"size", "crc32"} of a file as it was written."""


def token_dtype(vocab_size: int) -> Any:
    """The narrowest dtype that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.int32


def encode(tokens: np.ndarray, sentence_lengths: np.ndarray) -> bytes:
    """The bytes of a record, from arrays of the right types: those that TFDS writes, in a hundredth of its time."""
    example = tf_example_pb2.Example()
    for name, array in zip(FEATURES, (tokens, sentence_lengths), strict=True):
        example.features.feature[name].bytes_list.value.append(array.tobytes())
    # Deterministic, because protobuf otherwise orders a map differently in each process.
    return example.SerializeToString(deterministic=True)


def decode(record: bytes, dtype: Any) -> dict[str, np.ndarray]:
    """{"tokens": `dtype` [n], "sentence_lengths": int32 [sentences]}, read-only: what TFDS gives, in a fifth of its
    time.
    """
    features = tf_example_pb2.Example.FromString(record).features.feature
    arrays = zip(FEATURES, (dtype, np.int32), strict=True)
    return {name: np.frombuffer(features[name].bytes_list.value[0], dtype) for name, dtype in arrays}


class Records:
    """The records of a split, `records[i]` decoded. Safe for threads.

    A shard is compared with its checksum when one of its records is first read, once in a process. ArrayRecord finds
    most damage by itself, but not a shard that is whole and of another data set.
    """

    def __init__(
        self, source: Any, shards: Sequence[tuple[Path, Fingerprint]], lengths: Sequence[int], dtype: Any
    ) -> None:
        """`source` gives the bytes of record i; `lengths` is how many records each shard holds."""
        self._source, self._shards, self._dtype = source, shards, dtype
        self.ends: list[int] = np.cumsum(lengths, dtype=np.int64).tolist()  # where each shard ends among the records
        self._whole = [False] * len(shards)
        self._checking = [threading.Lock() for _ in shards]

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, record: int) -> dict[str, np.ndarray]:
        """What `decode` returns. Raises DataError that names the shard, which the errors of ArrayRecord do not."""
        if not 0 <= record < len(self):
            raise IndexError(record)
        shard = bisect_right(self.ends, record)
        if not self._whole[shard]:
            self._check(shard)
        try:
            return decode(self._source[record], self._dtype)
        except Exception as error:  # ArrayRecord and protobuf raise several kinds, none of which names the file
            raise damaged(self._shards[shard][0], error) from error

    def _check(self, shard: int) -> None:
        with self._checking[shard]:  # other threads wait for its end, and not for that of other shards
            if not self._whole[shard]:
                path, written = self._shards[shard]
                if found := difference(path, written):
                    raise damaged(path, found)
                self._whole[shard] = True


def difference(path: Path, written: Fingerprint) -> str:
    """What distinguishes a file from the one that was written, by all of its bytes; "" if nothing does."""
    if found := other_size(path, written):
        return found
    try:
        return "" if checksum(path) == written else "its bytes are not those that were written"
    except OSError as error:
        return error.strerror or str(error)


def other_size(path: Path, written: Fingerprint) -> str:
    """What distinguishes a file from the one that was written, without reading it; "" if nothing does."""
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        return error.strerror or str(error)
    if size is None:
        return "there is no such file"
    return "" if size == written["size"] else f"{size} bytes instead of {written['size']}"


def damaged(path: Path, problem: object) -> DataError:
    """The error of a file of a prepared data set that cannot be used."""
    fix = f"delete {path.parent} and run `bertjax prepare` again"
    return DataError(f"{path}: missing or damaged ({one_line(problem)}); {fix}")
