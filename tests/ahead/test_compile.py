"""`bertjax.ahead.compile`: the report on a step, for chips that are here in place of others, and for those."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import light
import numpy as np
import pytest
from small import tiny

from bertjax.ahead import compile as ahead
from bertjax.config.recipe import override
from bertjax.errors import ConfigError
from bertjax.parallel import topology
from bertjax.parallel.topology import Chip, Topology

KEYS = {"arguments", "parameters", "optimizer", "temporaries", "code", "total", "capacity"}


@pytest.fixture
def eight(monkeypatch):
    """Eight devices of this process as a machine of one host with little memory."""

    def use(memory=10**9):
        chip = Chip("cpu", "NVIDIA H100", memory, 1e11, 1e9, 1e8)
        monkeypatch.setattr(topology, "find", lambda name: Topology(name, replaced(chip), (1, 8), tuple(jax.devices())))

    def replaced(chip):
        monkeypatch.setattr(Topology, "places", lambda self, devices: places(devices))
        monkeypatch.setattr(Topology, "link_seconds", lambda self, sent, members: sent / chip.link)
        return chip

    use()
    return use


def places(devices):
    return np.array([[0, device.id] for device in devices])


def test_the_report_of_a_step(eight):
    config = tiny()
    values = ahead.report(config, "eight")
    assert values["fits"] is True and values["chips"] == 8 and values["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1}
    assert values["rows_per_chip"] == 1 and values["tokens_per_step"] == 8 * 32
    sizes = values["bytes_per_chip"]
    assert set(sizes) == KEYS and sizes["optimizer"] == pytest.approx(2 * sizes["parameters"], rel=1e-3)
    assert sizes["total"] == sizes["arguments"] + sizes["temporaries"] + sizes["code"] <= sizes["capacity"]
    assert sizes["arguments"] > sizes["parameters"] + sizes["optimizer"]
    found = values["estimated"]
    assert sum(found["operations"].values()) == pytest.approx(found["step_seconds"])
    assert found["mfu"] == pytest.approx(values["flops_per_step"] / (found["step_seconds"] * 8 * 989e12))
    assert len(found["operations"]) <= 21 and found["assumptions"] and found["by"] == "roofline"
    # One reduction of the gradients, in float32 as the parameters are.
    assert sizes["parameters"] < values["collectives"]["all-reduce"]["bytes"] < 1.3 * sizes["parameters"]
    json.dumps(values, allow_nan=False)


def test_what_does_not_fit_is_said(eight, monkeypatch):
    monkeypatch.setattr(ahead, "pretraining", light.task)  # which compiles in an instant
    eight(memory=10**5)
    values = ahead.report(tiny(), "eight")
    assert values["fits"] is False and values["bytes_per_chip"]["total"] > 10**5


def test_a_program_that_the_compiler_refuses(eight, monkeypatch):
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm."

    class Refusing:
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(ahead.Engine, "__init__", with_step(ahead.Engine.__init__, Refusing()))
    values = ahead.report(tiny(), "eight")
    assert values["fits"] is False and values["estimated"] is None and values["refused"] == message
    assert values["bytes_per_chip"]["total"] == 20 * 2**30 and values["bytes_per_chip"]["temporaries"] is None


def with_step(original, lowered):
    def init(self, *arguments):
        original(self, *arguments)
        self.step.lower = lambda state, batch: lowered

    return init


def test_what_cannot_be_compiled_is_refused(eight):
    with pytest.raises(ConfigError, match="teacher.path = runs/x: what is compiled for other machines"):
        ahead.report(override(tiny(), teacher={"path": "runs/x"}, objective={"soft": 1.0}), "eight")
    with pytest.raises(ConfigError, match="data.batch_size / optim.accumulate = 12"):
        ahead.report(override(tiny(), data={"batch_size": 12}), "eight")
    with pytest.raises(ConfigError, match="compute.attention = splash: needs"):
        ahead.report(override(tiny(), compute={"attention": "splash"}), "eight")


SIZES = [
    "--config.model.vocab_size=300",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=64",
    "--config.model.embedding_size=64",
    "--config.model.num_heads=2",
    "--config.model.ffn_size=64",
    "--config.model.attention_dropout=0.0",
    "--config.data.seq_len=128",
    "--config.data.batch_size=16",
    "--config.compute.dtype=bfloat16",
]


def command(machine, *more):
    """The report of `bertjax compile`, run by a process of its own."""
    arguments = ["compile", "--config=bert:tiny", f"--topology={machine}", "--json", *SIZES, *more]
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    run = subprocess.run(
        [sys.executable, "-m", "bertjax", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    return json.loads(run.stdout)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu, the compiler: pip install jax[tpu]")
def test_for_a_small_tpu_slice():
    values = command("v5e:2x4")
    assert values["fits"] and values["chips"] == 8 and values["collectives"]["all-reduce"]["bytes"] > 0
    assert values["estimated"]["by"] == "the TPU compiler's cycles" and 0 < values["estimated"]["mfu"] < 1
    assert values["bytes_per_chip"]["code"] > 0


@pytest.mark.long
@pytest.mark.skipif(
    not importlib.util.find_spec("jax_plugins"), reason="needs the compiler for GPUs: pip install jax[cuda13]"
)
@pytest.mark.parametrize(
    ("machine", "gpus", "flags"),
    [
        ("h100:8", 8, []),
        ("h100:2x8", 16, []),
        ("h100:8", 8, ["--config.compute.attention=flash", "--config.model.attention_dropout=0.1"]),
    ],
    ids=["one host", "two hosts", "our own attention"],
)
def test_for_gpus(machine, gpus, flags):
    values = command(machine, *flags)
    assert values["fits"] and values["chips"] == gpus
    sums = values["collectives"]["all-reduce"]
    assert sums["bytes"] > 0 and 0 < sums["split"] <= sums["count"]
    assert values["estimated"]["by"] == "roofline" and 0 < values["estimated"]["mfu"] < 1
