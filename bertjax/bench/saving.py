"""What a save costs a run: how long training stands still for it, and how much slower it is while it is written."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bertjax import batch, storage
from bertjax.bench.made import MadeStep
from bertjax.bench.memory import plan
from bertjax.config.schema import Config
from bertjax.train.checkpoint import Checkpoints

_LONGER = 2.0
"""A window lasts so many times as long as a save takes to be written, so that all of it falls into the window."""


def bench(config: Config, *, directory: Path | None, every: int, windows: int) -> dict[str, Any]:
    """Save the state of a run of `config` below `directory` (None = that of the system for temporary files), which is
    left as it was, while training goes on. Stretches with a save and without one take turns. Returns

    step_seconds     of a step while nothing is saved, median
    blocked_seconds  for which a save keeps the next step waiting
    write_seconds    from its begin until it is on disk, while nothing else is done; once
    save_seconds     by which a stretch with a save is longer, median: it stands still, and the writing slows the steps
    stall            by what share saving every `every` steps lengthens a run: save_seconds / (every * step_seconds)
    every, bytes     the interval; of a checkpoint on disk

    Raises ConfigError for a config that cannot train here, StorageError where nothing can be written.
    """
    made = plan(config)
    step = MadeStep(made, [batch.synthetic(made.config)])
    with (
        tempfile.TemporaryDirectory(prefix="bertjax-saves-", dir=directory and storage.make(directory)) as place,
        closing(Checkpoints(Path(place) / "checkpoints", keep=1)) as saves,
    ):

        def trained(steps: int) -> None:
            for _ in range(steps):
                step()

        def saved() -> None:
            number = int(step.state.step)
            saves.save(number, step.state, identity=made.task.identity, rows=0, config=config)

        trained(2)  # the first touches its memory
        write = _seconds(saved) + _seconds(saves.wait)
        steps, found = max(2, round(_LONGER * write / _seconds(lambda: trained(1)))), list[dict[str, float]]()
        for _ in range(windows):
            without = _seconds(lambda: trained(steps))
            blocked = _seconds(saved)
            save = blocked + _seconds(lambda: trained(steps)) - without
            saves.wait()
            found.append({"step_seconds": without / steps, "blocked_seconds": blocked, "save_seconds": save})
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    stall = medians["save_seconds"] / (every * medians["step_seconds"])
    return {**medians, "write_seconds": write, "stall": stall, "every": every, "bytes": size}


def table(result: dict[str, Any]) -> str:
    """The same for a person."""
    r, waiting = result, f"a save keeps it waiting for {result['blocked_seconds']:.3f} s"
    return "\n".join(
        [
            f"{r['bytes'] / 1e6:,.1f} MB, on disk after {r['write_seconds']:.2f} s",
            f"a step takes {r['step_seconds']:.4g} s; {waiting}, and costs {r['save_seconds']:.3f} s in all, since the"
            " writing slows the steps",
            f"every {r['every']:,} steps: {r['stall']:.2%} of the time of a run",
        ]
    )


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
