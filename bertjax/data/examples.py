"""Examples: which stretch of which document each one is, and how it becomes `[CLS] A [SEP] B [SEP]`.

`plan` walks a split once, from its sentence lengths alone, and cuts it into chunks; `build` turns one chunk into one
example. Where to cut A from B, what to swap and what to truncate is drawn anew each time a chunk is built.

After BERT's and ALBERT's `create_pretraining_data.py`, with three deliberate differences: the shorter target length is
drawn for each example (there: for each document); a chunk of one piece has no pair label (there: it gets a random B and
label 1, which the topic gives away and which lifts the rate of label 1 above one half); a chunk whose B is replaced
does not give its unused sentences back, so that every chunk is one example of every epoch.

Shape letters: S sentences, D documents that have tokens, P pieces, N chunks, n tokens of one document,
L of one example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertjax.errors import DataError

if TYPE_CHECKING:
    from bertjax.data.dataset import Split
    from bertjax.data.tokenizer import Special

_BLOCK = 1 << 20  # pieces whose successors `plan` holds as Python integers at a time: about 40 MB


@dataclass(frozen=True)
class Chunks:
    """A plan: chunk i is the pieces [first_N1[i], first_N1[i + 1]) and lies within one document.

    A piece is a sentence, or max_tokens of one: a sentence longer than a row is cut every max_tokens tokens from its
    start. Sentences without tokens are no pieces, and documents without tokens are left out.
    """

    first_N1: np.ndarray  # int64 [N + 1] first piece of each chunk, then P
    slot_N: np.ndarray  # int32 [N] the chunk's document, as an index into the two arrays of documents
    target_N: np.ndarray  # int32 [N] the length aimed at: a chunk ends with the piece that reaches it
    document_D: np.ndarray  # int64 [D] number of each document in its split
    document_pieces_D1: np.ndarray  # int64 [D + 1] first piece of each document, then P
    piece_starts_P1: np.ndarray  # int64 [P + 1] first token of each piece, counted over the whole split, then the end

    def __len__(self) -> int:
        return len(self.slot_N)


@dataclass(frozen=True)
class Example:
    """One unpadded example of L tokens, special tokens included, before masking."""

    tokens_L: np.ndarray  # int32 [L]
    token_types_L: np.ndarray  # int32 [L] 0 up to and including the first [SEP], then 1
    pair_label: int  # NSP: 1 = random next; SOP: 1 = swapped
    pair_weight: float  # 0.0 where there is no B, so nothing to tell


def max_tokens(seq_len: int, pair: str) -> int:
    """Tokens of text in a row of `seq_len`: what [CLS] and one [SEP] for each segment leave."""
    return seq_len - (2 if pair == "none" else 3)


def plan(
    document_offsets: np.ndarray,
    sentence_lengths: np.ndarray,
    *,
    seq_len: int,
    pair: str,
    short_seq_prob: float,
    seed: int,
) -> Chunks:
    """Cut a split greedily into chunks: pieces are added until the target length or the document's end is reached.

    The target is `max_tokens`, or with probability `short_seq_prob` uniform in 2..max_tokens, for each chunk anew.
    Every token lies in exactly one chunk. Takes time and memory linear in the sentences, whatever their documents.

    Raises DataError if `pair` is "nsp" and there is no second document to take a random next sentence from.
    """
    longest = max_tokens(seq_len, pair)
    piece_starts_P1, sentence_pieces_S1 = _cut(sentence_lengths, longest)
    pieces_D1 = sentence_pieces_S1[document_offsets]
    document_D = np.flatnonzero(np.diff(pieces_D1))
    pieces_D1 = np.append(pieces_D1[document_D], len(piece_starts_P1) - 1)
    if pair == "nsp" and len(document_D) == 1:
        raise DataError(
            "data.pair = 'nsp': takes random next sentences from other documents, but the split has only 1 document;"
            " set data.pair = 'sop' or prepare a corpus of more documents"
        )
    rng = np.random.default_rng(seed)
    first_N, target_N = _walk(piece_starts_P1, pieces_D1, longest, short_seq_prob, rng)
    return Chunks(
        first_N1=np.append(first_N, len(piece_starts_P1) - 1),
        slot_N=(np.searchsorted(pieces_D1, first_N, side="right") - 1).astype(np.int32),
        target_N=target_N,
        document_D=document_D,
        document_pieces_D1=pieces_D1,
        piece_starts_P1=piece_starts_P1,
    )


def _cut(sentence_lengths_S: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The first token of each piece [P + 1] and the first piece of each sentence [S + 1], both int64."""
    token_S1 = np.concatenate(([0], np.cumsum(sentence_lengths_S, dtype=np.int64)))
    count_S = -(-sentence_lengths_S // longest)
    piece_S1 = np.concatenate(([0], np.cumsum(count_S, dtype=np.int64)))
    within_P = np.arange(piece_S1[-1]) - np.repeat(piece_S1[:-1], count_S)  # which piece of its sentence
    start_P = np.repeat(token_S1[:-1], count_S) + longest * within_P
    return np.append(start_P, token_S1[-1]), piece_S1


def _walk(
    piece_starts_P1: np.ndarray, pieces_D1: np.ndarray, longest: int, short_seq_prob: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """First piece and target length of each chunk.

    Where a chunk ends depends on nothing but its first piece and its target. So a target is drawn for every piece, as
    if a chunk began there, the ends are found for all pieces at once, and only the walk from chunk to chunk is a loop.
    It crosses documents without a seam, because a document's end is the next one's beginning: one document of a million
    chunks costs what a million documents of one chunk do.
    """
    P = len(piece_starts_P1) - 1
    firsts, targets = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    at = 0
    for start in range(0, P, _BLOCK):
        piece_b = np.arange(start, min(start + _BLOCK, P))
        short_b = rng.random(len(piece_b)) < short_seq_prob
        target_b = np.where(short_b, rng.integers(2, longest, size=len(piece_b), endpoint=True), longest)
        reached_b = np.searchsorted(piece_starts_P1, piece_starts_P1[piece_b] + target_b)
        document_end_b = pieces_D1[np.searchsorted(pieces_D1, piece_b, side="right")]
        next_b = np.minimum(reached_b, document_end_b).tolist()
        chain = []
        while at < start + len(next_b):
            chain.append(at)
            at = next_b[at - start]
        firsts.append(np.array(chain, np.int64))
        targets.append(target_b[firsts[-1] - start].astype(np.int32))
    return np.concatenate(firsts), np.concatenate(targets)


def build(
    chunks: Chunks, index: int, split: Split, rng: np.random.Generator, *, pair: str, seq_len: int, special: Special
) -> Example:
    """The example of chunk `index`, read from `split`, with its random choices drawn from `rng`.

    A chunk of n >= 2 pieces is cut after 1..n-1 of them. With probability one half, SOP swaps the two parts, and NSP
    replaces the second by a stretch of another document. With one piece, or with pair = "none", there is no B.
    """
    first, last = chunks.first_N1[index], chunks.first_N1[index + 1]
    slot = chunks.slot_N[index]
    tokens_n, start = _document(chunks, slot, split)
    begin, end = chunks.piece_starts_P1[first] - start, chunks.piece_starts_P1[last] - start
    if pair == "none" or last - first == 1:
        a, _ = _truncate(tokens_n[begin:end], tokens_n[:0], max_tokens(seq_len, pair), rng)
        return _lay_out(a, None, 0, special)
    middle = chunks.piece_starts_P1[first + rng.integers(1, last - first)] - start
    a, b = tokens_n[begin:middle], tokens_n[middle:end]
    label = int(rng.random() < 0.5)
    if label and pair == "sop":
        a, b = b, a
    elif label:
        b = _random_next(chunks, slot, chunks.target_N[index] - len(a), split, rng)
    a, b = _truncate(a, b, max_tokens(seq_len, pair), rng)
    return _lay_out(a, b, label, special)


def _document(chunks: Chunks, slot: int, split: Split) -> tuple[np.ndarray, int]:
    """Its tokens [n], and the number of the first of them counted over the whole split."""
    return split.tokens(int(chunks.document_D[slot])), chunks.piece_starts_P1[chunks.document_pieces_D1[slot]]


def _random_next(chunks: Chunks, own_slot: int, target: int, split: Split, rng: np.random.Generator) -> np.ndarray:
    """Pieces of a uniformly drawn other document, from a uniformly drawn one on, until `target` or the end."""
    slot = int(rng.integers(len(chunks.document_D) - 1))
    slot += slot >= own_slot
    low, high = chunks.document_pieces_D1[slot], chunks.document_pieces_D1[slot + 1]
    first = rng.integers(low, high)
    starts_k = chunks.piece_starts_P1[first : high + 1]
    last = np.searchsorted(starts_k[:-1], starts_k[0] + target)  # starts_k[:-1]: at most to the document's end
    tokens_n, start = _document(chunks, slot, split)
    return tokens_n[starts_k[0] - start : starts_k[last] - start]


def _truncate(a: np.ndarray, b: np.ndarray, longest: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both shortened to `longest` tokens together, as by removing one at a time from the longer (B if equal).

    Each removed token is the front or the back one with equal probability, so the front's share is binomial.
    """
    keep_a = min(len(a), max((longest + 1) // 2, longest - len(b)))
    keep_b = min(len(b), longest - keep_a)
    front_a, front_b = rng.binomial(len(a) - keep_a, 0.5), rng.binomial(len(b) - keep_b, 0.5)
    return a[front_a : front_a + keep_a], b[front_b : front_b + keep_b]


def _lay_out(a: np.ndarray, b: np.ndarray | None, label: int, special: Special) -> Example:
    """[CLS] A [SEP] B [SEP], or [CLS] A [SEP] without a label if there is no B."""
    cls, sep = np.array([special.cls], np.int32), np.array([special.sep], np.int32)
    if b is None:
        tokens_L = np.concatenate((cls, a, sep))
        return Example(tokens_L, np.zeros(len(tokens_L), np.int32), 0, 0.0)
    tokens_L = np.concatenate((cls, a, sep, b, sep))
    token_types_L = np.zeros(len(tokens_L), np.int32)
    token_types_L[len(a) + 2 :] = 1
    return Example(tokens_L, token_types_L, label, 1.0)
