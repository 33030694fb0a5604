"""The units of a preparation, all of them made -> the prepared data set (`bertjax.data.dataset`).

The result of a unit is what `bertjax.corpus.shards` returns. Results and folders come in the order of the units, which
is that of the corpus.
"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from bertjax import storage
from bertjax.config.schema import DataConfig
from bertjax.data import dataset
from bertjax.data.dataset import INDEX, SPLITS
from bertjax.data.records import FEATURES, token_dtype


def total(results: list[dict], key: str, *splits: str) -> int:
    """The sum of a count over units and splits, by default all of them."""
    return sum(result["splits"][split][key] for result in results for split in splits or SPLITS)


def summarise(data: DataConfig, results: list[dict]) -> dict:
    """What the data set holds: counts of everything, of each split, of each source, and of what was skipped."""
    keys = ("documents", "sentences", "tokens", "unknown")
    counts = sum((Counter(result["counts"]) for result in results), Counter[str]())
    splits = {name: {key: total(results, key, name) for key in keys} for name in SPLITS}
    sources = []
    for number, entry in enumerate(data.source):
        own = [result for result in results if result["source"] == number]
        sources.append({"source": entry, "documents": {name: total(own, "documents", name) for name in SPLITS}})
    skipped = {reason: n for reason, n in sorted(counts.items()) if n and reason not in ("documents", "sentences")}
    return {key: total(results, key) for key in keys} | {"splits": splits, "sources": sources, "skipped": skipped}


def assemble(target: Path, folders: list[Path], results: list[dict], metadata: dict) -> None:
    """Make the directory `target`: the index joined, the shards moved there and named as TFDS does, the metadata.

    Raises OSError where it cannot be written.
    """
    shutil.rmtree(target, ignore_errors=True)  # of an attempt that was stopped
    target.mkdir()
    counts = np.zeros(metadata["vocab_size"], np.int64)
    for folder in folders:
        counts += np.load(folder / "token_counts.npy", allow_pickle=False)
    np.save(target / dataset.COUNTS, counts)
    template = tfds.core.ShardedFileTemplate(target, dataset_name="bertjax", filetype_suffix="array_record")
    files: dict[str, dict] = {}
    splits = []
    for split in SPLITS:
        for part in INDEX:
            _join(target / f"{split}.{part}.npy", [folder / f"{split}.{part}" for folder in folders], part)
        present = [(f, r) for f, r in zip(folders, results, strict=True) if r["splits"][split]["records"]]
        for number, (folder, result) in enumerate(present):
            name = f"bertjax-{split}.array_record-{number:05d}-of-{len(present):05d}"
            (folder / f"{split}.array_record").rename(target / name)
            files[name] = result["shards"][f"{split}.array_record"]
        if present:
            records = [result["splits"][split]["records"] for _, result in present]
            size = total(results, "record_bytes", split)
            splits.append(tfds.core.SplitInfo(split, records, size, filename_template=template.replace(split=split)))
    tfds.folder_dataset.write_metadata(
        data_dir=target,
        features=_features(metadata["vocab_size"]),
        split_infos=splits,
        version=f"{dataset.FORMAT_VERSION}.0.0",
        filename_template=template,
        check_data=False,
    )
    files |= {name: storage.checksum(target / name) for name in sorted(dataset.OPENED)}
    storage.write(target / dataset.METADATA, storage.seal(metadata | {"files": files}))


def _features(vocab_size: int) -> tfds.features.FeaturesDict:
    """What a record holds, in TFDS's terms."""
    dtypes = zip(FEATURES, (token_dtype(vocab_size), np.int32), strict=True)
    return tfds.features.FeaturesDict(
        {name: tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes") for name, dtype in dtypes}
    )


def _join(path: Path, parts: list[Path], name: str) -> None:
    """One .npy file of the parts, a part at a time: counts of `documents` and `records` become offsets."""
    dtype = np.dtype(INDEX[name])
    offsets = name in ("documents", "records")
    count = sum(part.stat().st_size for part in parts) // dtype.itemsize + offsets
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        end = 0
        if offsets:
            file.write(dtype.type(0).tobytes())
        for part in parts:
            values = np.fromfile(part, dtype)
            if offsets and len(values):
                values = end + np.cumsum(values)
                end = values[-1]
            file.write(values.tobytes())
