"""A training step timed on synthetic batches, alone or in turn with the torch model of Hugging Face on the same work.

Each side lives in a process of its own and only one works at a time, A B A B, so that a drift of the machine's speed
meets both: the figure to quote is the ratio of neighbouring runs.
"""

import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bertjax import batch
from bertjax.bench import torch_peer
from bertjax.config.phases import phases
from bertjax.config.schema import Config
from bertjax.errors import OutOfMemory, UserError


def bench(config: Config, *, peer: str, repeats: int) -> dict[str, Any]:
    """Time `repeats` training steps, after two that are not counted; with `peer` = "torch" in turn with that model.

    Returns for each side `seconds` (median), `fastest`, `slowest` and `tokens_per_second`, and `ratio`, the median of
    bertjax's speed over the peer's, pair by pair. Raises ConfigError for a config that cannot train here, or whose
    work the peer cannot do.
    """
    if peer:
        torch_peer.check_step(config)
    sides = {"bertjax": _bertjax_step} | ({peer: _torch_step} if peer else {})
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        connections = {}
        for name, make in sides.items():
            connections[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, config, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a side that fails is seen, and not waited for
            stack.callback(process.terminate)
            try:
                ready = connections[name].recv()  # built and warm, before the other side starts
            except EOFError:
                process.join()
                if process.exitcode != -signal.SIGKILL:
                    raise
                fix = "most likely the machine has no memory left: free some, or lower data.batch_size"
                raise OutOfMemory(f"{name}: its process was killed; {fix}") from None
            if isinstance(ready, UserError):
                raise ready
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, connection in connections.items():
                connection.send("run")
                times[name].append(connection.recv())
    tokens = config.data.batch_size * config.data.seq_len
    result: dict[str, Any] = {
        name: {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "tokens_per_second": tokens / statistics.median(seconds),
        }
        for name, seconds in times.items()
    }
    if peer:
        pairs = zip(times[peer], times["bertjax"], strict=True)
        result["ratio"] = statistics.median(theirs / ours for theirs, ours in pairs)
    return result


def table(result: dict[str, Any]) -> str:
    """The same for a person: a line for each side, and the ratio."""
    lines = [
        f"{side:<8} " + "  ".join(f"{name} {value:,.3f}" for name, value in numbers.items())
        for side, numbers in result.items()
        if side != "ratio"
    ]
    if "ratio" in result:
        lines.append(f"bertjax is {result['ratio']:.3f} times as fast, median of the pairs")
    return "\n".join(lines)


def _serve(make: Callable[[Config], Callable[[], None]], config: Config, connection: Connection) -> None:
    try:
        step = make(config)
        for _ in range(2):  # the first compiles
            step()
    except UserError as error:
        connection.send(error)
        return
    connection.send("ready")
    while connection.recv():
        start = time.perf_counter()
        step()
        connection.send(time.perf_counter() - start)


def _bertjax_step(config: Config) -> Callable[[], None]:
    import jax

    from bertjax.bench.memory import plan
    from bertjax.parallel import sharding
    from bertjax.tasks import fit

    made, (phase,) = plan(config), phases(config)
    room = fit.Room(made.mesh)
    with room.told(phase, made.task):
        train_step = made.engine.step_of(config, made.task)
        room.ready(phase, made.task, train_step, made.engine.shapes)
        rows = sharding.put_batch(_rows(config), made.mesh)
        state = made.engine.fresh(config.run.seed)

    def step() -> None:
        nonlocal state
        with room.told(phase, made.task):
            state, values = train_step(state, rows)
            jax.block_until_ready((state, values))

    return step


def _torch_step(config: Config) -> Callable[[], None]:
    return torch_peer.training_step(config.model, config.optim, _rows(config))


def _rows(config: Config) -> dict[str, np.ndarray]:
    vocab_size, token_types = config.model.vocab_size, config.model.token_types
    return batch.synthetic(config.data, vocab_size=vocab_size, token_types=token_types, seed=config.run.seed)
