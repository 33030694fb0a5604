"""Texts in a column: Parquet files and the data sets of TFDS, which is used without TensorFlow.

A TFDS data set is opened once, prepared if need be, when the corpus is cut into units; from then on it is known by
its directory. Every process reads from there and neither needs the code of the data set nor prepares it again.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from bertjax.data import dataset
from bertjax.errors import DataError, one_line
from bertjax.storage import user_path

BATCH_ROWS = 64
"""Rows of a Parquet file, or records of TFDS, that are in memory at a time."""

Rows = Iterator[tuple[str, Any]]
"""(where it stands, the value: a text as bytes in whatever encoding, or None where there is none)."""


# Parquet -----------------------------------------------------------------------------------------------------------


def row_groups(path: str, field: str) -> list[int]:
    """Bytes of column `field` in each row group, uncompressed. DataError for a bad file or another set of columns."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, metadata = file.schema_arrow.names, file.metadata
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(_damaged(path, error)) from None
    if field not in names:
        raise DataError(f"data.text_field = {field!r}: {path} has no such column; it has {', '.join(names)}")
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = ([group.column(i) for i in range(group.num_columns)] for group in groups)
    return [sum(c.total_uncompressed_size for c in row if c.path_in_schema.split(".")[0] == field) for row in columns]


def texts(column: Any) -> list[bytes | None]:
    """The texts of a column of pyarrow; None for nulls, numbers, lists and other things that are no text."""
    import pyarrow

    try:
        return column.cast(pyarrow.large_binary()).to_pylist()
    except pyarrow.ArrowNotImplementedError:
        return [None] * len(column)


def parquet_rows(path: str, start: int, end: int, field: str, values: Callable[[Any], list] = texts) -> Rows:
    """Column `field` of the row groups from `start` to before `end`, a batch of rows at a time through `values`."""
    import pyarrow
    import pyarrow.parquet

    try:
        # Without these two settings a row group is read at once, and it may be the whole file.
        stream = {"pre_buffer": False, "buffer_size": 1 << 20}
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, **stream) as file:
            for group in range(start, end):
                row = 0
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[field], use_threads=False):
                    for value in values(batch.column(0)):
                        yield f"{path}: row {row} of row group {group}", value
                        row += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(_damaged(path, error)) from None


def _damaged(path: str, error: Exception) -> str:
    return f"{path}: not a whole Parquet file ({one_line(error)}); copy it again, or name other files"


# TFDS --------------------------------------------------------------------------------------------------------------


def tfds_path(entry: str, field: str, *, setting: str = "data.source") -> str:
    """The entry "tfds:NAME[SPLIT]" as "tfds:DIRECTORY[SPLIT]", with a data set that is prepared and can be read, and
    has the field, unless that is "". `setting` is the field of the configuration that has the entry.

    NAME is that of a data set of TFDS, with a configuration and version if need be ("wiki40b/en:1.3.0"), or a path to
    the directory of a prepared one, which begins with / . or ~. The split is "train" unless it is given.
    """
    name, split = _name_and_split(entry, setting)
    directory = user_path(name) if name[0] in "/.~" else _prepare(entry, name, setting)
    builder = _builder(directory)
    formats = sorted(str(kind.value) for kind in builder.info.available_file_formats())
    if "array_record" not in formats:
        fix = "prepare it again, into another directory, with --file_format=array_record"
        raise DataError(f"{setting} = {entry!r}: {directory} is in the format {', '.join(formats)}; {fix}")
    try:
        builder.as_data_source(split)
    except Exception as error:  # TFDS raises several kinds for a split that it cannot parse or does not know
        fix = f"the splits are {', '.join(builder.info.splits)}"
        raise DataError(f"{setting} = {entry!r}: no split {split!r} ({one_line(error)}); {fix}") from None
    if field and field not in builder.info.features:
        fields = ", ".join(sorted(builder.info.features))
        raise DataError(f"data.text_field = {field!r}: {entry} has no such field; it has {fields}")
    return f"tfds:{directory}[{split}]"


def tfds_size(path: str) -> tuple[int, int]:
    """(number of records, rough bytes of one) of a path that `tfds_path` returned."""
    name, split = _name_and_split(path)
    builder = _builder(Path(name))
    splits = builder.info.splits.values()
    size = sum(part.num_bytes for part in splits) // max(1, sum(part.num_examples for part in splits))
    return len(builder.as_data_source(split)), max(1, size)


def tfds_rows(path: str, start: int, end: int, field: str) -> Rows:
    """Field `field` of the records from `start` to before `end` of a path that `tfds_path` returned."""
    name, split = _name_and_split(path)
    try:
        # Only the field is decoded: TFDS decodes all of them, some twenty times slower.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = _builder(Path(name)).as_data_source(split, deserialize_method=raw)
        for first in range(start, end, BATCH_ROWS):
            numbers = range(first, min(first + BATCH_ROWS, end))
            for number, record in zip(numbers, source.__getitems__(list(numbers)), strict=True):
                values = tf_example_pb2.Example.FromString(record).features.feature[field].bytes_list.value
                yield f"{path}: record {number}", values[0] if len(values) == 1 else None
    except DataError:
        raise
    except Exception as error:  # ArrayRecord and protobuf raise several kinds, none of which names the file
        raise DataError(f"{path}: cannot be read ({one_line(error)}); prepare the data set again") from error


def tfds_columns(path: str) -> list[str]:
    """The features that `tfds_values` gives of a path that `tfds_path` returned."""
    return list(_readers(_builder(Path(_name_and_split(path)[0])).info.features))


def tfds_values(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, feature -> value) of each record of a path that `tfds_path` returned.

    Texts are str, labels their names or None for -1 (unknown), sequences lists, those of several values dicts of lists.
    Features of other kinds, as pictures, are left out. Raises DataError where the data set cannot be read.
    """
    name, split = _name_and_split(path)
    builder = _builder(Path(name))
    readers = _readers(builder.info.features)
    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        for first in range(0, len(source), BATCH_ROWS):
            numbers = range(first, min(first + BATCH_ROWS, len(source)))
            for number, record in zip(numbers, source.__getitems__(list(numbers)), strict=True):
                if not record:  # as ArrayRecord gives it of a file that is cut off
                    raise EOFError(f"record {number} is empty")
                stored = tf_example_pb2.Example.FromString(record).features.feature
                yield f"{path}: record {number}", {name: read(stored) for name, read in readers.items()}
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{path}: cannot be read ({one_line(error)}); prepare the data set again") from error


def _readers(features: Any) -> dict[str, Callable[[Any], Any]]:
    """Feature -> what takes its value from the fields of a stored record."""
    found: dict[str, Callable[[Any], Any]] = {}
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        if isinstance(inner, tfds.features.FeaturesDict):
            parts = {key: _stored(f"{name}/{key}", part) for key, part in inner.items() if _is_plain(part)}
            found[name] = partial(lambda stored, parts: {key: read(stored) for key, read in parts.items()}, parts=parts)
        elif _is_plain(inner):
            read = _stored(name, inner)
            found[name] = read if inner is not feature else partial(_only, read=read)
    return found


def _is_plain(feature: Any) -> bool:
    return (
        isinstance(feature, tfds.features.Text | tfds.features.ClassLabel | tfds.features.Tensor) and not feature.shape
    )


def _stored(name: str, feature: Any) -> Callable[[Any], list[Any]]:
    """What takes the values of a field from those of a record."""

    def read(stored: Any) -> list[Any]:
        kind = stored[name].WhichOneof("kind")
        values = getattr(stored[name], kind).value if kind else ()
        if isinstance(feature, tfds.features.ClassLabel):
            return [feature.int2str(value) if value >= 0 else None for value in values]
        return [value.decode() if isinstance(value, bytes) else value for value in values]

    return read


def _only(stored: Any, read: Callable[[Any], list[Any]]) -> Any:
    values = read(stored)
    return values[0] if len(values) == 1 else None


def _name_and_split(entry: str, setting: str = "data.source") -> tuple[str, str]:
    match = re.fullmatch(r"tfds:(.+?)(?:\[(.+)\])?", entry)
    if match is None:
        raise DataError(f"{setting} = {entry!r}: write tfds:NAME or tfds:NAME[SPLIT], as in tfds:wiki40b/en[train]")
    return match[1], match[2] or "train"


def _prepare(entry: str, name: str, setting: str) -> Path:
    """The directory of a data set of TFDS, after `download_and_prepare` if there is none yet."""
    # Neither a namespace, behind which other people's code is downloaded, nor arguments of the builder.
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name)
    if match is None:
        fix = "write NAME, NAME/CONFIG or NAME/CONFIG:VERSION, or a path that begins with / . or ~"
        raise DataError(f"{setting} = {entry!r}: no name of a TFDS data set; {fix}")
    found, config, version = match.groups()
    if found not in tfds.list_builders(with_community_datasets=False):
        import tensorflow_datasets.text  # noqa: F401  # registers wiki40b, wikipedia, c4 and more

        names = tfds.list_builders(with_community_datasets=False)
        if found not in names:
            near = ", ".join(difflib.get_close_matches(found, names, cutoff=0.5))
            fix = "name one of your own by its directory, as in tfds:/data/mine/1.0.0"
            fix = f"the nearest names are {near}; {fix}" if near else fix
            raise DataError(f"{setting} = {entry!r}: TFDS has no data set {found!r}; {fix}")
    try:
        # The class itself, because `tfds.builder` may load one from files and import what they name.
        builder = tfds.builder_cls(found)(
            config=config, version=version, data_dir=os.environ.get("TFDS_DATA_DIR") or None
        )
    except Exception as error:  # several kinds, for a configuration or version that there is not
        raise DataError(f"{setting} = {entry!r}: TFDS refuses it ({one_line(error)}); check the name") from None
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:  # no network, no disk, no Beam, no licence: each data set has its own
            fix = (
                f"run `tfds build {name} --file_format=array_record` where it works and set TFDS_DATA_DIR,"
                " or name the directory as tfds:/DIRECTORY"
            )
            problem = f"{type(error).__name__}: {one_line(error)}"
            raise DataError(f"{setting} = {entry!r}: cannot be prepared here ({problem}); {fix}") from error
    return Path(builder.data_dir)


def _builder(directory: Path) -> Any:
    """A prepared data set, with classes of TFDS alone."""
    try:
        return dataset.open_builder(directory, lambda name: name.startswith("tensorflow_datasets."))
    except Exception as error:  # TFDS raises many kinds on damaged metadata
        fix = "name the directory that holds features.json and dataset_info.json"
        raise DataError(f"{directory}: no TFDS data set that can be read ({one_line(error)}); {fix}") from None
