import subprocess
import sys

import pytest

from bertjax.errors import PeerError

ABORTS = {
    "its own thread": "os.abort()",
    # As JAX's service: without Python's lock, while Python does something else.
    "another thread": "threading.Thread(target=ctypes.CDLL(None).abort).start()\nwhile True: pass",
}


@pytest.mark.parametrize("by", ABORTS)
def test_an_abort_ends_with_a_line_and_our_code(by):
    heeded = f"import ctypes, os, threading\nfrom bertjax.parallel import lost\nlost.heed_aborts()\n{ABORTS[by]}"
    ended = subprocess.run([sys.executable, "-c", heeded], capture_output=True, text=True, timeout=60)
    assert ended.returncode == PeerError.exit_code, ended
    assert ended.stderr.startswith("bertjax: JAX ended this process") and len(ended.stderr.splitlines()) == 1
