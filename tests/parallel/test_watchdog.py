"""`bertjax.parallel.watchdog`: what hangs ends with its stacks, and what only rests does not."""

import subprocess
import sys

import pytest

from bertjax.errors import PeerError
from bertjax.parallel.watchdog import Watchdog

PROGRAM = """
import threading, time
from bertjax.parallel.watchdog import Watchdog

def nobody_comes():
    threading.Event().wait()

with Watchdog({limit}) as watchdog:
    for step in range(4):
        watchdog.alive(f"step {{step}}")
        time.sleep({pause})
    {then}
print("done")
"""


def ended(*, limit, pause=0.1, then="pass"):
    program = PROGRAM.format(limit=limit, pause=pause, then=then)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_a_hang_ends_with_the_stacks_of_all_threads():
    found = ended(limit=1, then="nobody_comes()")
    assert found.returncode == PeerError.exit_code and "done" not in found.stdout
    assert "nobody_comes" in found.stderr and "_watch" in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("bertjax: step 3 takes more than run.step_timeout = 1 s; start again")


@pytest.mark.parametrize(
    "then",
    [
        "with watchdog.resting(): time.sleep(2)",
        "for _ in range(8): watchdog.alive('x'); time.sleep(0.25)",
    ],
)
def test_what_gives_signs_of_life_or_rests_goes_on(then):
    found = ended(limit=1, then=then)
    assert (found.returncode, found.stdout) == (0, "done\n"), found.stderr


def test_after_a_rest_it_watches_again():
    found = ended(limit=1, then="with watchdog.resting(): pass\n    nobody_comes()")
    assert found.returncode == PeerError.exit_code and "step 3" in found.stderr


def test_without_a_limit_there_is_no_thread():
    import threading

    before = threading.active_count()
    with Watchdog(0) as watchdog:
        watchdog.alive("step 1")
        assert threading.active_count() == before
    with Watchdog(9):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
