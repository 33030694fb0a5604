"""`bertjax.parallel.memory`: what is free by the machine and its control groups, what a program takes, what fits."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import one_device_mesh, tiny

from bertjax.config.schema import MeshConfig
from bertjax.parallel import memory, sharding

GB = 10**9


def machine(root, *, available=20 * GB, groups="", files=None):
    """Files as a kernel has them."""
    contents = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:  {available // 1024} kB\n", "proc/self/cgroup": groups}
    for name, text in (contents | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return memory.host_free(root)


def group(place, limit, used, cached, *, old=False):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    cache = "total_inactive_file" if old else "inactive_file"
    return dict(
        zip((f"{place}/{n}" for n in (*names, "memory.stat")), (limit, used, f"anon 1\n{cache} {cached}"), strict=True)
    )


@pytest.mark.parametrize("old", [False, True])
def test_what_is_free_is_the_least_that_machine_and_groups_leave(tmp_path, old):
    top = "sys/fs/cgroup" + ("/memory" if old else "")
    line = "7:cpu:/x\n4:cpuacct,memory:/a/b\n" if old else "0::/a/b\n"
    inner = group(f"{top}/a/b", 9 * GB, 4 * GB, 1 * GB, old=old)
    assert machine(tmp_path, groups=line) // 10**4 == 20 * GB // 10**4  # whole blocks of 1,024
    assert machine(tmp_path, groups=line, files=inner) == 6 * GB
    assert machine(tmp_path, groups=line, files=inner | group(f"{top}/a", 3 * GB, 2 * GB, 0, old=old)) == 1 * GB
    assert machine(tmp_path, groups=line, available=2048) == 2048
    assert machine(tmp_path, groups=line, files=group(f"{top}/a/b", 1 * GB, 2 * GB, 0, old=old)) == 0


def test_a_container_sees_its_group_at_the_top(tmp_path):
    found = machine(tmp_path, groups="0::/of/the/host\n", files=group("sys/fs/cgroup", 5 * GB, 1 * GB, 0))
    assert found == 4 * GB
    no_limit = group("sys/fs/cgroup", "max", 1 * GB, 0)
    assert machine(tmp_path, groups="0::/of/the/host\n", files=no_limit, available=2048) == 2048


def test_a_system_that_does_not_tell(tmp_path):
    assert memory.host_free(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1 kB\n")
    assert memory.host_free(tmp_path) is None


def test_devices_share_the_memory_of_the_host(monkeypatch):
    monkeypatch.setattr(memory, "host_free", lambda: 8_000)
    assert memory.free(sharding.make_mesh(MeshConfig())) == 8_000 // len(jax.devices())
    assert memory.free(one_device_mesh(tiny())) == 8_000
    monkeypatch.setattr(memory, "host_free", lambda: None)
    assert memory.free(one_device_mesh(tiny())) is None


def test_a_program_takes_its_arguments_results_and_what_is_between():
    x = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    one = memory.needed(jax.jit(lambda x: x + 1).lower(x).compile())
    donated = memory.needed(jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile())
    between = memory.needed(jax.jit(lambda x: jnp.sort(x @ x, axis=0) @ x).lower(x).compile())
    assert one == 80_000 and donated == 40_000 and between >= 120_000


def test_what_is_held_is_of_one_device():
    mesh = sharding.make_mesh(MeshConfig(fsdp=8))
    rows = jax.device_put(np.zeros((16, 4), np.float32), sharding.rows_sharding(mesh))
    whole = jax.device_put(np.zeros((16, 4), np.float32), sharding.replicated(mesh))
    assert memory.held({"rows": rows, "whole": whole, "shape": jax.ShapeDtypeStruct((9,), np.int8)}) == 32 + 256


@pytest.mark.parametrize("rounding", [0, 4096])
def test_the_most_rows_are_found_with_few_programs(rounding):
    draw = random.Random(rounding)
    for _ in range(300):
        fixed, each, available = draw.randrange(10**9), draw.randrange(1, 10**7), draw.randrange(1, 10**11)
        unit, most, asked = draw.choice([1, 2, 12]), draw.choice([7, 2**20]), {}

        def bytes_of(rows, asked=asked, fixed=fixed, each=each):
            asked[rows] = fixed + each * rows + (rounding and -each * rows % rounding)
            return asked[rows]

        found = memory.most_rows(bytes_of, available, unit=unit, most=most)
        assert len(asked) <= 4 and all(rows % unit == 0 for rows in asked)
        if found == 0:
            assert fixed + each * unit + rounding > available
            continue
        assert asked[found] <= available and found <= max(most, unit)
        room = found + unit <= most and bytes_of(found + unit) <= available
        assert not room or asked[found] >= 0.97 * available


def test_no_rows_fit():
    assert memory.most_rows(lambda rows: 10 * rows, 9, unit=1, most=100) == 0
