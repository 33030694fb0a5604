"""Several processes that are one run: how they find each other, and how they decide together.

Of a process alone, every function here is the identity and costs nothing.

What one process decides from what only it knows (a signal, a file, an error) goes through `agreed`, `by_first` or
`Together`: processes that took different branches would wait for each other without end.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax import errors
from bertjax.config.schema import MeshConfig
from bertjax.console import mute, say
from bertjax.errors import ConfigError, PeerError, UserError, one_line
from bertjax.parallel import launched, lost, sharding

T = TypeVar("T")

HEARTBEAT = 60
"""Seconds without a sign of life of a process, after which JAX's own service ends the others. A process that dies is
usually noticed at once, by the connections that it leaves."""
FOUND_WITHIN = 300
"""Seconds in which all processes must have started."""


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Join the other processes, if a launcher announced some; to be called before anything else asks JAX for devices.

    Says what there is: processes, hosts, devices. Processes but the first then say only what ends them. Raises
    ConfigError where the devices are not those that were expected, on all processes alike; PeerError if the processes
    do not find each other.
    """
    found = launched.announced(environment)
    if found is not None:
        _join(found)
    _check_devices(environment)
    if several():
        if not first():
            mute()
        for line in table(gathered([socket.gethostname(), _shown(jax.local_devices())])):
            say(line)


def _join(found: dict[str, Any]) -> None:
    if jax.distributed.is_initialized():
        return
    # Collectives of the CPU go through gloo, JAX's default; a wait there ends with an error when a peer is gone.
    try:
        jax.distributed.initialize(
            **found,
            initialization_timeout=FOUND_WITHIN,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=30,
        )
    except (RuntimeError, ValueError, OSError) as error:
        address = found.get("coordinator_address", "the launcher's")
        fix = "see whether all processes were started, and reach process 0 there"
        problem = f"the processes of this run did not find each other ({one_line(error)})"
        raise PeerError(f"{address}: {problem}; {fix}") from error
    lost.heed_aborts()


def _check_devices(environment: Mapping[str, str]) -> None:
    name = launched.EXPECT_DEVICES
    if environment.get(name):
        expected, seen = launched.number(environment, name), len(jax.devices())
        if seen != expected:
            local = f"processes: {jax.process_count()}, of this one {_shown(jax.local_devices())}"
            raise ConfigError(f"{name} = {expected}: {seen} devices are seen ({local}); mend the launch")


def _shown(devices: list[Any]) -> str:
    return f"{len(devices)} x {devices[0].device_kind}"


def table(found: list[list[str]]) -> list[str]:
    """Lines for a person: the processes by host and devices, given [host, devices] of each."""
    lines = [f"{len(found)} processes, {len(jax.devices())} devices"]
    return lines + [f"  process {i}  {host}  {devices}" for i, (host, devices) in enumerate(found)]


# Deciding together ---------------------------------------------------------------------------------------------------


def joined() -> bool:
    """Whether this process has been joined with others, asked without starting any device."""
    return bool(jax.distributed.is_initialized())


def several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes what is there once: logs, config, manifests."""
    return jax.process_index() == 0


def part() -> None:
    """Take leave of the other processes, when all of them are done: waits for them, 30 s at most, as the usual end of a
    process does; and no longer for one that has died since.
    """
    with contextlib.suppress(RuntimeError):  # JAX's word for that
        jax.distributed.shutdown()


def gathered(value: Any) -> list[Any]:
    """What each process gave, in their order; of values that JSON has. All must call it, as all functions below."""
    if not several():
        return [value]
    from jax.experimental import multihost_utils

    content = np.frombuffer(json.dumps(value, allow_nan=False).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([content.size], np.int32))
    padded = np.zeros(_room(int(sizes.max())), np.uint8)
    padded[: content.size] = content
    rows = multihost_utils.process_allgather(padded).reshape(jax.process_count(), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes.reshape(-1).tolist(), strict=True)]


def _room(size: int) -> int:
    """The bytes that so many are sent in: of few sizes, since each is a program that is compiled once."""
    return max(1024, 1 << (size - 1).bit_length())


def agreed(function: Callable[[], T]) -> T:
    """What `function()` gives here. If it raises on any process, all raise: that one its own error, the others its line
    under its exit code, so that none waits for one that has left.
    """
    if not several():
        return function()
    result, failure = None, None
    try:
        result = function()
    except Exception as error:
        failure = error
    told = gathered(None if failure is None else [type(failure).__name__, str(failure)])
    if failure is not None:
        raise failure
    _raise_of_others(told)
    return result  # type: ignore[return-value]  # it raised, or there is a result


def by_first(function: Callable[[], T]) -> T:
    """What `function()` gives on the first process, which alone calls it: a value that JSON has. An error of it is
    raised on all.
    """
    if not several():
        return function()
    result, failure = None, None
    if first():
        try:
            result = function()
            json.dumps(result, allow_nan=False)
        except Exception as error:
            failure, result = error, None
    told = gathered([result, None if failure is None else [type(failure).__name__, str(failure)]])
    if failure is not None:
        raise failure
    _raise_of_others([told[0][1]])
    return told[0][0]


def _raise_of_others(told: list[list[str] | None]) -> None:
    for number, failure in enumerate(told):
        if failure is not None:
            kind = getattr(errors, failure[0], None)
            of_user = isinstance(kind, type) and issubclass(kind, UserError)
            error: type[UserError] = kind if of_user else PeerError  # type: ignore[assignment]
            raise error(f"process {number}: {failure[1] or failure[0]}")


class Together:
    """Of several processes, whether one is asked to stop: told to all by the same step, one step late, so that no step
    waits for it.
    """

    alone = False

    def __init__(self, stop: Any) -> None:
        """`stop` is the `signals.noted` of this process."""
        self._stop, self._vote = stop, Vote()

    def wait(self, get: Callable[[], T]) -> T:
        """What `get()` gives. A signal waits: the others would wait for this process in their next step."""
        return get()

    def stopping(self) -> bool:
        """Whether the run stops after this step."""
        return self._vote.cast(bool(self._stop.asked))


class Vote:
    """Whether any process says so, known one call later, so that none waits for it."""

    def __init__(self) -> None:
        mesh = sharding.make_mesh(MeshConfig())  # each device a row
        self._each = sharding.rows_sharding(mesh)
        self._any = jax.jit(jnp.max, out_shardings=sharding.replicated(mesh))
        self._pending: Any = None

    def cast(self, asked: bool) -> bool:
        """Say `asked`; True if any process said so in the call before."""
        mine = [jax.device_put(np.array([asked], np.int8), device) for device in self._each.addressable_devices]
        said = jax.make_array_from_single_device_arrays((jax.device_count(),), self._each, mine)
        before, self._pending = self._pending, self._any(said)
        return before is not None and bool(before)


def own_rows(mesh: Mesh, rows: int) -> tuple[int, ...] | None:
    """The numbers of those of the `rows` of a batch that this process makes; None = all."""
    return tuple(sharding.own_rows(mesh, rows).tolist()) if several() else None


def on_host(tree: Any) -> Any:
    """A tree of arrays as NumPy arrays, whole on each process, wherever their parts are."""
    if not several():
        return jax.device_get(tree)
    placed = [x.sharding for x in jax.tree.leaves(tree)]
    if all(place.is_fully_replicated for place in placed):
        return jax.device_get(tree)
    return jax.device_get(jax.jit(lambda x: x, out_shardings=sharding.replicated(placed[0].mesh))(tree))


def on_devices(tree: Any, like: Any) -> Any:
    """Whole NumPy arrays, the same on each process, on the devices where those of `like` are."""
    return jax.tree.map(lambda x, old: sharding.put_whole(x, old.sharding), tree, like)


def total(values: Mapping[str, float]) -> dict[str, float]:
    """The sum over processes of each of these numbers."""
    found = gathered(dict(values))
    return {name: sum(each[name] for each in found) for name in values}
