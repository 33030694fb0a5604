"""Planning: which stretches of a split each example of an epoch holds, from the lengths of its sentences alone.

`plan` walks a split once and cuts it into the examples of one epoch, by the rule of `data.examples`:

nsp, sop         A and B from one chunk of a document, with a label: BERT's next sentence prediction and ALBERT's
                 sentence order. Where to cut, what to swap and what to replace is drawn at each use.
full_sentences   as many sentences as a row takes, across documents, with a [SEP] between two documents; RoBERTa's.
doc_sentences    the same, but an example ends with its document.

Every token of the split is in exactly one chunk of an epoch. Deliberate differences from BERT's and ALBERT's builders,
for `nsp` and `sop` (`data.original_flaws` brings the originals back, see `bertjax.data.original`):

- The shorter target length is drawn for each example; there for each document.
- A sentence longer than a row is cut into several pieces; there all of it but one row is lost.
- A chunk of one piece has one segment and no label. There it gets a random B and label 1, which in SOP the topic gives
  away, and which in NSP lifts the rate of label 1 above one half.
- A chunk whose B is replaced does not give its unused sentences back, so every chunk is one example of every epoch.
- A random B is never in A's own document, and is as long as the B that it replaces: the lengths of an epoch are known
  before it is built, and the length of an example does not tell its label.

Shape letters: S sentences, D documents, P pieces, N examples, b pieces of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data import original
from bertjax.errors import DataError

_TRIES = 4  # draws of a random B that is not to be truncated, of which the best is kept
_FITS = 2  # with this many tokens less than the B that it replaces, a draw is good enough to be the last
BLOCK = 1 << 20  # pieces whose successors `plan` holds as Python integers at a time: about 40 MB


@dataclass(frozen=True)
class Sentences:
    """Examples of one segment: example i is the tokens [first_N1[i], first_N1[i + 1]) of the split."""

    lengths_N: np.ndarray  # int32 [N] positions of a row that each takes
    first_N1: np.ndarray  # int64 [N + 1]
    document_tokens_D1: np.ndarray  # int64 [D + 1] first token of each document, then the end

    def __len__(self) -> int:
        return len(self.lengths_N)


@dataclass(frozen=True)
class Pairs:
    """Examples of two segments: example i is cut from the pieces [first_N1[i], first_N1[i + 1]) of one document.

    A piece is a sentence, or `longest` tokens of one: a longer sentence is cut every `longest` tokens from its start.
    """

    lengths_N: np.ndarray  # int32 [N] positions of a row that each takes at most
    first_N1: np.ndarray  # int64 [N + 1] first piece of each chunk, then P
    document_pieces_D1: np.ndarray  # int64 [D + 1] first piece of each document, then P
    piece_starts_P1: np.ndarray  # int64 [P + 1] first token of each piece, then the end
    longest: int  # tokens of A and B together
    swap: bool  # label 1 swaps A and B (sop); otherwise it replaces B (nsp)

    def __len__(self) -> int:
        return len(self.lengths_N)

    def segments(self, index: int, rng: np.random.Generator) -> tuple[int, int, int, int, int]:
        """First token of A, its end, the same of B (empty if the chunk is one piece), and the label."""
        starts_P1 = self.piece_starts_P1
        first, last = int(self.first_N1[index]), int(self.first_N1[index + 1])
        begin, end = int(starts_P1[first]), int(starts_P1[last])
        if last - first == 1:
            return begin, end, end, end, 0
        middle = int(starts_P1[first + int(rng.integers(1, last - first))])
        if rng.random() >= 0.5:
            return begin, middle, middle, end, 0
        if self.swap:
            return middle, end, begin, middle, 1
        return begin, middle, *self._random_next(first, end - middle, end - begin > self.longest, rng), 1

    def recut(self, cuts: list[int]) -> Pairs:
        """The same text in more examples: chunks also end at these pieces, where none did."""
        # Stable, which for two sorted runs is a merge: a hundred times faster than np.union1d.
        first_N1 = np.sort(np.concatenate((self.first_N1, np.array(cuts, np.int64))), kind="stable")
        return replace(self, first_N1=first_N1, lengths_N=_pair_lengths(first_N1, self.piece_starts_P1, self.longest))

    def _random_next(self, first: int, size: int, reach: bool, rng: np.random.Generator) -> tuple[int, int]:
        """First token and end of pieces of another document, in place of a B of `size` tokens.

        If `reach`, the pair will be truncated as the true one would be, and pieces are taken until there are `size`
        tokens. If not, pieces are taken that fit in `size`, or the front of the first one if it alone is longer; of a
        few draws the one that fits best, because what it leaves of its place in a row is lost. Only a whole document
        can be much shorter, so B's length does not tell that it is random.
        """
        best = (0, 0)
        for _ in range(_TRIES):
            begin, ends = self._random_pieces(first, size, rng)
            if reach:
                return begin, int(ends[min(int(ends.searchsorted(begin + size)), len(ends) - 1)])
            whole = int(ends.searchsorted(begin + size, side="right"))
            end = int(ends[whole - 1]) if whole else begin + size
            if end - begin > best[1] - best[0]:
                best = begin, end
            if size - (best[1] - best[0]) <= _FITS:
                break
        return best

    def _random_pieces(self, first: int, size: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """First token of a random piece, and the ends of it and those behind it in its document.

        "A random sentence from the corpus" (the paper; its code draws a document first) outside the document of piece
        `first`, or one earlier, if the document would otherwise end before there are `size` tokens.
        """
        pieces_D1, starts_P1 = self.document_pieces_D1, self.piece_starts_P1
        own = int(pieces_D1.searchsorted(first, side="right"))
        own_low, own_high = int(pieces_D1[own - 1]), int(pieces_D1[own])
        piece = int(rng.integers(len(starts_P1) - 1 - (own_high - own_low)))
        piece += own_high - own_low if piece >= own_low else 0
        document = int(pieces_D1.searchsorted(piece, side="right"))
        low, high = int(pieces_D1[document - 1]), int(pieces_D1[document])
        latest = int(starts_P1[low : high + 1].searchsorted(starts_P1[high] - size, side="right")) - 1
        piece = min(piece, low + max(latest, 0))
        return int(starts_P1[piece]), starts_P1[piece + 1 : high + 1]


Plan = Sentences | Pairs | original.Fixed
"""The examples of one epoch: `len(plan)`, and `plan.lengths_N`, the positions of a row that each takes at most.

The lengths are exact but for a random B that came out shorter.
"""


def plan(document_offsets: np.ndarray, sentence_lengths: np.ndarray, data: DataConfig, *, seed: int) -> Plan:
    """The examples of a split, from where its documents begin (int64 [D + 1]) in its sentences' lengths ([S], >= 1).

    nsp, sop: pieces are added to a chunk until its target length or the document's end is reached. The target is
    seq_len - 3, or with probability `data.short_seq_prob` uniform in 2..seq_len - 3, for each chunk anew.
    full_sentences, doc_sentences: pieces are added while they fit.

    Takes time and memory linear in the sentences, whatever their documents: about 0.2 seconds a million.

    Raises DataError for nsp if there is no second document to take a random next sentence from.
    """
    if data.original_flaws:
        return original.plan(document_offsets, sentence_lengths, data, seed=seed)
    if data.examples == "nsp" and len(document_offsets) == 2:
        raise DataError(
            "data.examples = 'nsp': takes random next sentences from other documents, but there is only 1 document;"
            " set data.examples = 'sop' or prepare a corpus of more documents"
        )
    longest = data.seq_len - (3 if data.pairs else 2)
    piece_starts_P1, sentence_pieces_S1 = _cut(np.asarray(sentence_lengths), longest)
    pieces_D1 = sentence_pieces_S1[document_offsets]
    make = _pairs if data.pairs else _sentences
    return make(piece_starts_P1, pieces_D1, longest, data, seed)


def _cut(sentence_lengths_S: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The first token of each piece [P + 1] and the first piece of each sentence [S + 1], both int64."""
    token_S1 = np.concatenate(([0], np.cumsum(sentence_lengths_S, dtype=np.int64)))
    count_S = -(-sentence_lengths_S // longest)
    piece_S1 = np.concatenate(([0], np.cumsum(count_S, dtype=np.int64)))
    # Piece p of sentence s begins `longest` tokens after the one before: at token_S[s] + longest * (p - piece_S[s]).
    start_P = np.repeat(token_S1[:-1] - longest * piece_S1[:-1], count_S) + longest * np.arange(piece_S1[-1])
    return np.append(start_P, token_S1[-1]), piece_S1


def _pairs(piece_starts_P1: np.ndarray, pieces_D1: np.ndarray, longest: int, data: DataConfig, seed: int) -> Pairs:
    rng = np.random.default_rng(seed)

    def successors(piece_b: np.ndarray) -> np.ndarray:
        short_b = rng.random(len(piece_b)) < data.short_seq_prob
        target_b = np.where(short_b, rng.integers(2, longest, size=len(piece_b), endpoint=True), longest)
        reached_b = np.searchsorted(piece_starts_P1, piece_starts_P1[piece_b] + target_b)
        return np.minimum(reached_b, pieces_D1[np.searchsorted(pieces_D1, piece_b, side="right")])

    first_N1 = _walk(successors, len(piece_starts_P1) - 1)
    lengths_N = _pair_lengths(first_N1, piece_starts_P1, longest)
    return Pairs(lengths_N, first_N1, pieces_D1, piece_starts_P1, longest, swap=data.examples == "sop")


def _pair_lengths(first_N1: np.ndarray, piece_starts_P1: np.ndarray, longest: int) -> np.ndarray:
    special_N = np.where(np.diff(first_N1) == 1, 2, 3)
    return (np.minimum(np.diff(piece_starts_P1[first_N1]), longest) + special_N).astype(np.int32)


def _sentences(
    piece_starts_P1: np.ndarray, pieces_D1: np.ndarray, longest: int, data: DataConfig, seed: int
) -> Sentences:
    # Where pieces begin and end in the stream that has a [SEP] between two documents.
    document_P = np.repeat(np.arange(len(pieces_D1) - 1), np.diff(pieces_D1))
    begin_P, end_P = piece_starts_P1[:-1] + document_P, piece_starts_P1[1:] + document_P

    def successors(piece_b: np.ndarray) -> np.ndarray:
        full_b = np.searchsorted(end_P, begin_P[piece_b] + longest, side="right")
        if data.examples == "full_sentences":
            return full_b
        return np.minimum(full_b, pieces_D1[np.searchsorted(pieces_D1, piece_b, side="right")])

    first_N1 = _walk(successors, len(piece_starts_P1) - 1)
    lengths_N = (end_P[first_N1[1:] - 1] - begin_P[first_N1[:-1]] + 2).astype(np.int32)
    return Sentences(lengths_N, piece_starts_P1[first_N1], piece_starts_P1[pieces_D1])


def _walk(successors: Callable[[np.ndarray], np.ndarray], P: int) -> np.ndarray:
    """First piece of each chunk, then P; int64 [N + 1]. `successors` gives the chunk's end for any first piece.

    Where a chunk ends depends on nothing but its first piece (and a target, which is drawn for every piece as if a
    chunk began there). So the ends are found for all pieces at once, and only the walk from chunk to chunk is a loop.
    It crosses documents without a seam: one document of a million chunks costs what a million of one chunk do.
    """
    firsts = []
    at = 0
    for start in range(0, P, BLOCK):
        next_b = successors(np.arange(start, min(start + BLOCK, P))).tolist()
        chain = []
        while at < start + len(next_b):
            chain.append(at)
            at = next_b[at - start]
        firsts.append(np.array(chain, np.int64))
    return np.concatenate([*firsts, np.array([P], np.int64)])
