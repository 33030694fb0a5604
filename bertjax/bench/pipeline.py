"""The input pipeline timed by itself: how many real tokens a second one core makes ready, and what binds."""

import cProfile
import pstats
import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data import pipeline
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer

STAGES = {"reading records": "tokens", "making examples": "build", "masking": "mask"}
"""What is told apart -> the function whose whole time it is."""

_ROWS = 64  # of a batch here: large enough that handing it over costs nothing


def bench(data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, seconds: float = 10.0) -> dict:
    """Time ready batches of the training stream for about `seconds`, made by one loader thread.

    Returns `real_tokens_per_second_per_core` (padding is not counted; seconds of processor time, which other work on
    the machine disturbs little), `real_tokens_per_second` by the clock, `rows` timed, their `packing_density`,
    `plan_seconds` (once, at the start) and `bound_by`, the stage that takes most, with the share of each in `stages`.
    """
    data = replace(data, loader_threads=1, loader_workers=0, batch_size=_ROWS)
    start = time.perf_counter()
    pipeline.epoch_rows(data, prepared.train, seed=seed)
    plan_seconds = time.perf_counter() - start
    rows = tokens = slots = 0
    with closing(pipeline.train_batches(data, prepared, tokenizer, seed=seed)) as batches:
        for _ in range(4):
            next(batches)
        start, busy = time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - start) < seconds:
            segments_BL = next(batches)["segments"]
            rows, slots = rows + len(segments_BL), slots + segments_BL.size
            tokens += int(np.count_nonzero(segments_BL))
        busy = time.process_time() - busy
    stages = _stages(data, prepared, tokenizer, seed)
    bound_by = max(stages, key=stages.__getitem__)
    return {
        "real_tokens_per_second_per_core": tokens / busy,
        "packing_density": tokens / slots,
        "rows": rows,
        "bound_by": f"{bound_by} ({stages[bound_by]:.0%} of the time)",
        "real_tokens_per_second": tokens / elapsed,
        "plan_seconds": plan_seconds,
        "stages": stages,
    }


def _stages(data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, seed: int) -> dict[str, float]:
    """Share of the time of each stage, under a profiler, which is to say roughly."""
    make = pipeline.train_maker(data, prepared, tokenizer, seed=seed)
    make(0)
    profile = cProfile.Profile()
    for number in islice(range(1, 100), 8):
        profile.runcall(make, number)
    stats: Any = pstats.Stats(profile)
    cumulative = {function: values[3] for (_, _, function), values in stats.stats.items()}
    total = cumulative["__call__"]
    times = {stage: cumulative.get(function, 0.0) for stage, function in STAGES.items()}
    times["making examples"] -= times["reading records"]
    times["laying out rows"] = total - sum(times.values())
    return {stage: spent / total for stage, spent in times.items()}
