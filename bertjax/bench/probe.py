"""How long a step takes here: timed on synthetic rows, on fewer than a batch where a batch would take too long."""

import time

import jax

from bertjax import batch
from bertjax.bench.memory import Plan
from bertjax.config.phases import phases
from bertjax.console import say
from bertjax.parallel import sharding
from bertjax.tasks import fit
from bertjax.train.state import TrainState

SECONDS = 10.0
"""About as long as the timed steps take together, unless the fewest rows take longer."""
STEPS = 3
"""Steps that are timed; the fastest counts, as the others were disturbed."""


def seconds_per_step(plan: Plan, most_rows: int) -> tuple[float, int]:
    """Seconds of a whole batch of the plan, and how many rows at a time were timed for that: at most `most_rows`.

    The fewest rows are timed first, and then as many as `SECONDS` allow. What a larger batch takes follows from the
    line through the two. Raises OutOfMemory where not even these fit.
    """
    config, mesh = plan.config, plan.mesh
    whole = config.data.batch_size
    least = sharding.row_ways(mesh) * config.optim.accumulate
    (phase,) = phases(config)
    with fit.Room(mesh).told(phase, plan.task):
        state = plan.engine.fresh(config.run.seed)
        state, first = _timed(plan, state, least)
        allowed = max(1, int(SECONDS / ((STEPS + 1) * first))) * least
        rows = min(whole, allowed, max(most_rows, least)) // least * least
        if rows == least:
            return first * whole / least, least
        state, taken = _timed(plan, state, rows)
    each = max(0.0, taken - first) / (rows - least)
    return taken + each * (whole - rows), rows


def _timed(plan: Plan, state: TrainState, rows: int) -> tuple[TrainState, float]:
    """The state, and the seconds of the fastest step; the first, which may compile, is not counted."""
    say(f"timing a step of {rows:,} rows ...")
    put = sharding.put_batch(batch.synthetic(plan.config, rows=rows), plan.mesh)
    train_step, seconds = plan.engine.step_of(plan.config, plan.task), list[float]()
    while len(seconds) < 1 + STEPS and sum(seconds[1:]) < SECONDS:
        start = time.perf_counter()
        state, values = train_step(state, put)
        jax.block_until_ready((state, values))
        seconds.append(time.perf_counter() - start)
    return state, min(seconds[1:])
