"""How a process of a run ends when another one is gone: with a line, and the exit code of PeerError.

JAX's service notices it in a thread of its own and aborts the process (SIGABRT), after a stack of addresses. Handlers
of Python's `signal` never run, since abort() does not return to Python. Nor can JAX be given one: with jaxlib 0.10 and
0.11, its call of a Python function ends in std::bad_cast.
"""

import ctypes
import os
import signal

from bertjax.console import say_last
from bertjax.errors import PeerError


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_: int) -> None:
    # In whatever thread aborts; that need not have had to do with Python before.
    reason = "as it does when another one of the run is gone (its reason stands above)"
    say_last(f"bertjax: JAX ended this process, {reason}; start all again: it goes on from the newest checkpoint")
    os._exit(PeerError.exit_code)


def heed_aborts() -> None:
    """From now on, until the process ends: to be called of several processes alone, when they have found each other."""
    function = ctypes.CDLL(None).signal
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    function(signal.SIGABRT, ctypes.cast(_aborted, ctypes.c_void_p))
