"""What a launcher tells a process: of how many it is one, and which. Read without JAX, so that errors come quickly.

    BERTJAX_COORDINATOR      HOST:PORT of process 0
    BERTJAX_PROCESSES        how many there are; auto = JAX finds that out and the two others (a Cloud TPU VM)
    BERTJAX_PROCESS          which this is, from 0
    BERTJAX_LOCAL_DEVICES    the devices of this process, as 0,1; without it all that it sees
    BERTJAX_EXPECT_DEVICES   of all processes together: a run with another number is refused

Slurm, Open MPI and GKE's TPU slices tell in their own variables, which JAX reads.
"""

from collections.abc import Mapping
from typing import Any

from bertjax.errors import ConfigError

COORDINATOR, PROCESSES, PROCESS = "BERTJAX_COORDINATOR", "BERTJAX_PROCESSES", "BERTJAX_PROCESS"
LOCAL_DEVICES, EXPECT_DEVICES = "BERTJAX_LOCAL_DEVICES", "BERTJAX_EXPECT_DEVICES"

LAUNCHERS = {
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}
"""Launcher -> the variables in which it tells how many processes there are, and which this is."""


def announced(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is called with; nothing that it finds out for itself, None for a process alone.

    Raises ConfigError for variables that say something else than what they must.
    """
    devices = environment.get(LOCAL_DEVICES, "")
    local: dict[str, Any] = {"local_device_ids": numbers(LOCAL_DEVICES, devices)} if devices else {}
    ours = [name for name in (COORDINATOR, PROCESSES, PROCESS) if environment.get(name)]
    if ours == [PROCESSES] and environment[PROCESSES] == "auto":
        return local
    if ours:
        missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in ours]
        if missing:
            raise ConfigError(f"{', '.join(ours)}: set without {', '.join(missing)}; set all three, or none")
        count, which = number(environment, PROCESSES), number(environment, PROCESS)
        if not 0 <= which < count:
            raise ConfigError(f"{PROCESS} = {which}: must be from 0 to {PROCESSES} - 1 = {count - 1}")
        address = environment[COORDINATOR]
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"{COORDINATOR} = {address!r}: must be HOST:PORT")
        found: dict[str, Any] = {"coordinator_address": address, "num_processes": count, "process_id": which, **local}
        if host in ("127.0.0.1", "localhost", "[::1]"):
            found["coordinator_bind_address"] = address  # JAX listens to the whole network otherwise
        return found if count > 1 else None
    for size, rank in LAUNCHERS.values():
        # Outside of a step (`sbatch` without `srun`), neither is there.
        if environment.get(size, "1") != "1" and rank in environment:
            return local
    several = "," in environment.get("TPU_WORKER_HOSTNAMES", "") or "," in environment.get("TPU_PROCESS_ADDRESSES", "")
    return local if several or environment.get("MEGASCALE_COORDINATOR_ADDRESS") else None


def is_told(environment: Mapping[str, str]) -> bool:
    """Whether there is something to do before a run asks for devices."""
    return announced(environment) is not None or bool(environment.get(EXPECT_DEVICES))


def number(environment: Mapping[str, str], name: str) -> int:
    """The whole number in this variable. Raises ConfigError for something else."""
    text = environment[name]
    if not text.isdecimal():
        raise ConfigError(f"{name} = {text!r}: must be a whole number")
    return int(text)


def numbers(name: str, text: str) -> list[int]:
    """The whole numbers in a text of them, with commas between. Raises ConfigError for something else."""
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"{name} = {text!r}: must be numbers, as 0,1")
    return [int(word) for word in words]
