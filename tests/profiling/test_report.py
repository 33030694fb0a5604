"""`bertjax.profiling.report`: the table of a step that is run here, and of one for chips that are not."""

import json
import time
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import light
import numpy as np
import pytest
from small import one_device_mesh, tiny

from bertjax.ahead import compile as ahead
from bertjax.bench import memory
from bertjax.config.recipe import override
from bertjax.errors import ConfigError, OutOfMemory
from bertjax.model import encoder
from bertjax.model.layers import weights
from bertjax.parallel import topology
from bertjax.parallel.topology import Chip, Topology
from bertjax.profiling import report

STEPS = 2
PRODUCTS = {"attention": 4 * 12, "ffn": 4 * 6, "mlm_head": 6}
"""Of four layers: the forward ones, and two for each of them going backward."""
LINEAR = {
    "BLH,HSC->BLSC": "attention",
    "BLC,CH->BLH": "attention",
    "BLH,HF->BLF": "ffn",
    "BLF,FH->BLH": "ffn",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of the small model on all eight devices, with every operation in the list, and the seconds that it all took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "OPERATIONS", 10_000)
        start = time.perf_counter()
        values = report.measured(tiny(mesh={"data": 0}), tmp_path_factory.mktemp("trace"), steps=STEPS)
        return values, time.perf_counter() - start


def test_times_add_up_to_no_more_than_the_step(whole):
    values, took = whole
    assert 0.0 < values["step_seconds"] * STEPS < took and values["untraced_seconds"] > 0.0
    assert 0.0 < values["covered"] <= 1.0 <= values["at_once"]
    for found in (values["kinds"].values(), values["parts"].values(), values["operations"]):
        assert sum(one["share"] for one in found) == pytest.approx(values["covered"])
        assert sum(one["seconds"] for one in found) == pytest.approx(values["covered"] * values["step_seconds"])
        assert all(one["seconds"] >= 0.0 for one in found)
    assert values["others"] == {"count": 0, "seconds": 0, "share": 0}
    json.dumps(values, allow_nan=False)


def test_every_matrix_product_is_found_and_named(whole):
    values, _ = whole
    products = [one for one in values["operations"] if one["kind"] == "matrix products"]
    for part, times in PRODUCTS.items():
        assert sum(one["times"] for one in products if one["part"] == part) == times, part
    for name, part in LINEAR.items():
        directions = {one["place"].split()[0] for one in products if name in one["place"] and one["part"] == part}
        assert directions == {"forward", "backward"}, name
    assert values["kinds"]["matrix products"]["times"] == sum(one["times"] for one in products)


def test_exchanges_optimizer_and_what_else_a_step_does_are_told_apart(whole):
    values, _ = whole
    assert values["devices"] == 8 and values["device"] == "cpu" and values["steps"] == STEPS
    assert {"exchanges", "optimizer", "random bits", "reductions", "copies and slices", "elementwise"} <= set(
        values["kinds"]
    )
    assert {"embeddings", "attention", "ffn", "mlm_head", "pooler", "pair_head", "loss", "optimizer"} <= set(
        values["parts"]
    )
    assert values["parts"].get("other", {"share": 0.0})["share"] < 0.01
    assert values["operations"] == sorted(values["operations"], key=lambda one: -one["seconds"])


@pytest.fixture
def one_device(monkeypatch):
    """One device."""
    mesh = one_device_mesh(tiny())
    monkeypatch.setattr(memory.sharding, "make_mesh", lambda *given: mesh)


def work(count):
    """So many matrix products, one after the other."""
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), jnp.ones((256, 256)), length=count)[0][0, 0]


class Alone(nn.Module):
    """A look-up, which is slow, and an attention block: they compile in a moment."""

    @nn.compact
    def __call__(self, batch):
        table_VH = self.param("table", weights(light.CONFIG.model, None, None), (400, 32))
        with jax.named_scope("embeddings"):
            x_BLH = table_VH[batch["tokens"]] + jax.lax.stop_gradient(work(40))
        block = encoder.Attention(light.CONFIG.model, light.CONFIG.compute, name="attention")
        return block(x_BLH, encoder.Places(batch["segments"], None), None, None)


def attention_alone(*_, **__):
    def init(key):
        return Alone().init(key, {name: jnp.ones((1, 2), jnp.int32) for name in ("tokens", "segments")})["params"]

    def forward(params, batch, key):
        return {"y": Alone().apply({"params": params}, batch).sum((1, 2))}

    return replace(light.task(), init=init, forward=jax.tree_util.Partial(forward))


def test_attention_that_is_slow_is_seen(one_device, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "pretraining", attention_alone)
    attend = encoder.attend
    config, products, order = override(light.CONFIG, data={"batch_size": 8}), [], []
    for count in (0, 200):

        def slow(*arrays, count=count, **options):
            return attend(*arrays, **options) + (jax.lax.stop_gradient(work(count)) if count else 0.0)

        monkeypatch.setattr(encoder, "attend", slow)
        values = report.measured(config, tmp_path, steps=2)
        assert values["devices"] == 1 and "exchanges" not in values["kinds"]
        products.append(values["kinds"]["matrix products"]["times"])
        order.append([part for part in values["parts"] if part in ("embeddings", "attention")])
    assert order == [["embeddings", "attention"], ["attention", "embeddings"]]
    assert products[1] == products[0] + 200


def test_a_step_for_chips_that_are_not_here(monkeypatch):
    chip = Chip("cpu", "NVIDIA H100", 10**9, 1e11, 1e9, 1e8)
    eight = Topology("eight", chip, (1, 8), tuple(jax.devices()))
    monkeypatch.setattr(Topology, "places", lambda self, devices: np.array([[0, device.id] for device in devices]))
    monkeypatch.setattr(Topology, "link_seconds", lambda self, sent, members: sent / chip.link)
    monkeypatch.setattr(topology, "find", lambda name: eight)
    monkeypatch.setattr(ahead, "pretraining", light.task)  # which compiles in an instant
    values, same = report.estimated(light.CONFIG, "eight"), ahead.report(light.CONFIG, "eight")["estimated"]
    assert values["step_seconds"] == pytest.approx(same["step_seconds"])
    for found in (values["kinds"].values(), values["parts"].values(), [*values["operations"], values["others"]]):
        assert sum(one["seconds"] for one in found) == pytest.approx(values["step_seconds"])
    assert values["kinds"]["exchanges"]["seconds"] == pytest.approx(same["exposed_seconds"])
    assert (values["by"], values["steps"], values["covered"]) == ("roofline", 0, None) and values["assumptions"]
    json.dumps(values, allow_nan=False)


def test_what_cannot_be_profiled_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="mesh = data 0, fsdp 1, tensor 3"):
        report.measured(tiny(mesh={"tensor": 3}), tmp_path, steps=1)

    def refused(config, machine):
        return ahead.Compiled(config, None, None, None, None, "Used 20G of 16G", 1.0)

    monkeypatch.setattr(ahead, "compiled", refused)
    with pytest.raises(OutOfMemory, match="--topology=v5e:2x4: the step does not fit .Used 20G of 16G.; "):
        report.estimated(tiny(), "v5e:2x4")
