"""Documents -> a prepared data set (`bertjax.data.dataset`): tokenised in parallel, written whole or not at all."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

from bertjax.config import DataConfig
from bertjax.data import corpus, tokenizer
from bertjax.data.dataset import FORMAT_VERSION, SPLITS, features_of, one_line, settings, token_dtype
from bertjax.errors import DataError, StorageError

_UNIT_DOCUMENTS = 1000
_UNIT_CHARACTERS = 4_000_000


def prepare(
    data: DataConfig,
    tokenizer_path: Path,
    directory: Path,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Tokenise `data.source` into `directory`, whole or not at all; returns the summary that is saved with it.

    `workers` processes tokenise (0 = one per core, 1 = this process); the files are the same for any number.
    `progress(documents, tokens)` is called with the totals so far. Memory is bounded by a few units of text per worker
    and the index, four bytes a sentence. Raises StorageError where `directory` has content or cannot be written.
    """
    directory, partial = Path(directory), Path(f"{directory}.partial")
    vocabulary = tokenizer.load(tokenizer_path, lower_case=data.lower_case)
    token_counts = np.zeros(vocabulary.vocab_size, np.int64)
    shards: dict[str, list[_Shard]] = {name: [] for name in SPLITS}
    counts, totals = Counter[str](), Counter[str]()
    try:
        if directory.exists() and any(directory.iterdir()):
            raise StorageError(f"{directory}: is not empty; delete it or set data.prepared to another directory")
        if partial.exists():  # left by a run that was stopped
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        units = _units(data, counts)
        for split, shard, counted in _tokenised(units, tokenizer_path, data.lower_case, partial, workers):
            if shard.documents:
                shards[split].append(shard)
            if split == "train":
                token_counts += counted
            totals.update(documents=shard.documents, tokens=shard.tokens, dropped_documents=shard.dropped)
            if progress:
                progress(totals["documents"], totals["tokens"])
        if not shards["train"]:
            raise DataError(f"data.source = {data.source!r}: not one token of training text; name files with text")
        skipped = {name: counts[name] for name in ("empty_documents", "unparsable_files")}
        summary = _summary(shards) | skipped | {"dropped_documents": totals["dropped_documents"]}
        metadata = {"format_version": FORMAT_VERSION, "tokenizer_digest": vocabulary.digest, "summary": summary}
        metadata |= {"vocab_size": vocabulary.vocab_size, "settings": settings(data, vocabulary.digest)}
        _finish(partial, shards, token_counts, metadata)
        os.replace(partial, directory)  # works on an empty directory, too
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error}); check the disk and its permissions"
        raise StorageError(f"{error.filename or directory}: {problem}") from error
    except BrokenProcessPool:
        fix = "as happens when memory runs out; use fewer"
        raise StorageError(f"data.prepare_workers = {workers}: a worker was killed, {fix}") from None
    return summary


def _split_of(document: int, holdout: float) -> str:
    # The first two documents are dealt by hand, so that no split of a small corpus is empty.
    if document < 2 or holdout == 0.0:
        return "validation" if document == 1 and holdout > 0.0 else "train"
    digest = hashlib.blake2b(document.to_bytes(8, "little"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "little") < holdout * 2**64 else "train"


def _units(data: DataConfig, counts: Counter) -> Iterator[tuple[str, list[list[str]]]]:
    """Documents of one split, grouped by number and size alone, so that shards do not depend on the workers."""
    units: dict[str, list[list[str]]] = {name: [] for name in SPLITS}
    characters: Counter = Counter()
    for document, sentences in enumerate(corpus.documents(data, counts)):
        split = _split_of(document, data.holdout)
        units[split].append(sentences)
        characters[split] += sum(map(len, sentences))
        if len(units[split]) == _UNIT_DOCUMENTS or characters[split] >= _UNIT_CHARACTERS:
            yield split, units[split]
            units[split], characters[split] = [], 0
    yield from ((split, unit) for split, unit in units.items() if unit)


@dataclass(frozen=True)
class _Shard:
    """A file that a worker wrote, and its part of the index. There is no file if it would hold no document."""

    path: Path
    dropped: int  # documents without a token
    record_bytes: int
    document_sentences: np.ndarray  # int64 [documents]
    sentence_lengths: np.ndarray  # int32 [sentences]

    @property
    def documents(self) -> int:
        return self.document_sentences.size

    @property
    def tokens(self) -> int:
        return int(self.sentence_lengths.sum(dtype=np.int64))


def _tokenised(
    units: Iterator[tuple[str, list[list[str]]]], tokenizer_path: Path, lower_case: bool, folder: Path, workers: int
) -> Iterator[tuple[str, _Shard, np.ndarray]]:
    """(split, shard, token counts) of each unit, in order, with at most two units in flight for each worker."""
    workers = workers or os.cpu_count() or 1
    jobs = ((split, unit, folder / f"unit-{number:07d}") for number, (split, unit) in enumerate(units))
    if workers == 1:
        vocabulary = tokenizer.load(tokenizer_path, lower_case=lower_case)
        yield from ((split, *_write_shard(vocabulary, unit, path)) for split, unit, path in jobs)
        return
    # Spawned, not forked: the caller may hold threads and locks, such as those of jax.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (tokenizer_path, lower_case))
    pending: deque[tuple[str, Future[tuple[_Shard, np.ndarray]]]] = deque()
    try:
        for split, unit, path in jobs:
            pending.append((split, pool.submit(_work, unit, path)))
            if len(pending) >= 2 * workers:
                split, future = pending.popleft()
                yield split, *future.result()
        while pending:
            split, future = pending.popleft()
            yield split, *future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker_tokenizer: tokenizer.Tokenizer


def _start_worker(tokenizer_path: Path, lower_case: bool) -> None:
    global _worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # this process is the parallelism
    _worker_tokenizer = tokenizer.load(tokenizer_path, lower_case=lower_case)


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]  # else workers outlive a killed parent
    os._exit(1)


def _work(unit: list[list[str]], path: Path) -> tuple[_Shard, np.ndarray]:
    return _write_shard(_worker_tokenizer, unit, path)


def _write_shard(vocabulary: tokenizer.Tokenizer, unit: list[list[str]], path: Path) -> tuple[_Shard, np.ndarray]:
    features = features_of(vocabulary.vocab_size)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    lengths: list[np.ndarray] = []
    token_counts = np.zeros(vocabulary.vocab_size, np.int64)
    record_bytes = 0
    try:
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")  # for reads of single records
        for sentences in unit:
            encoded = [ids for ids in vocabulary.encode_batch(sentences) if ids.size]
            if not encoded:
                continue
            tokens = np.concatenate(encoded)
            lengths.append(np.array([ids.size for ids in encoded], np.int32))
            example = {"tokens": tokens.astype(token_dtype(vocabulary.vocab_size)), "sentence_lengths": lengths[-1]}
            # Deterministic, because protobuf otherwise orders a map differently in each process.
            record = serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)
            writer.write(record)
            record_bytes += len(record)
            token_counts += np.bincount(tokens, minlength=token_counts.size)
        writer.close()
        if not lengths:
            path.unlink()
    except RuntimeError as error:
        raise StorageError(f"{path}: cannot be written ({one_line(error)}); check the disk") from error
    counts = np.array([part.size for part in lengths], np.int64)
    all_lengths = np.concatenate([np.zeros(0, np.int32), *lengths])
    return _Shard(path, len(unit) - len(lengths), record_bytes, counts, all_lengths), token_counts


def _summary(shards: dict[str, list[_Shard]]) -> dict:
    splits: dict[str, dict[str, int]] = {}
    for name, parts in shards.items():
        sentences = sum(shard.sentence_lengths.size for shard in parts)
        documents, tokens = sum(shard.documents for shard in parts), sum(shard.tokens for shard in parts)
        splits[name] = {"documents": documents, "sentences": sentences, "tokens": tokens, "shards": len(parts)}
    totals = {key: sum(split[key] for split in splits.values()) for key in ("documents", "sentences", "tokens")}
    return totals | {"splits": splits}


def _finish(folder: Path, shards: dict[str, list[_Shard]], token_counts: np.ndarray, metadata: dict) -> None:
    """Name the shards as TFDS does and write what lies beside them."""
    template = tfds.core.ShardedFileTemplate(folder, dataset_name="bertjax", filetype_suffix="array_record")
    index = {"token_counts": token_counts}
    sizes: dict[str, int] = {}
    splits = []
    for name, parts in shards.items():
        sentences = np.concatenate([np.zeros(1, np.int64), *(shard.document_sentences for shard in parts)])
        lengths = np.concatenate([np.zeros(0, np.int32), *(shard.sentence_lengths for shard in parts)])
        index |= {f"{name}_document_offsets": np.cumsum(sentences), f"{name}_sentence_lengths": lengths}
        for number, shard in enumerate(parts):
            path = folder / f"bertjax-{name}.array_record-{number:05d}-of-{len(parts):05d}"
            shard.path.rename(path)
            sizes[path.name] = path.stat().st_size
        if parts:
            documents, size = [shard.documents for shard in parts], sum(shard.record_bytes for shard in parts)
            splits.append(tfds.core.SplitInfo(name, documents, size, filename_template=template.replace(split=name)))
    features, version = features_of(metadata["vocab_size"]), f"{FORMAT_VERSION}.0.0"
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        version=version,
        filename_template=template,
        check_data=False,
    )
    np.savez(folder / "index.npz", allow_pickle=False, **index)
    (folder / "bertjax.json").write_text(json.dumps(metadata | {"shards": sizes}, indent=2) + "\n", encoding="utf-8")
