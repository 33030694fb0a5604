"""What a process may use: what the machine has, or what its control group allows, if that is less."""

import os

import jax
import pytest

from bertjax.parallel import machine

ALL = len(os.sched_getaffinity(0))
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def group(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, ALL),
        ({"cpu.max": "max 100000\n"}, ALL),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": f"{ALL * 100_000 - 1} 100000\n"}, ALL),
        ({"cpu.max": "99900000 100000\n"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_cores(tmp_path, files, cores):
    assert machine.cores(group(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, MACHINE),
        ({"memory.max": "max\n"}, MACHINE),
        ({"memory.max": "1000000\n"}, 1_000_000),
        ({"memory.max": f"{2 * MACHINE}\n"}, MACHINE),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),
        ({"memory/memory.limit_in_bytes": "1000000\n"}, 1_000_000),
    ],
)
def test_memory(tmp_path, files, memory):
    assert machine.memory(group(tmp_path, files)) == memory


def test_simulated_devices_share_the_memory_and_the_cores():
    here = machine.here()
    assert (here.platform, here.devices) == ("cpu", jax.device_count())
    assert here.memory == machine.memory() // jax.device_count() and here.cores == machine.cores()
    assert not here.bfloat16
    assert machine.here() == here
