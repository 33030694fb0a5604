"""`bertjax.bench.saving`: what a save costs is noticed, and nothing of it stays."""

import json
import time

import pytest
from small import tiny

from bertjax.bench import saving
from bertjax.cli.main import main
from bertjax.train.checkpoint import Checkpoints


def test_what_keeps_a_run_waiting_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_LONGER", 0.0)  # two steps a window
    config, save = tiny(mesh={"data": 0}), Checkpoints.save
    quick = saving.bench(config, directory=tmp_path, every=100, windows=1)
    assert quick["blocked_seconds"] > 0 and quick["write_seconds"] > 0 and quick["bytes"] > 100_000
    assert not list(tmp_path.iterdir()), "it is left as it was"

    def slow(self, *arguments, **more):
        time.sleep(4.0)
        save(self, *arguments, **more)

    monkeypatch.setattr(Checkpoints, "save", slow)
    slowed = saving.bench(config, directory=tmp_path, every=10, windows=1)
    assert slowed["blocked_seconds"] > 4.0 and slowed["save_seconds"] > 2.0  # busy machines differ by less than that
    assert slowed["stall"] == pytest.approx(slowed["save_seconds"] / (10 * slowed["step_seconds"]))


def test_by_the_command(tmp_path, capsys, monkeypatch):
    result = {"step_seconds": 0.1, "blocked_seconds": 0.02, "save_seconds": 0.5, "write_seconds": 0.4, "stall": 0.05}
    monkeypatch.setattr(saving, "bench", lambda config, **more: result | {"every": more["every"], "bytes": 2_000_000})
    for more in (["--json"], []):
        with pytest.raises(SystemExit) as end:
            main(["bench", "checkpoint", "--config=bert:tiny", f"--workdir={tmp_path}", "--every=7", *more])
        assert not end.value.code
    first, *shown = capsys.readouterr().out.splitlines()
    assert json.loads(first)["every"] == 7
    assert shown[0] == "2.0 MB, on disk after 0.40 s" and shown[-1] == "every 7 steps: 5.00% of the time of a run"
