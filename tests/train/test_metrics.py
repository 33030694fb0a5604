"""`bertjax.train.metrics`: a log that a crash cannot confuse."""

import sys

import pytest

from bertjax.config.schema import RunConfig
from bertjax.errors import ConfigError
from bertjax.train import metrics


def test_writer_goes_on_after_a_crash(tmp_path):
    writer = metrics.Writer(tmp_path, tensorboard=False, start_step=0)
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": 1.0 / step, "mfu": None})
    writer.close()
    with (tmp_path / metrics.METRICS).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    writer = metrics.Writer(tmp_path, tensorboard=False, start_step=2)  # its checkpoint was of step 2
    writer.write(3, {"loss": 1.0 / 3})
    writer.close()
    lines = metrics.read(tmp_path / metrics.METRICS)
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]


def test_tensorboard_has_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="the [tb] extra is not installed")
    run = RunConfig(tensorboard=True)
    metrics.check_tensorboard(run)
    writer = metrics.Writer(tmp_path, start_step=0, tensorboard=True)
    writer.write(7, {"mlm_loss": 1.5, "mfu": None})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"mlm_loss" in events.read_bytes() and b"mfu" not in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"bertjax\[tb\]"):
        metrics.check_tensorboard(run)


def test_a_line_for_a_person():
    values = {"loss": 2.0, "tokens_per_second": 123456.0, "mfu": None, "slots_per_second": 3.0}
    assert metrics.describe(3, 9, values) == "step 3/9  loss 2  tokens_per_second 123,456"


def test_a_log_with_what_is_no_number_is_read_as_without(tmp_path):
    (tmp_path / metrics.METRICS).write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 2.0}\n')
    assert [line["loss"] for line in metrics.read(tmp_path / metrics.METRICS)] == [None, 2.0]
    metrics.Writer(tmp_path, start_step=2, tensorboard=False).close()
    assert "NaN" not in (tmp_path / metrics.METRICS).read_text()
