"""`bertjax.train.metrics`: a log that a crash cannot confuse."""

import json
import sys

import numpy as np
import pytest

from bertjax import storage
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


def log(steps):
    """The bytes of a log with a line for each of `steps`, and one of an evaluation at each fourth."""
    lines = []
    for step in steps:
        lines.append({"step": step, "loss": 6.0 / step, "lr": 1e-4 * step, "mfu": None, "tokens_per_second": 31234.5})
        if step % 4 == 0:
            lines.append({"step": step, "eval_mlm_loss": 5.5 / step})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def scratch(content, rng, count):
    """Some characters of a file are others."""
    content = bytearray(content)
    for place in rng.integers(0, len(content), count):
        content[place] = rng.integers(0, 256)
    return bytes(content)


@pytest.mark.parametrize("count", [1, 2, 10, 200])
def test_what_can_be_read_stays_and_the_rest_is_set_aside(tmp_path, count, capsys):
    """No damage costs a line that it did not meet, none stops the run, and no byte of what it met is lost."""
    rng, whole, path = np.random.default_rng(count), log(range(1, 13)), tmp_path / metrics.METRICS
    aside = tmp_path / metrics.DAMAGED
    for _ in range(30):
        path.write_bytes(scratch(whole, rng, count))
        lines = path.read_bytes().split(b"\n")
        intact = [json.loads(line) for line in whole.splitlines() if line in lines]
        read = metrics.read(path)
        told = "left out" in capsys.readouterr().err
        metrics.Writer(tmp_path, start_step=10**9, tensorboard=False).close()
        assert ("set aside" in capsys.readouterr().err) == aside.exists() == told
        kept = [line for line in read if line["step"] <= 10**9]
        assert metrics.read(path) == kept and not capsys.readouterr().err
        assert [line for line in kept if line in intact] == intact
        found = aside.read_bytes() if aside.exists() else b""
        assert all(line in found or metrics.parsed(line) in read for line in lines[:-1] if line.strip())
        aside.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b'{"step": 5, "loss": 2.0\xe9}',
        b'{"step": 5, "loss": 1e999}',
        b'{"step": 5, "loss": 1' + b"0" * 400 + b"}",
        b'{"step": 5, "loss": "2.0"}',
        b'{"step": 5, "loss": [2.0]}',
        b'{"step": 5, "loss": true}',
        b'{"step": 5.0, "loss": 2.0}',
        b'{"step": "5", "loss": 2.0}',
        b'{"step": -5, "loss": 2.0}',
        b'{"stfp": 5, "loss": 2.0}',
        b"[5, 2.0]",
        b"null",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"step": 5, "loss": 2.0}{"step": 6, "loss": 1.0}',
        '{"step": 5, "loss": 2.0}'.encode("utf-16-le"),
    ],
    ids=lambda line: ascii(line[:30]),
)
def test_a_line_that_is_none_of_ours_is_set_aside(tmp_path, line, capsys):
    """Whatever stands there: those before and after it are kept, it is not lost, and no reader trips over it."""
    path = tmp_path / metrics.METRICS
    path.write_bytes(log([1, 2]) + line + b"\n" + log([3, 4]))
    assert [found["step"] for found in metrics.read(path)] == [1, 2, 3, 4, 4]
    assert f"{path}: left out: 1 line that cannot be read" in capsys.readouterr().err
    assert path.read_bytes() == log([1, 2]) + line + b"\n" + log([3, 4])  # who reads it may not hold the lock
    metrics.Writer(tmp_path, start_step=3, tensorboard=False).close()
    (told,) = capsys.readouterr().err.splitlines()
    assert str(path) in told and metrics.DAMAGED in told
    assert path.read_bytes() == log([1, 2, 3])
    assert (tmp_path / metrics.DAMAGED).read_bytes() == line + b"\n"


def test_what_was_set_aside_before_stays(tmp_path):
    for text in (b"one", b"two\xff"):
        (tmp_path / metrics.METRICS).write_bytes(text + b"\n" + log([1]))
        metrics.Writer(tmp_path, start_step=1, tensorboard=False).close()
    assert (tmp_path / metrics.DAMAGED).read_bytes() == b"one\ntwo\xff\n"
    assert (tmp_path / metrics.METRICS).read_bytes() == log([1])


@pytest.mark.parametrize("end", [b"", b'{"step": 5, "lo', b"\0" * 512, b"\n"])
def test_a_log_that_a_crash_cut_short_is_not_damaged(tmp_path, end, capsys):
    (tmp_path / metrics.METRICS).write_bytes(log([1, 2]) + end)
    metrics.Writer(tmp_path, start_step=9, tensorboard=False).close()
    assert (tmp_path / metrics.METRICS).read_bytes() == log([1, 2])
    assert not (tmp_path / metrics.DAMAGED).exists() and not capsys.readouterr().err


def test_a_last_line_whose_end_is_damaged_is_set_aside(tmp_path):
    """It was written whole: a crash cuts before the brace."""
    (tmp_path / metrics.METRICS).write_bytes(log([1, 2])[:-1] + b"*")
    metrics.Writer(tmp_path, start_step=9, tensorboard=False).close()
    assert (tmp_path / metrics.METRICS).read_bytes() == log([1])
    assert (tmp_path / metrics.DAMAGED).read_bytes() == log([2])[:-1] + b"*\n"


def test_in_a_bucket_the_log_is_what_was_last_published(bucket, monkeypatch, tmp_path):
    """And a writer on another host goes on from there."""
    run = storage.place("gs://bkt/run")
    writer = metrics.Writer(run, tensorboard=False, start_step=0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0 / step})
        if step == 2:
            writer.publish()
    writer.close()
    assert [line["step"] for line in metrics.read(run / metrics.METRICS)] == [1, 2]
    bucket.put("run/metrics.jsonl", bucket.objects["run/metrics.jsonl"] + b'{"step": 2, "lo\n{"step": 9}\n')
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "another host"))
    writer = metrics.Writer(run, tensorboard=False, start_step=2)
    writer.write(3, {"loss": 0.25})
    writer.publish()
    writer.close()
    assert [line.get("loss") for line in metrics.read(run / metrics.METRICS)] == [1.0, 0.5, 0.25]
    assert bucket.objects["run/metrics.jsonl.damaged"] == b'{"step": 2, "lo\n'


def test_tensorboard_of_a_run_in_a_bucket(bucket):
    pytest.importorskip("tensorboardX", reason="the [tb] extra is not installed")
    writer = metrics.Writer(storage.place("gs://bkt/run"), start_step=0, tensorboard=True)
    writer.write(7, {"mlm_loss": 1.5})
    writer.publish()
    (events,) = bucket.below("run/tensorboard/")
    writer.close()
    assert b"mlm_loss" in bucket.objects[events]
