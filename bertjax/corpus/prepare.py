"""Documents -> a prepared data set (`bertjax.data.dataset`): in parallel, resumable, written whole or not at all.

The source is cut into units (`bertjax.corpus.units`) by its files and sizes alone. Whatever process takes a unit reads,
splits and tokenises it and leaves the result in a folder of its own, `DIRECTORY.partial/unit-NUMBER`, that appears
complete or not at all. So the files are the same for any number of workers and for Beam, a preparation that was stopped
goes on with the units that are missing, and no process holds more than a stretch of a unit. At the end the units are
assembled (`bertjax.corpus.assemble`).
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from bertjax import storage, workers
from bertjax.config.schema import DataConfig
from bertjax.corpus import shards
from bertjax.corpus import units as corpus
from bertjax.corpus.assemble import assemble, summarise, total
from bertjax.data import dataset
from bertjax.data.tokenizer import Tokenizer
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError, one_line

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
    tokenizer = load_tokenizer(tokenizer_path, lower_case=data.lower_case)
    try:
        if directory.exists() and any(directory.iterdir()):
            raise StorageError(f"{directory}: is not empty; delete it or set data.prepared to another directory")
        job = _start(data, Path(tokenizer_path), tokenizer, partial)
        results = _run(runner, partial, len(job["units"]), progress)
        least = min((result["least_digest"] for result in results), default=0)
        if data.holdout and not total(results, "documents", "validation") and total(results, "documents") > 1:
            # A small corpus may have no document under the threshold: the one nearest to it is held out.
            _write(partial / _JOB, job | {"holdout_below": least + 1})
            for number, result in enumerate(results):
                if result["least_digest"] == least:
                    shutil.rmtree(_folder(partial, number))
            results = _run(runner, partial, len(job["units"]), progress)
        _check_text(data, results)
        summary = summarise(data, results)
        metadata = {"format_version": dataset.FORMAT_VERSION, "tokenizer_digest": tokenizer.digest}
        metadata |= {"vocab_size": tokenizer.vocab_size, "settings": job["settings"], "summary": summary}
        finished = partial / "finished"
        assemble(finished, [_folder(partial, number) for number in range(len(results))], results, metadata)
        finished.replace(directory)  # works on an empty directory, too
        shutil.rmtree(partial)
    except OSError as error:
        raise _storage_error(error, directory) from error
    return summary


def local(processes: int) -> Runner:
    """That many processes on this machine (0 = one per core); a single one is this process."""

    def run(folder: Path, numbers: list[int]) -> Iterator[int]:
        count = min(processes or os.cpu_count() or 1, len(numbers))
        if count <= 1:
            for number in numbers:
                work(folder, number)
                yield number
            return
        # Spawned, not forked: the caller may hold threads and locks, such as those of jax.
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), workers.begin, ((signal.SIGINT,),))
        try:
            futures = {pool.submit(work, folder, number): number for number in numbers}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool:
            fix = "as happens when memory runs out; lower it, and the same command continues"
            raise StorageError(f"data.prepare_workers = {processes}: a worker was killed, {fix}") from None
        finally:
            pool.shutdown(cancel_futures=True)

    return run


# The job and its units ---------------------------------------------------------------------------------------------


def _start(data: DataConfig, tokenizer_path: Path, tokenizer: Tokenizer, partial: Path) -> dict:
    """The job in `partial`: the one begun there before, if it had the same text and settings, or else a new one.

    Raises StorageError for a `partial` with content but no job: no `prepare` made it.
    """
    units = corpus.units(data)
    stats = [[part.path, *_stat(part.path)] for unit in units for part in unit.parts]
    job = {
        "settings": dataset.settings(data, tokenizer),
        "tokenizer": str(tokenizer_path.absolute()),
        "units": [asdict(unit) for unit in units],
        "files": hashlib.sha256(json.dumps(stats, allow_nan=False).encode()).hexdigest(),
    }
    job = json.loads(json.dumps(job, allow_nan=False))  # as it is read back
    try:
        begun = json.loads((partial / _JOB).read_text())
        ours = job.keys() <= begun.keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if ours and {name: begun[name] for name in job} == job:
        return begun
    if ours:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    if any(path.name != f".{_JOB}" for path in partial.iterdir()):  # which a `prepare` that was killed leaves
        fix = "move it away, or set data.prepared to another directory"
        raise StorageError(f"{partial}: is needed, and is not an unfinished data set; {fix}")
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
    """What `work` left of a unit; None if it is missing or incomplete."""
    folder = _folder(partial, number)
    try:
        result, whole = storage.unseal((folder / _RESULT).read_text())
        if not whole or any((folder / name).stat().st_size != file["size"] for name, file in result["shards"].items()):
            return None
    except (OSError, ValueError):
        return None
    return result


@lru_cache(maxsize=1)
def _opened(folder: Path, job: str) -> tuple[dict, DataConfig, Tokenizer]:
    content = json.loads(job)
    chosen = {name: content["settings"][name] for name in dataset.SETTINGS}
    data = DataConfig(**chosen | {"source": tuple(chosen["source"])})
    return content, data, load_tokenizer(content["tokenizer"], lower_case=data.lower_case)


def work(folder: Path, number: int) -> None:
    """Tokenise unit `number` of the job in `folder`; its result is there afterwards, or an error was raised."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the units are the parallelism
    folder = Path(folder)
    temporary = folder / f"{uuid.uuid4().hex}.tmp"  # Beam may run a unit twice at a time
    try:
        job, data, tokenizer = _opened(folder, (folder / _JOB).read_text())
        if tokenizer.digest != job["settings"]["tokenizer_digest"]:
            raise DataError(f"data.tokenizer = {job['tokenizer']!r}: has changed; run `bertjax prepare` again")
        temporary.mkdir()
        unit = job["units"][number]
        parts = tuple(corpus.Part(**part) for part in unit["parts"])
        result = shards.write_unit(temporary, data, tokenizer, corpus.Unit(unit["source"], parts), job["holdout_below"])
        storage.write(temporary / _RESULT, storage.seal(result))
        if _result(folder, number) is None:
            shutil.rmtree(_folder(folder, number), ignore_errors=True)
            temporary.rename(_folder(folder, number))
    except RuntimeError as error:  # of ArrayRecord
        fix = "check the disk; what is finished stays, and the same command continues"
        raise StorageError(f"{folder}: cannot be written ({one_line(error)}); {fix}") from error
    except OSError as error:
        raise _storage_error(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _storage_error(error: OSError, directory: Path) -> StorageError:
    fix = "check the disk and its permissions; what is finished stays, and the same command continues"
    return StorageError(f"{error.filename or directory}: cannot be written ({error.strerror or error}); {fix}")


def _check_text(data: DataConfig, results: list[dict]) -> None:
    if not total(results, "tokens"):
        for _ in corpus.documents(data):  # reads it once more, and says what it found instead of text
            break
        raise DataError(f"data.source = {data.source}: not one token of text; name files with text")
    if not total(results, "tokens", "train") and total(results, "documents") > 1:
        fix = "lower it, or name more documents"
        raise DataError(f"data.holdout = {data.holdout}: leaves no document to train on; {fix}")
    if data.holdout and total(results, "documents") == 1:
        fix = "put blank lines between documents, or set data.format to lines if each line is one, or name more files"
        raise DataError(f"data.source = {data.source}: is a single document, of which nothing can be held out; {fix}")


def _write(path: Path, content: dict) -> None:
    storage.write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
