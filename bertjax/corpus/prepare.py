"""Documents -> a prepared data set (`bertjax.data.dataset`): in parallel, resumable, written whole or not at all.

The source is cut into units (`bertjax.corpus.units`) by its files and sizes alone. Whatever process takes a unit reads,
splits and tokenises it and leaves the result in a folder of its own, `DIRECTORY.partial/unit-NUMBER`, that appears
complete or not at all. So the files are the same for any number of workers and for Beam, a run that was stopped goes on
with the units that are missing, and no process holds more than a stretch of a unit. At the end the index is joined and
the shards are named as TFDS names them.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.corpus import shards
from bertjax.corpus import units as corpus
from bertjax.data import dataset, tokenizer
from bertjax.data.dataset import INDEX, SPLITS, one_line
from bertjax.errors import DataError, StorageError

_JOB, _RESULT = "job.json", "result.json"

Runner = Callable[[Path, list[int]], Iterable[int]]
"""Calls `work(folder, number)` for each number, wherever it likes, and yields the numbers as they are done."""


def prepare(
    data: DataConfig,
    tokenizer_path: Path,
    directory: Path,
    *,
    runner: Runner,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Tokenise `data.source` into `directory`, whole or not at all; returns the summary that is saved with it.

    `runner` is `local(workers)`, or Beam's. `progress(done, total)` counts units. Raises DataError for a source without
    text, StorageError where `directory` has content or cannot be written: what is finished stays beside it, in
    `DIRECTORY.partial`, and the same call goes on from there.
    """
    directory, partial = Path(directory), Path(f"{directory}.partial")
    vocabulary = tokenizer.load(tokenizer_path, lower_case=data.lower_case)
    try:
        if directory.exists() and any(directory.iterdir()):
            raise StorageError(f"{directory}: is not empty; delete it or set data.prepared to another directory")
        job = _start(data, Path(tokenizer_path), vocabulary.digest, partial)
        results = _run(runner, partial, len(job["units"]), progress)
        least = min((result["least_digest"] for result in results), default=0)
        if data.holdout and not _total(results, "documents", "validation") and _total(results, "documents") > 1:
            # A small corpus may have no document under the threshold: the one nearest to it is held out.
            _write(partial / _JOB, job | {"holdout_below": least + 1})
            for number, result in enumerate(results):
                if result["least_digest"] == least:
                    shutil.rmtree(_folder(partial, number))
            results = _run(runner, partial, len(job["units"]), progress)
        _check_text(data, results)
        summary = _summary(data, results)
        metadata = {"format_version": dataset.FORMAT_VERSION, "tokenizer_digest": vocabulary.digest}
        metadata |= {"vocab_size": vocabulary.vocab_size, "settings": job["settings"], "summary": summary}
        os.replace(_finish(partial, results, metadata), directory)  # works on an empty directory, too
        shutil.rmtree(partial)
    except OSError as error:
        raise _storage_error(error, directory) from error
    return summary


def local(workers: int) -> Runner:
    """`workers` processes on this machine (0 = one per core); a single one is this process."""

    def run(folder: Path, numbers: list[int]) -> Iterator[int]:
        count = min(workers or os.cpu_count() or 1, len(numbers))
        if count <= 1:
            for number in numbers:
                work(folder, number)
                yield number
            return
        # Spawned, not forked: the caller may hold threads and locks, such as those of jax.
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker)
        try:
            futures = {pool.submit(work, folder, number): number for number in numbers}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool:
            fix = "as happens when memory runs out; use fewer, the same command goes on"
            raise StorageError(f"data.prepare_workers = {workers}: a worker was killed, {fix}") from None
        finally:
            pool.shutdown(cancel_futures=True)

    return run


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]  # else workers outlive a killed parent
    os._exit(1)


# The job and its units ---------------------------------------------------------------------------------------------


def _start(data: DataConfig, tokenizer_path: Path, digest: str, partial: Path) -> dict:
    """The job, as `partial` holds it: the one that was begun there, if it was of the same text and settings."""
    units = corpus.units(data)
    stats = [[part.path, *_stat(part.path)] for unit in units for part in unit.parts]
    job = {
        "settings": dataset.settings(data, digest),
        "tokenizer": str(tokenizer_path.absolute()),
        "units": [asdict(unit) for unit in units],
        "files": hashlib.sha256(json.dumps(stats).encode()).hexdigest(),
    }
    job = json.loads(json.dumps(job))  # as it is read back
    try:
        begun = json.loads((partial / _JOB).read_text())
        if {name: begun.get(name) for name in job} == job:
            return begun
    except (OSError, ValueError):
        pass
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    job["holdout_below"] = int(data.holdout * 2**64)
    _write(partial / _JOB, job)
    return job


def _stat(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
        return stat.st_size, stat.st_mtime_ns
    except OSError:  # not a file: a name of TFDS, the built-in corpus
        return 0, 0


def _run(runner: Runner, partial: Path, units: int, progress: Callable[[int, int], None]) -> list[dict]:
    """The result of each unit, in order; those that are not there yet are made by `runner`."""
    missing = [number for number in range(units) if _result(partial, number) is None]
    progress(units - len(missing), units)
    for done, _ in enumerate(runner(partial, missing), start=units - len(missing) + 1):
        progress(done, units)
    results = [_result(partial, number) for number in range(units)]
    if None in results:
        raise StorageError(f"{_folder(partial, results.index(None))}: is missing; all workers must see this directory")
    return [result for result in results if result is not None]


def _folder(partial: Path, number: int) -> Path:
    return partial / f"unit-{number:07d}"


def _result(partial: Path, number: int) -> dict | None:
    """What `work` left of a unit; None if it is not there whole."""
    folder = _folder(partial, number)
    try:
        result = json.loads((folder / _RESULT).read_text())
        whole = all((folder / name).stat().st_size == file["size"] for name, file in result["shards"].items())
    except (OSError, ValueError, KeyError):
        return None
    return result if whole else None


@lru_cache(maxsize=1)
def _opened(folder: Path, job: str) -> tuple[dict, DataConfig, tokenizer.Tokenizer]:
    content = json.loads(job)
    chosen = {name: content["settings"][name] for name in dataset.SETTINGS}
    data = DataConfig(**chosen | {"source": tuple(chosen["source"])})
    return content, data, tokenizer.load(content["tokenizer"], lower_case=data.lower_case)


def work(folder: Path, number: int) -> None:
    """Tokenise unit `number` of the job in `folder`; its result is there afterwards, or an error was raised."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the units are the parallelism
    folder = Path(folder)
    temporary = folder / f"{uuid.uuid4().hex}.tmp"  # Beam may run a unit twice at a time
    try:
        job, data, vocabulary = _opened(folder, (folder / _JOB).read_text())
        if vocabulary.digest != job["settings"]["tokenizer_digest"]:
            raise DataError(f"data.tokenizer = {job['tokenizer']!r}: has changed; run `bertjax prepare` again")
        temporary.mkdir()
        unit = job["units"][number]
        parts = tuple(corpus.Part(**part) for part in unit["parts"])
        result = shards.write_unit(
            temporary, data, vocabulary, corpus.Unit(unit["source"], parts), job["holdout_below"]
        )
        _write(temporary / _RESULT, result)
        if _result(folder, number) is None:
            shutil.rmtree(_folder(folder, number), ignore_errors=True)
            temporary.rename(_folder(folder, number))
    except RuntimeError as error:  # of ArrayRecord
        raise StorageError(f"{folder}: cannot be written ({one_line(error)}); check the disk, then go on") from error
    except OSError as error:
        raise _storage_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _storage_error(error: OSError, directory: Path) -> StorageError:
    fix = "check the disk and its permissions; what is finished stays, the same command goes on"
    return StorageError(f"{error.filename or directory}: cannot be written ({error.strerror or error}); {fix}")


# The whole ---------------------------------------------------------------------------------------------------------


def _total(results: list[dict], key: str, *splits: str) -> int:
    return sum(result["splits"][split][key] for result in results for split in splits or SPLITS)


def _check_text(data: DataConfig, results: list[dict]) -> None:
    if not _total(results, "tokens"):
        for _ in corpus.documents(data):  # reads it once more, and says what it found instead of text
            break
        raise DataError(f"data.source = {data.source}: not one token of text; name files with text")
    if not _total(results, "tokens", "train"):
        fix = "lower it, or name more documents"
        raise DataError(f"data.holdout = {data.holdout}: leaves no document to train on; {fix}")


def _summary(data: DataConfig, results: list[dict]) -> dict:
    keys = ("documents", "sentences", "tokens", "unknown")
    counts = sum((Counter(result["counts"]) for result in results), Counter[str]())
    splits = {name: {key: _total(results, key, name) for key in keys} for name in SPLITS}
    sources = [
        {
            "source": entry,
            "documents": {
                split: _total([r for r in results if r["source"] == number], "documents", split) for split in SPLITS
            },
        }
        for number, entry in enumerate(corpus.sources(data))
    ]
    skipped = {reason: n for reason, n in sorted(counts.items()) if n and reason not in ("documents", "sentences")}
    return {key: _total(results, key) for key in keys} | {"splits": splits, "sources": sources, "skipped": skipped}


def _finish(partial: Path, results: list[dict], metadata: dict) -> Path:
    """Join the index, name the shards as TFDS does and write what lies beside them; returns the finished folder."""
    import tensorflow_datasets as tfds  # here, because it takes most of a worker's start

    target = partial / "finished"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    folders = [_folder(partial, number) for number in range(len(results))]
    counts = np.zeros(metadata["vocab_size"], np.int64)
    for folder in folders:
        counts += np.load(folder / "token_counts.npy", allow_pickle=False)
    np.save(target / "token_counts.npy", counts)
    template = tfds.core.ShardedFileTemplate(target, dataset_name="bertjax", filetype_suffix="array_record")
    files: dict[str, dict] = {}
    splits = []
    for split in SPLITS:
        for part in INDEX:
            _join(target / f"{split}.{part}.npy", [folder / f"{split}.{part}" for folder in folders], part)
        present = [(f, r) for f, r in zip(folders, results, strict=True) if r["splits"][split]["records"]]
        for number, (folder, result) in enumerate(present):
            name = f"bertjax-{split}.array_record-{number:05d}-of-{len(present):05d}"
            os.rename(folder / f"{split}.array_record", target / name)
            files[name] = result["shards"][f"{split}.array_record"]
        if present:
            records = [result["splits"][split]["records"] for _, result in present]
            size = _total(results, "record_bytes", split)
            splits.append(tfds.core.SplitInfo(split, records, size, filename_template=template.replace(split=split)))
    features = dataset.features_of(metadata["vocab_size"])
    version = f"{dataset.FORMAT_VERSION}.0.0"
    tfds.folder_dataset.write_metadata(
        data_dir=target,
        features=features,
        split_infos=splits,
        version=version,
        filename_template=template,
        check_data=False,
    )
    files |= {path.name: dataset.checksum(path) for path in sorted(target.glob("*.npy"))}
    _write(target / dataset.METADATA, metadata | {"files": files})
    return target


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


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
