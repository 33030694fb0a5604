"""`bertjax.bench.turns`: sides work one at a time, each in a process of its own, and what they do is counted."""

import os
from functools import partial

import numpy as np
import pytest
from sides import killed, refusing, sleeper

from bertjax.bench.turns import WARM, Count, Side, Window, in_turn, ratio
from bertjax.errors import ConfigError, OutOfMemory


def test_sides_take_turns_and_are_counted(tmp_path):
    log = tmp_path / "log"
    found = in_turn({"slow": partial(sleeper, 0.5, log), "slower": partial(sleeper, 1.2, log)}, windows=2)
    assert [w.steps for w in found["slow"].windows] == [2, 2] and [w.steps for w in found["slower"].windows] == [1, 1]
    for side, seconds in (("slow", 1.0), ("slower", 1.2)):
        for window in found[side].windows:
            assert (window.tokens, window.slots) == (3 * window.steps, 4 * window.steps)
            assert seconds <= window.seconds < seconds + 0.5
    assert found["slow"].facts == {"warm": WARM, "in all": WARM + 4}
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({pid for pid, *_ in lines}) == 2 and str(os.getpid()) not in {pid for pid, *_ in lines}
    spans = sorted((float(start), float(end)) for _, start, end in lines)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)), "one works at a time"


def test_the_ratio_is_of_neighbouring_windows():
    """Where the machine becomes slower for both, it stays the same; medians of each alone would make it 3."""
    ours = Side([Window(1.0, 1, 10, 10), Window(4.0, 1, 10, 10), Window(9.0, 1, 10, 10)], {})
    theirs = Side([Window(2.0, 1, 10, 20), Window(12.0, 1, 10, 20), Window(18.0, 1, 10, 20)], {})
    assert ratio(ours, theirs) == 2.0 and ratio(theirs, ours) == 0.5
    assert ours.median(lambda w: w.seconds) == 4.0


def test_a_side_that_cannot_be_made_is_told_as_it_is():
    with pytest.raises(ConfigError, match=r"^no such side$"):
        in_turn({"a": refusing}, windows=1)
    with pytest.raises(OutOfMemory, match=r"^a: its process was killed; "):
        in_turn({"a": killed}, windows=1)


def test_padding_counts_as_slots_alone():
    assert Count.of(np.array([[1, 1, 2, 0], [1, 0, 0, 0]])) == Count(tokens=4, slots=8)
