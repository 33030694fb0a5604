"""What there is to compute with: the devices of this process, their memory, its processors.

Nothing here is measured in use, so the same machine gives the same answer whatever else runs on it.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

_UNLIMITED = 1 << 60  # above it, a limit of a control group is the kernel's word for none


@dataclass(frozen=True)
class Machine:
    """The devices of one process, all alike."""

    platform: str
    """cpu, gpu or tpu."""
    kind: str
    """As the vendor calls the device, for example "NVIDIA H100 80GB HBM3"."""
    devices: int
    memory: int
    """Bytes of each device; on CPU its share of what this process may take. 0 = not known."""
    cores: int
    """Of the processor that this process may use."""
    bfloat16: bool
    """Whether products in bfloat16 are faster than in float32."""


def here() -> Machine:
    """The machine that this process runs on. Starts JAX, which takes most of a GPU's memory until the process ends."""
    devices = jax.local_devices()
    first = devices[0]
    return Machine(
        platform=first.platform,
        kind=first.device_kind,
        devices=len(devices),
        memory=memory() // len(devices) if first.platform == "cpu" else _of_device(first),
        cores=cores(),
        bfloat16=_fast_bfloat16(first),
    )


def cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores for this process: those it may run on, or fewer if its control group has less time than that."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _numbers(root / "cpu.max", "max 100000")
    if not quota:
        quota, period = *_numbers(root / "cpu/cpu.cfs_quota_us", "-1"), *_numbers(root / "cpu/cpu.cfs_period_us", "0")
    return min(available, -(-quota // period)) if quota > 0 and period > 0 else available


def memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory for this process: those of the machine, or fewer if its control group may not take so much."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [_numbers(root / name, "max")[0] for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min(limit for limit in limits if 0 < limit < _UNLIMITED)


def _numbers(path: Path, otherwise: str) -> list[int]:
    """The numbers of a file of the control group, `max` being 0."""
    try:
        text = path.read_text()
    except OSError:  # another version of control groups, or another system
        text = otherwise
    return [int(word) if word.lstrip("-").isdecimal() else 0 for word in text.split()]


def _of_device(device: Any) -> int:
    statistics = device.memory_stats() or {}
    return int(statistics.get("bytes_limit", 0))


def _fast_bfloat16(device: Any) -> bool:
    """NVIDIA's from compute capability 8 on; a GPU that names none is taken for a new one."""
    if device.platform == "cpu":
        return False
    capability = str(getattr(device, "compute_capability", ""))
    major = capability.partition(".")[0]
    return not major.isdecimal() or int(major) >= 8
