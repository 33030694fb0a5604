"""Records to tokens with labels at them.

Shape letters: N records of a block, n all tokens of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bertjax import console
from bertjax.config.task_fields import TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.labelled.example import Example, Frame
from bertjax.labelled.records import Record
from bertjax.labelled.windows import parts_of_contexts, parts_of_sentences

BLOCK = 4096
"""Records that are tokenised at a time: what a tokenizer returns is much larger than what is kept of it."""


def encode(
    records: Sequence[Record],
    task: TaskConfig,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    token_types: bool,
    quiet: bool = False,
) -> list[Example]:
    """The examples of records, in their order, each of at most `seq_len` tokens.

    The labels of the records are among `labels`, which `labels.check` holds. A text or a pair is one example, and cut
    if it is longer, which is said unless `quiet`. A sentence (tag) or a context (span) that is longer is several
    examples, so that nothing of it is lost. The endings of a question (choice) are one example each, and share
    `seq_len` evenly.

    Without `token_types` these are all 0. Takes about 5 seconds for 100,000 sentences of SST-2.
    """
    frame = Frame(tokenizer.special, token_types)
    index = {label: number for number, label in enumerate(labels)}
    examples: list[Example] = []
    cut = 0
    for first in range(0, len(records), BLOCK):
        block = records[first : first + BLOCK]
        if task.kind == "tag":
            examples += parts_of_sentences(block, first, index, tokenizer, frame, seq_len)
        elif task.kind == "span":
            examples += parts_of_contexts(block, first, task, tokenizer, frame, seq_len)
        else:
            limit = seq_len // (len(block[0].texts) - 1) if task.kind == "choice" else seq_len
            kept, tokens = _texts(block, task.kind, tokenizer, limit)
            cut += kept
            examples += _framed(block, first, task.kind, index, tokens, frame)
    if cut and not quiet:
        of = f" / {len(task.endings)} endings" if task.kind == "choice" else ""
        console.say(f"{cut:,} of {len(examples):,} examples are longer than data.seq_len = {seq_len}{of}, and are cut")
    return examples


def _texts(
    block: Sequence[Record], kind: str, tokenizer: Tokenizer, limit: int
) -> tuple[int, list[tuple[np.ndarray, ...]]]:
    """How many examples are cut to `limit`, and the tokens of each: of its text, or of its two."""
    first = [record.texts[0] for record in block]
    if kind != "choice" and len(block[0].texts) == 1:
        tokens = split(tokenizer, first)
        return sum(len(text) > limit - 2 for text in tokens), [(text[: limit - 2],) for text in tokens]
    seconds = [record.texts[1:] for record in block]
    repeated = [text for text, others in zip(split(tokenizer, first), seconds, strict=True) for _ in others]
    other = split(tokenizer, [text for others in seconds for text in others])
    pairs = list(zip(repeated, other, strict=True))
    room = limit - 3
    return sum(len(a) + len(b) > room for a, b in pairs), [_fitted(a, b, room) for a, b in pairs]


def _fitted(a: np.ndarray, b: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """BERT's: of a pair that is too long, the longer text loses its last token again and again; of equal ones, b."""
    size = min(len(a), max(room - room // 2, room - len(b)))
    return a[:size], b[: room - size]


def _framed(
    block: Sequence[Record],
    first: int,
    kind: str,
    index: dict[str, int],
    tokens: list[tuple[np.ndarray, ...]],
    frame: Frame,
) -> Iterator[Example]:
    taken = iter(tokens)
    for number, record in enumerate(block, first):
        label: float
        if kind == "regress":
            label = np.nan if record.label is None else float(record.label)
        elif kind == "choice":
            label = -1 if record.label is None else int(record.label)
        else:
            label = -1 if record.label is None else index[record.label]
        for _ in record.texts[1:] if kind == "choice" else record.texts[:1]:
            texts = next(taken)
            framed = frame.one(*texts) if len(texts) == 1 else frame.two(*texts)
            yield Example(*framed, number, label)


def split(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """The tokens of each text."""
    ids_n, lengths_N = tokenizer.encode_batch(texts)
    return np.split(ids_n, np.cumsum(lengths_N)[:-1])
