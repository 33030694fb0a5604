"""Machines that are not here: the name of one -> its chips, as JAX compiles for them, and what they can do.

    v5e:16x16   TPU v5e, a slice of 256 chips by its shape; so v6e, and v5p, whose shapes have three numbers
    h100:8      one host of 8 NVIDIA H100; so h200
    h100:2x8    two such hosts

A description of a chip stands for it in a mesh and in a sharding, and nothing can be put on it. The compiler for TPUs
(libtpu) or GPUs (JAX's CUDA plugin) must be installed, and is loaded when it is asked for, not before.
"""

import importlib
import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from bertjax.errors import ConfigError, one_line


@dataclass(frozen=True)
class Chip:
    """What one chip has and does, by its maker; speeds in bytes a second.

    TPUs: scaling-book (jax-ml), tpus.md, for memory speed and links. GPUs: NVIDIA's data sheets; a link is NVLink or
    the InfiniBand card of each GPU.
    """

    platform: str
    kind: str
    """Beginning of JAX's device kind."""
    memory: int
    """Bytes that a program may take, as the compiler (TPU) or the driver (GPU) has them."""
    memory_speed: float
    link: float
    """One way: of each link to a neighbour of a torus (TPU), of all links inside a host (GPU)."""
    outer_link: float = 0.0
    """One way, from one host to another; 0.0 = every chip is in the torus."""
    clock: float = 0.0
    """Cycles a second, where the compiler counts in them: peak / (2 * multipliers); 0.0 = it does not."""
    matrix_share: float = 1.0
    """Of the peak, what the best measured matrix product reaches (stas00/ml-engineering, MAMF, bfloat16)."""
    wraps: tuple[int, int] = (1, 0)
    """TPU: an axis of the slice is a ring if its length is a multiple of the first and at least the second."""


GiB = 1 << 30
CHIPS = {
    "v5e": Chip("tpu", "TPU v5 lite", int(15.75 * GiB), 8.1e11, 5e10, clock=197e12 / (2 * 4 * 128**2), wraps=(16, 16)),
    "v5p": Chip("tpu", "TPU v5", int(95.74 * GiB), 2.8e12, 1e11, clock=459e12 / (2 * 8 * 128**2), wraps=(4, 4)),
    "v6e": Chip("tpu", "TPU v6 lite", int(31.25 * GiB), 1.6e12, 1e11, clock=918e12 / (2 * 2 * 256**2), wraps=(16, 16)),
    "h100": Chip("gpu", "NVIDIA H100", 84_942_979_072, 3.352e12, 4.5e11, 5e10, matrix_share=0.803),
    "h200": Chip("gpu", "NVIDIA H200", 150_754_820_096, 4.8e12, 4.5e11, 5e10, matrix_share=0.803),
}


@dataclass(frozen=True)
class Topology:
    """Some chips with what is between them."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    """TPU: of the slice. GPU: hosts, and GPUs of each."""
    devices: tuple[Any, ...]
    """Descriptions for `sharding.make_mesh`."""

    def slice_of(self, device: Any) -> int:
        """Which slice or host it is in, for `sharding.make_mesh`; the compiler for GPUs does not tell."""
        return device.id // self.shape[1] if self.chip.platform == "gpu" else 0

    def link_seconds(self, sent: float, members: np.ndarray) -> float:
        """How long a ring's step takes: each of `members` (places [n, axes] of the chips, as from `places`) sends
        `sent` bytes in all, over all links that lead to another member.
        """
        spans = [len(set(column)) for column in members.T]
        if self.chip.platform == "gpu":
            hosts, each = spans[0], len(members) // spans[0]
            inner = sent / self.chip.link if each > 1 else 0.0
            return inner + (sent / each / self.chip.outer_link if hosts > 1 else 0.0)
        multiple, least = self.chip.wraps
        ways = [
            2 if size % multiple == 0 and size >= least and size == whole else 1
            for size, whole in zip(spans, self.shape, strict=True)
            if size > 1
        ]
        return sent / (self.chip.link * max(1, sum(ways)))

    def places(self, devices: list[Any]) -> np.ndarray:
        """Where these are, [devices, axes of `shape`]."""
        if self.chip.platform == "gpu":
            per_host = self.shape[1]
            return np.array([divmod(device.id, per_host) for device in devices])
        return np.array([device.coords[: len(self.shape)] for device in devices])


def find(name: str) -> Topology:
    """The machine of that name. Raises ConfigError where there is no such machine, or its compiler is not installed."""
    chip_name, _, form = name.partition(":")
    chip, shape = CHIPS.get(chip_name), tuple(int(n) for n in form.split("x") if n.isdecimal())
    wanted = r"\d+x\d+(x\d+)?" if chip and chip.platform == "tpu" else r"\d+(x\d+)?"
    if chip is None or not re.fullmatch(wanted, form) or 0 in shape:
        forms = "v5e:2x4, v5p:4x4x4, h100:8 or h100:2x8 (hosts x GPUs)"
        raise ConfigError(f"--topology={name}: is no known machine; give {forms}, of {', '.join(CHIPS)}")
    try:
        if chip.platform == "tpu":
            return Topology(name, chip, shape, _tpu(name))
        shape = shape if len(shape) == 2 else (1, *shape)
        return Topology(name, chip, shape, _gpu(name, chip_name, chip, shape))
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        fix = "give a shape in which these chips come, as v5e:2x4, v5p:4x4x4 or h100:2x8"
        raise ConfigError(f"--topology={name}: the compiler knows no such machine ({one_line(error)}); {fix}") from None


def _tpu(name: str) -> tuple[Any, ...]:
    _require("libtpu", name, "TPUs", "tpu")
    # No chip is to be looked for, here or by asking the cloud, and several processes may compile at a time.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    for variable, value in quiet.items():
        os.environ.setdefault(variable, value)
    return tuple(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)


def _gpu(name: str, chip_name: str, chip: Chip, shape: tuple[int, ...]) -> tuple[Any, ...]:
    versions = [v for v in ("13", "12") if importlib.util.find_spec("jax_plugins") and _has(f"jax_plugins.xla_cuda{v}")]
    if not versions:
        _require("jax_plugins.xla_cuda13", name, "GPUs", "cuda13")
    jax.local_devices(backend="cpu")  # JAX looks for plugins by itself then, and logs one that was there before
    try:
        importlib.import_module(f"jax_plugins.xla_cuda{versions[0]}").initialize()
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):  # JAX has found it by itself
            raise
    described = _TARGET.format(memory=chip.memory, speed=int(chip.memory_speed), name=_GPU_NAMES[chip_name])
    hosts, each = shape
    found = topologies.get_topology_desc(
        chip_name, platform="cuda", target_config=described, topology=f"{hosts}x{each}x1"
    )
    return tuple(found.devices)


def _require(module: str, name: str, what: str, extra: str) -> None:
    if not _has(module):
        raise ConfigError(
            f"--topology={name}: {module}, the compiler for {what}, is not installed; pip install 'jax[{extra}]'"
        )


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


_GPU_NAMES = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}
_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {speed} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 name: "{name}"
}}
platform_name: "CUDA" device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
"""
"""What the compiler must know of a Hopper GPU: openxla/xla, xla/backends/gpu/target_config/specs/h100.txtpb."""
