"""`bertjax.parallel.topology`: the names of machines, their links, and what is said where a compiler is missing."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from bertjax.errors import ConfigError
from bertjax.parallel import topology
from bertjax.parallel.topology import CHIPS, Topology

TPU = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu, the compiler: pip install jax[tpu]"
)


@pytest.mark.parametrize("name", ["", "v5e", "v5e:8", "v5e:2x", "v5e:0x4", "v9:2x4", "h100:2x8x2", "h100:x", "h100:0"])
def test_no_such_machine(name):
    with pytest.raises(ConfigError) as error:
        topology.find(name)
    text = str(error.value)
    assert f"--topology={name}: is no known machine" in text and "v5e:2x4" in text and "\n" not in text


@pytest.mark.parametrize(
    ("name", "package", "fix"),
    [
        ("v5e:2x4", "libtpu", "pip install 'jax[tpu]'"),
        ("h100:8", "jax_plugins.xla_cuda13", "pip install 'jax[cuda13]'"),
    ],
)
def test_a_compiler_that_is_missing_is_named(monkeypatch, name, package, fix):
    monkeypatch.setattr(topology, "_has", lambda module: False)
    with pytest.raises(ConfigError) as error:
        topology.find(name)
    assert f"--topology={name}: {package}, the compiler for" in str(error.value) and str(error.value).endswith(fix)


@TPU
def test_chips_of_a_slice_and_their_places():
    found = topology.find("v5e:2x4")
    assert [device.platform for device in found.devices] == ["tpu"] * 8
    places = found.places(list(found.devices))
    assert sorted(map(tuple, places)) == [(i, j) for i in range(2) for j in range(4)]


@TPU
def test_a_slice_that_does_not_exist():
    with pytest.raises(ConfigError, match="--topology=v5e:3x5: the compiler knows no such machine"):
        topology.find("v5e:3x5")


def grid(*lengths):
    return np.array(list(np.ndindex(*lengths)))


def of(chip, *shape):
    return Topology("test", CHIPS[chip], shape, ())


def test_a_ring_sends_both_ways_and_a_line_one_way():
    one = 1e9 / CHIPS["v5e"].link
    assert of("v5e", 16, 16).link_seconds(1e9, grid(16, 16)) == pytest.approx(one / 4)  # two rings
    assert of("v5e", 2, 4).link_seconds(1e9, grid(2, 4)) == pytest.approx(one / 2)  # two lines
    assert of("v5e", 16, 16).link_seconds(1e9, grid(1, 16)) == pytest.approx(one / 2)  # a ring
    assert of("v5e", 16, 16).link_seconds(1e9, grid(1, 8)) == pytest.approx(one)  # half of a ring
    assert of("v5p", 4, 4, 8).link_seconds(1e9, grid(1, 1, 4)) == pytest.approx(1e9 / CHIPS["v5p"].link)
    assert of("v5p", 4, 4, 4).link_seconds(1e9, grid(4, 4, 4)) == pytest.approx(1e9 / CHIPS["v5p"].link / 6)


def test_from_host_to_host_each_gpu_sends_its_share():
    inside, across = 1e9 / CHIPS["h100"].link, 1e9 / CHIPS["h100"].outer_link
    assert of("h100", 2, 8).link_seconds(1e9, grid(1, 8)) == pytest.approx(inside)
    assert of("h100", 2, 8).link_seconds(1e9, grid(2, 8)) == pytest.approx(inside + across / 8)
    assert of("h100", 4, 1).link_seconds(1e9, grid(4, 1)) == pytest.approx(across)


def test_gpus_are_numbered_host_by_host():
    gpus = [SimpleNamespace(id=i) for i in (0, 7, 8, 15)]
    assert of("h100", 2, 8).places(gpus).tolist() == [[0, 0], [0, 7], [1, 0], [1, 7]]
    assert [of("h100", 2, 8).slice_of(gpu) for gpu in gpus] == [0, 0, 1, 1]
    assert of("v5e", 4, 4).slice_of(gpus[3]) == 0
