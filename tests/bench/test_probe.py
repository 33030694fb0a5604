"""`bertjax.bench.probe`: a few steps are timed, and not more rows than fit."""

import light
import pytest
from small import one_device_mesh, tiny

from bertjax.bench import memory, probe


@pytest.fixture
def timed(monkeypatch):
    """Rows that were timed; a step of so many takes 1 + rows seconds."""
    rows = []

    def timed(plan, state, count):
        rows.append(count)
        return state, 1.0 + count

    monkeypatch.setattr(probe, "_timed", timed)
    mesh = one_device_mesh(tiny())
    monkeypatch.setattr(memory.sharding, "make_mesh", lambda *given: mesh)
    monkeypatch.setattr(memory, "pretraining", light.task)
    return rows


@pytest.mark.parametrize(
    ("seconds", "most", "rows", "expected"),
    [
        (1000.0, 8, [1, 8], 9.0),  # the whole batch
        (1000.0, 3, [1, 3], 9.0),  # as many as fit: the rest follows from the line
        (32.0, 8, [1, 4], 9.0),  # as many as there is time for
        (1.0, 8, [1], 16.0),  # no time: as the fewest, and so a little too much
    ],
)
def test_the_time_of_a_batch(timed, monkeypatch, seconds, most, rows, expected):
    monkeypatch.setattr(probe, "SECONDS", seconds)
    found, of = probe.seconds_per_step(memory.plan(tiny()), most)
    assert timed == rows and of == rows[-1] and found == pytest.approx(expected)
