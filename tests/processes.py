"""Runs of several processes on this machine, by `launch/local.sh`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = """
import json
from bertjax.config.recipe import default

def get_config():
    config = default()
    for section, fields in json.loads({values!r}).items():
        config[section].update(fields)
    return config
"""


def recipe(path, values):
    """A recipe of these values by section."""
    path.write_text(RECIPE.format(values=json.dumps(values)))
    return path


class Run:
    """`launch/local.sh ... COMMAND` as it goes: its lines, and its processes."""

    def __init__(self, *command, processes, devices, restarts=0, grace=60, environment=None):
        # Unoptimised, as in this process: the programs are then the same, and so are their roundings.
        flags = "--xla_backend_optimization_level=0"
        given = os.environ | {
            "BERTJAX": str(Path(sys.executable).with_name("bertjax")),
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": flags,
        }
        shape = [
            "--processes",
            str(processes),
            "--devices",
            str(devices),
            "--max-restarts",
            str(restarts),
            "--grace",
            str(grace),
        ]
        self.lines, self._heard = [], threading.Condition()
        self._process = subprocess.Popen(
            ["bash", str(ROOT / "launch/local.sh"), *shape, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=given | (environment or {}),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self._process.stdout as lines:
            for line in lines:
                with self._heard:
                    self.lines.append(line.rstrip("\n"))
                    self._heard.notify_all()

    def wait_for(self, text, timeout=240):
        """Until a line has this text; returns it."""
        end, seen = time.monotonic() + timeout, 0
        with self._heard:
            while time.monotonic() < end:
                for line in self.lines[seen:]:
                    if text in line:
                        return line
                seen = len(self.lines)
                self._heard.wait(1)
        raise AssertionError(f"no {text!r} in:\n" + "\n".join(self.lines[-40:]))

    def ids(self):
        """Process ids by the number of the process in the run."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = dict(e.split("=", 1) for e in (path / "environ").read_text().split("\0") if "=" in e)
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if "BERTJAX_PROCESS" in environment and parent == self._process.pid:
                found[int(environment["BERTJAX_PROCESS"])] = int(path.name)
        return found

    def going(self):
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_for_restart(self, count, timeout=300):
        """Until it has started again so often, or has ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.going():
            if sum("start again," in line for line in self.lines) >= count:
                return
            time.sleep(0.2)

    def kill(self, number, which):
        """Send a signal to the process with this number."""
        os.kill(self.ids()[number], which)

    def end(self, timeout=300):
        """(exit code, lines) when all is over; nothing of it is left."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            for number in self.ids().values():
                os.kill(number, signal.SIGKILL)
            self._process.kill()
            raise AssertionError("still going on:\n" + "\n".join(self.lines[-40:])) from None
        self._reader.join(10)
        return code, self.lines
