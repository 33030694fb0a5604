"""`bertjax.train.metrics`: FLOPs against published sums, and a log that a crash cannot confuse."""

import dataclasses
import sys

import numpy as np
import pytest

from bertjax.config.recipe import override
from bertjax.config.schema import Config, DataConfig, ModelConfig
from bertjax.errors import ConfigError
from bertjax.train import metrics


@pytest.mark.parametrize(
    ("model", "seq_len", "giga"),
    [
        # Sums of the matrix products at 15 % predictions, per token, forward and backward.
        (ModelConfig(), 128, 0.5454),
        (ModelConfig(), 512, 0.5879),
        (ModelConfig(num_layers=24, hidden_size=1024, embedding_size=1024, ffn_size=4096, num_heads=16), 512, 1.9920),
        (ModelConfig(vocab_size=30_000, embedding_size=128, share="all"), 512, 0.570),
    ],
)
def test_flops_per_token(model, seq_len, giga):
    data = DataConfig(seq_len=seq_len, max_predictions=seq_len)
    parts = metrics.flops_per_token(model, data)
    np.testing.assert_allclose(parts["total"], giga * 1e9, rtol=1e-3)
    assert parts["total"] == sum(v for k, v in parts.items() if k != "total")


def test_fewer_slots_cost_less():
    few, many = (DataConfig(seq_len=512, max_predictions=p) for p in (20, 77))
    cost = [metrics.flops_per_token(ModelConfig(), data)["mlm_head"] for data in (few, many)]
    np.testing.assert_allclose(cost[0] / cost[1], (20 / 512) / 0.15)


def test_flops_of_a_step_with_a_teacher():
    """Half of BERT-base's layers learning from all of it: the teacher's forward pass is a third of its cost."""
    objective = {"soft": 1.0, "pair": 0.0}
    config = override(Config(), model={"num_layers": 6}, objective=objective, teacher={"path": "x", "tokens": "masked"})
    data, base = config.data, ModelConfig()
    mine = metrics.flops_per_token(config.model, data)
    assert metrics.step_flops_per_token(config, None) == mine["total"]
    masked = metrics.step_flops_per_token(config, base)
    assert masked == mine["total"] + metrics.flops_per_token(base, data)["total"] / 3
    everywhere = override(config, teacher={"tokens": "real"})
    head = 6 * (768 * 768 + 768 * 30522)
    share = mine["mlm_head"] / head
    assert metrics.step_flops_per_token(everywhere, base) - masked == pytest.approx(head + head * (1 - share) / 3)
    states = override(config, objective={"soft": 0.0, "cosine": 1.0})
    assert masked - metrics.step_flops_per_token(states, base) == pytest.approx(mine["mlm_head"] / 3)


def test_peaks():
    assert metrics.peak_tflops("NVIDIA H100 80GB HBM3", 0.0) == 989.0
    assert metrics.peak_tflops("cpu", 0.0) == 0.0
    assert metrics.peak_tflops("cpu", 0.5) == 0.5


def test_writer_goes_on_after_a_crash(tmp_path):
    writer = metrics.Writer(tmp_path, Config(), start_step=0)
    for step in (1, 2, 3, 4):
        writer.write(step, {"loss": 1.0 / step, "mfu": None})
    writer.close()
    with (tmp_path / metrics.METRICS).open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    writer = metrics.Writer(tmp_path, Config(), start_step=2)  # its checkpoint was of step 2
    writer.write(3, {"loss": 1.0 / 3})
    writer.close()
    lines = metrics.read(tmp_path / metrics.METRICS)
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]


def test_tensorboard_has_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="the [tb] extra is not installed")
    config = override(Config(), run={"tensorboard": True})
    metrics.check_tensorboard(config)
    writer = metrics.Writer(tmp_path, config, start_step=0)
    writer.write(7, {"mlm_loss": 1.5, "mfu": None})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"mlm_loss" in events.read_bytes() and b"mfu" not in events.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"bertjax\[tb\]"):
        metrics.check_tensorboard(config)


def test_throughput_counts_real_tokens_and_all_devices(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    rates = metrics.Throughput(flops=2e9, peak=1.0, devices=2)
    rates.add(tokens=300, slots=400, wait=0.5)
    rates.add(tokens=100, slots=400, wait=0.5)
    now[0] += 4.0
    values = rates.take()
    assert values["tokens_per_second"] == 100.0 and values["slots_per_second"] == 200.0
    assert values["mfu"] == 100.0 * 2e9 / 2e12 and values["data_wait"] == 0.25
    assert metrics.Throughput(flops=1.0, peak=0.0, devices=1).take()["mfu"] is None


def test_curves_are_a_picture(tmp_path):
    writer = metrics.Writer(tmp_path, dataclasses.replace(Config()), start_step=0)
    for step in range(1, 6):
        writer.write(step, {"mlm_loss": 6.0 / step, "mlm_accuracy": 0.1 * step})
    writer.write(5, {"eval_mlm_loss": 2.0, "eval_mlm_accuracy": 0.3})
    writer.close()
    picture = metrics.plot(tmp_path, unigram_loss=5.0)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 10_000
