"""`bertjax.progress`: lines where there is no terminal."""

import pytest

from bertjax import progress as module
from bertjax.progress import Progress, duration


def test_lines_go_to_standard_error(capsys):
    progress = Progress(3, start=1, unit="step", label="train")
    progress.advance()
    progress.reach(3)
    progress.say("step 3/3")
    progress.close()
    out, err = capsys.readouterr()
    assert out == "" and err == "step 3/3\n"


def test_what_is_left_is_told_by_the_pace_since_the_first_advance(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress(14, start=3, unit="step", label="train")
    assert progress.left() == ""
    now[0] = 500.0  # compiled
    progress.advance()
    assert progress.left() == ""
    for _ in range(4):
        now[0] += 10.0
        progress.advance()
    assert progress.left() == "1 min left"
    progress._bar.disable = False  # as on a terminal, where the bar says it
    assert progress.left() == ""
    progress._bar.disable = True
    progress.close()


def test_where_the_pace_is_to_change(monkeypatch):
    """Of what comes then, it is known as how many of the present units it counts; and the bar would not tell."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress(20, unit="step", label="train")
    progress.pace(10, 40.0)
    for _ in range(3):
        now[0] += 10.0
        progress.advance()
    progress._bar.disable = False  # as on a terminal
    assert progress.rest == 47.0 and progress.left() == "7 min 50 s left"
    progress._bar.disable = True
    progress.advance(7)
    progress.pace(20, 0.0)
    assert progress.rest == 10.0 and progress.left() == ""
    progress.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "0.012 s"),
        (4.26, "4.3 s"),
        (59.2, "59 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (18_125, "5 h 2 min"),
        (360_000, "4 d 4 h"),
        (86_400 * 1_234, "1,234 d"),
    ],
)
def test_a_time_for_a_person(seconds, text):
    assert duration(seconds) == text
