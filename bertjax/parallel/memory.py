"""What fits where arrays live: the memory that is free, what a compiled program takes, and the most rows that fit.

Bytes are always of one device. The devices of a mesh on CPU share the memory of the host evenly.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

SHARE = 0.85
"""Of the memory that is free, what `most_rows` plans with. The rest is for what XLA does not count: on CPU, what matrix
products and the allocator take beside the buffers of a program, and on other devices the gaps between buffers."""


def free(mesh: Mesh) -> int | None:
    """The bytes that each device can still take; None where that is not known."""
    if mesh.devices.flat[0].platform == "cpu":
        host = host_free()
        return None if host is None else host // len(mesh.local_devices)
    statistics = [device.memory_stats() or {} for device in mesh.local_devices]
    if not all("bytes_limit" in each for each in statistics):
        return None
    return min(each["bytes_limit"] - each.get("bytes_in_use", 0) for each in statistics)


def host_free(root: Path = Path("/")) -> int | None:
    """The bytes that this process can still take: what the machine has left, or less if its control groups (of a
    container, of a batch system) may not take so much. None on a system that does not tell.
    """
    try:
        meminfo = (root / "proc/meminfo").read_text()
        machine = int(meminfo.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return max(0, min([machine, *_left_to_groups(root)]))


def _left_to_groups(root: Path) -> Iterator[int]:
    """What each control group above this process may still take, in both versions of control groups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and controllers == "":
            top, limit, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # In a container, the path may be that of the host, and what is mounted at the top its end.
        group = top / path.lstrip("/")
        for place in (group, *(parent for parent in group.parents if top in (parent, *parent.parents))):
            try:
                most, taken = int((place / limit).read_text()), int((place / used).read_text())
                statistics = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # "max", or no such group here
                continue
            # What is cached of files is given up when it is needed.
            yield most - taken + int(statistics.get(cache, 0))


def needed(compiled: Any) -> int | None:
    """The most bytes that a program of `jax.stages.Compiled` holds at a time, its arguments included; None where its
    compiler does not tell.
    """
    found = compiled.memory_analysis()
    if found is None:
        return None
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return int(found.argument_size_in_bytes + new + found.temp_size_in_bytes)


def held(tree: Any) -> int:
    """The bytes that the arrays of a tree take already; shapes without memory count for nothing."""
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return sum(size(x) for x in arrays)


def size(x: Any) -> int:
    """The bytes that an array, or its shape with a sharding, takes on one device."""
    count = 1
    for length in x.sharding.shard_shape(x.shape):
        count *= length
    return int(count * x.dtype.itemsize)


def most_rows(bytes_of: Callable[[int], int], available: int, *, unit: int, most: int) -> int:
    """The most rows, a multiple of `unit` and at most `most`, whose `bytes_of(rows)` are at most `available`, to three
    in a hundred; 0 if not even `unit` rows fit.

    Memory grows evenly with rows, but for roundings: so `bytes_of`, which compiles, is asked where the line through
    the last two answers says that the limit is, three or four times in all. The rows that are returned were asked for.
    """
    fits, fits_bytes, beyond = 1, bytes_of(unit), most // unit + 1  # counted in units
    if fits_bytes > available:
        return 0
    guess, last, last_bytes = 4, fits, fits_bytes
    while beyond - fits > max(1, 0.03 * fits) and available - fits_bytes > 0.03 * available:
        guess = min(max(guess, fits + 1), beyond - 1)
        found = bytes_of(guess * unit)
        slope = (found - last_bytes) / (guess - last)
        last, last_bytes = guess, found
        if found <= available:
            fits, fits_bytes = guess, found
        else:
            beyond = guess
        guess = last + int((available - found) // slope) if slope > 0 else 2 * last
    return fits * unit
