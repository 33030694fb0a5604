"""Sides of a comparison that tests send to processes of their own."""

import os
import signal
import time

from bertjax.bench.turns import Count, Work
from bertjax.errors import ConfigError


def sleeper(seconds, log):
    """A side whose step takes so long, and which notes when each began and ended."""
    done = []

    def step():
        start = time.monotonic()
        time.sleep(seconds)
        done.append(seconds)
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {start} {time.monotonic()}\n")
        return Count(tokens=3, slots=4)

    return Work(step, begun=lambda: {"warm": len(done)}, ended=lambda: {"in all": len(done)})


def refusing():
    raise ConfigError("no such side")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)
