"""Packing: which examples share a row, decided before any is built, from their lengths alone.

Best fit decreasing on the histogram of lengths, after Krell et al., "Efficient Sequence Packing without
Cross-contamination" (arXiv 2107.02027): all rows that hold the same lengths are one pattern with a count, so the cost
of the search depends on how many different lengths there are, not on how many examples.

Where long examples leave gaps that no short one is left for, `fill` cuts a few examples into parts that fit them.

Shape letters: N examples, b of a block of them, R rows, l lengths from 0 to the row's, P pieces.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass

import numpy as np

Pattern = tuple[tuple[int, int], ...]  # what a row holds: (length, how many of it), longest first

_BLOCK = 1 << 18  # examples that are sorted at a time
_SMALLEST_GAP = 6  # the part of a row below which a gap is left


@dataclass(frozen=True)
class Rows:
    """Row r holds the examples example_N[first_R1[r] : first_R1[r + 1]]."""

    first_R1: np.ndarray  # int64 [R + 1]
    example_N: np.ndarray  # int64 [N] every example once

    def __len__(self) -> int:
        return len(self.first_R1) - 1


def pack(lengths_N: np.ndarray, *, row_length: int, most: int, seed: int) -> Rows:
    """Put examples of `lengths_N` (1..row_length) into rows of `row_length` positions, at most `most` in a row.

    Which of the examples of one length shares a row with which of another is drawn from `seed`, so that a row is not
    made of neighbours; rows of equal pattern follow each other. With most = 1 each example has a row, in order.

    Takes about 0.06 seconds and 35 MB a million examples, and 0.01 seconds more.
    """
    N = len(lengths_N)
    if most == 1:
        return Rows(np.arange(N + 1), np.arange(N))
    examples_l = _by_length(np.asarray(lengths_N, np.min_scalar_type(row_length)), row_length)
    count_l = [len(examples) for examples in examples_l]
    shortest = next((length for length, count in enumerate(count_l) if count), 0)
    rng = np.random.default_rng(seed)
    for examples in examples_l[: row_length - shortest + 1]:  # longer ones are alone in their rows
        rng.shuffle(examples)
    used_l = [0] * (row_length + 1)
    parts, sizes = [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    for rows, pattern in _patterns(count_l, row_length, most):
        columns = []
        for length, copies in pattern:
            start = used_l[length]
            used_l[length] += rows * copies
            columns.append(examples_l[length][start : used_l[length]].reshape(rows, copies))
        parts.append(np.concatenate(columns, axis=1).ravel())
        sizes.append(np.full(rows, sum(copies for _, copies in pattern)))
    return Rows(np.cumsum(np.concatenate(sizes)), np.concatenate(parts))


def fill(
    rows: Rows, lengths_N: np.ndarray, first_N1: np.ndarray, piece_starts_P1: np.ndarray, *, row_length: int, most: int
) -> tuple[list[int], Rows]:
    """Cut some examples that have a row of their own at pieces, and put the parts into gaps of other rows.

    Example i is the pieces first_N1[i] to first_N1[i + 1], which begin at the tokens piece_starts_P1. Returns the
    pieces at which examples are cut, ascending, and the rows of the examples as they then are, numbered by their
    pieces. With articles in rows of 512, one or two in a hundred are cut, and 0.977 of the slots used become 0.995.

    A part takes three special tokens. Gaps below a sixth of a row stay: to fill them would cut many examples up small.
    """
    sizes_R = np.diff(rows.first_R1)
    room_R = row_length - np.add.reduceat(lengths_N[rows.example_N], rows.first_R1[:-1])
    gap_R = np.flatnonzero((room_R >= row_length // _SMALLEST_GAP) & (sizes_R < most))
    gaps = sorted(zip(room_R[gap_R].tolist(), gap_R.tolist(), strict=True))
    full_R = np.flatnonzero((sizes_R == 1) & (room_R == 0))
    # Evenly spread, so that no stretch of the text is cut up more than another.
    count = min(len(full_R), sum(room for room, _ in gaps) // row_length)
    donors_R = full_R[np.linspace(0, len(full_R) - 1, count).astype(np.int64)]
    cuts: list[int] = []
    homes: dict[int, list[int]] = {}  # example -> the rows of its parts
    for example in rows.example_N[rows.first_R1[donors_R]].tolist():
        low, high = int(first_N1[example]), int(first_N1[example + 1])
        parts = _into_gaps((piece_starts_P1[low : high + 1] - piece_starts_P1[low]).tolist(), gaps)
        cuts += [low + end for end, _ in parts[:-1]]
        if parts:
            homes[example] = [row for _, row in parts]
    return sorted(cuts), _moved(rows, homes)


def _into_gaps(starts: list[int], gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(piece at which it ends, row) of each part of an example, the gaps taken out of `gaps`; [] if they do not do."""
    parts, taken = [], []
    at, last = 0, len(starts) - 1
    while at < last and gaps:
        # The least gap that holds all that is left, or the largest there is.
        gap = gaps.pop(min(bisect_left(gaps, (starts[last] - starts[at] + 3,)), len(gaps) - 1))
        taken.append(gap)
        end = bisect_right(starts, starts[at] + gap[0] - 3) - 1
        if end == at:
            break
        parts.append((end, gap[1]))
        at = end
    if at == last:
        return parts
    for gap in taken:
        insort(gaps, gap)
    return []


def _moved(rows: Rows, homes: dict[int, list[int]]) -> Rows:
    """The rows with the parts of some examples in other rows, and examples numbered with the parts counted."""
    more_N = np.zeros(len(rows.example_N), np.int64)
    for example, parts in homes.items():
        more_N[example] = len(parts) - 1
    number_N = np.arange(len(more_N)) + np.cumsum(more_N) - more_N
    row_N = np.repeat(np.arange(len(rows)), np.diff(rows.first_R1))
    stays = np.ones(len(more_N), bool)
    stays[list(homes)] = False
    stays = stays[rows.example_N]
    moved = [(row, int(number_N[e]) + part) for e, parts in homes.items() for part, row in enumerate(parts)]
    moved_rows, moved_examples = np.array(moved, np.int64).reshape(-1, 2).T
    row_N = np.concatenate((row_N[stays], moved_rows))
    example_N = np.concatenate((number_N[rows.example_N[stays]], moved_examples))
    order_N = np.argsort(row_N, kind="stable")
    sizes_R = np.bincount(row_N, minlength=len(rows))
    return Rows(np.concatenate(([0], np.cumsum(sizes_R[sizes_R > 0]))), example_N[order_N])


def density(lengths_N: np.ndarray, rows: Rows, row_length: int) -> float:
    """Share of the positions of one or more rows that hold an example's token."""
    return int(np.sum(lengths_N, dtype=np.int64)) / (len(rows) * row_length)


def _by_length(lengths_N: np.ndarray, longest: int) -> list[np.ndarray]:
    """The examples of each length 0..longest, ascending. In blocks, because a sort that leaves the cache is slower."""
    found_l: list[list[np.ndarray]] = [[np.zeros(0, np.int64)] for _ in range(longest + 1)]
    for start in range(0, len(lengths_N), _BLOCK):
        lengths_b = lengths_N[start : start + _BLOCK]
        order_b = np.argsort(lengths_b, kind="stable") + start  # a radix sort, for types of up to 16 bits
        ends_l = np.cumsum(np.bincount(lengths_b, minlength=longest + 1))
        for found, part in zip(found_l, np.split(order_b, ends_l[:-1]), strict=True):
            found.append(part)
    return [np.concatenate(found) for found in found_l]


def _patterns(count_l: list[int], row_length: int, most: int) -> list[tuple[int, Pattern]]:
    """(how many rows, what each holds), such that count_l[length] examples of each length are used.

    Longest first, each example goes where it leaves least room. Rows alike are filled alike, so one step serves many
    examples: of a length, each pattern but the last is used up or left as it was.
    """
    full: list[tuple[int, Pattern]] = []
    open_: list[tuple[int, int, int, Pattern]] = []  # room, places, rows, pattern; least room first
    for length in range(row_length, 0, -1):
        left = count_l[length]
        while left:
            at = bisect_left(open_, (length,))
            room, places, rows, pattern = open_.pop(at) if at < len(open_) else (row_length, most, left, ())
            copies = min(room // length, places, left)
            used = min(rows, left // copies)
            if used < rows and pattern:
                insort(open_, (room, places, rows - used, pattern))
            room, places, pattern = room - copies * length, places - copies, (*pattern, (length, copies))
            if room and places:
                insort(open_, (room, places, used, pattern))
            else:
                full.append((used, pattern))
            left -= used * copies
    return full + [(rows, pattern) for _, _, rows, pattern in open_]
