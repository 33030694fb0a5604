"""One unit of text -> the shards and the parts of the index that hold its documents (`bertjax.data.dataset`)."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from array_record.python import array_record_module

from bertjax.config.schema import DataConfig
from bertjax.corpus import ids
from bertjax.corpus import units as corpus
from bertjax.data import records
from bertjax.data.dataset import INDEX, SPLITS
from bertjax.data.tokenizer import Tokenizer
from bertjax.storage import checksum

RECORD_TOKENS = 8192  # a longer document is several records
_STRETCH = 250_000  # characters that are tokenised at a time


class _SplitWriter:
    """The shard and the index of one split of one unit, written as they come."""

    def __init__(self, folder: Path, split: str, dtype: Any) -> None:
        self.shard = folder / f"{split}.array_record"
        self._writer = array_record_module.ArrayRecordWriter(str(self.shard), "group_size:1")  # for single reads
        self._index: dict[str, BinaryIO] = {part: (folder / f"{split}.{part}").open("wb") for part in INDEX}
        self._dtype = dtype
        self.totals = Counter(documents=0, sentences=0, tokens=0, records=0, record_bytes=0)

    def add(self, tokens: np.ndarray, sentence_lengths: np.ndarray, digest: int) -> None:
        ends = np.cumsum(sentence_lengths)
        start = sentence = 0
        while sentence < len(ends):  # sentences until the record is full, at least one
            after = max(sentence + 1, int(ends.searchsorted(start + RECORD_TOKENS, side="right")))
            lengths = sentence_lengths[sentence:after].astype(np.int32)
            end = int(ends[after - 1])
            record = records.encode(tokens[start:end].astype(self._dtype), lengths)
            self._writer.write(record)
            self._write("sentences", lengths)
            self._write("records", [end - start])
            self.totals.update(records=1, record_bytes=len(record))
            start, sentence = end, after
        self._write("documents", [len(ends)])
        self._write("digests", [digest])
        self.totals.update(documents=1, sentences=len(ends), tokens=start)

    def _write(self, part: str, values: Any) -> None:
        self._index[part].write(np.asarray(values, INDEX[part]).tobytes())

    def close(self) -> None:
        self._writer.close()
        for file in self._index.values():
            file.close()
        if not self.totals["records"]:
            self.shard.unlink()


def write_unit(folder: Path, data: DataConfig, tokenizer: Tokenizer, unit: corpus.Unit, holdout_below: int) -> dict:
    """Tokenise a unit into shards and parts of the index in `folder`; returns what they hold and their checksums.

    A document whose digest is below `holdout_below` is held out. Raises RuntimeError where ArrayRecord cannot write.
    """
    counts = Counter[str]()
    dtype = records.token_dtype(tokenizer.vocab_size)
    token_counts = {name: np.zeros(tokenizer.vocab_size, np.int64) for name in SPLITS}
    encode = ids.encode if data.format == "ids" else tokenizer.encode_batch
    least = 2**64
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(contextlib.closing(_SplitWriter(folder, name, dtype))) for name in SPLITS}
        for stretch in _stretches(corpus.read(unit, data, counts, tokenizer)):
            counted: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
            for document, tokens, lengths in _tokenised(stretch, encode):
                if not len(tokens):
                    counts["documents_without_tokens"] += 1
                    continue
                # By its text, so that copies of a document are on one side, and nothing held out was trained on.
                digest = _digest(document)
                split = "validation" if digest < holdout_below else "train"
                least = min(least, digest)
                writers[split].add(tokens, lengths[lengths > 0], digest)
                counted[split].append(tokens)
            for name, found in counted.items():
                if found:  # all at once, because each count is as long as the vocabulary
                    token_counts[name] += np.bincount(np.concatenate(found), minlength=tokenizer.vocab_size)
    unknown = {name: int(token_counts[name][tokenizer.special.unk]) for name in SPLITS}
    np.save(folder / "token_counts.npy", token_counts["train"])
    shards = {w.shard.name: checksum(w.shard) for w in writers.values() if w.totals["records"]}
    totals = {name: dict(writer.totals) | {"unknown": unknown[name]} for name, writer in writers.items()}
    return {"source": unit.source, "splits": totals, "shards": shards, "counts": counts, "least_digest": least}


def _tokenised(
    documents: list[list[str]], encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Each document with its tokens and the length of each of its sentences; all are encoded at once."""
    # With the space before it, which is a part of the first word in byte-level BPE and nothing in other kinds.
    sentences = [" " * (i > 0) + sentence for document in documents for i, sentence in enumerate(document)]
    tokens_n, lengths_S = encode(sentences)
    token_ends_S1 = np.concatenate(([0], np.cumsum(lengths_S)))
    first = 0
    for document in documents:
        after = first + len(document)
        yield document, tokens_n[token_ends_S1[first] : token_ends_S1[after]], lengths_S[first:after]
        first = after


def _stretches(documents: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    stretch: list[list[str]] = []
    characters = 0
    for document in documents:
        stretch.append(document)
        characters += sum(map(len, document))
        if characters >= _STRETCH:
            yield stretch
            stretch, characters = [], 0
    if stretch:
        yield stretch


def _digest(document: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\n".join(document).encode(), digest_size=8).digest(), "little")
