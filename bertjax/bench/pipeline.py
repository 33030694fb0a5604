"""The input pipeline timed by itself: how many real tokens a second one core makes ready, and which stage limits it."""

import time
from contextlib import closing
from dataclasses import replace

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data.batches import STAGES, train_maker
from bertjax.data.dataset import Prepared
from bertjax.data.loader import train_batches
from bertjax.data.order import epoch_rows
from bertjax.data.tokenizer import Tokenizer

_ROWS = 64  # of a batch here: large enough that handing it over costs nothing
_TIMED = 8  # batches whose stages are timed


def bench(data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int, seconds: float = 10.0) -> dict:
    """Time ready batches of the training stream for about `seconds`, made by one loader thread.

    Returns `real_tokens_per_second_per_core` (padding is not counted; seconds of processor time, which other work on
    the machine disturbs little), `real_tokens_per_second` by the clock, `rows` timed, their `packing_density`,
    `plan_seconds` (once, at the start) and `bound_by`, the stage that takes most, with the share of each in `stages`.
    """
    data = replace(data, loader_threads=1, loader_workers=0, batch_size=_ROWS)
    start = time.perf_counter()
    epoch_rows(data, prepared.train, seed=seed)
    plan_seconds = time.perf_counter() - start
    rows = tokens = slots = 0
    with closing(train_batches(data, prepared, tokenizer, seed=seed)) as batches:
        for _ in range(4):
            next(batches)
        start, busy = time.perf_counter(), time.process_time()
        while (elapsed := time.perf_counter() - start) < seconds:
            segments_BL = next(batches)["segments"]
            rows, slots = rows + len(segments_BL), slots + segments_BL.size
            tokens += int(np.count_nonzero(segments_BL))
        busy = time.process_time() - busy
    shares = stages(data, prepared, tokenizer, seed=seed)
    bound_by = max(shares, key=shares.__getitem__)
    return {
        "real_tokens_per_second_per_core": tokens / busy,
        "packing_density": tokens / slots,
        "rows": rows,
        "bound_by": f"{bound_by} ({shares[bound_by]:.0%} of the time)",
        "real_tokens_per_second": tokens / elapsed,
        "plan_seconds": plan_seconds,
        "stages": shares,
    }


def stages(data: DataConfig, prepared: Prepared, tokenizer: Tokenizer, *, seed: int) -> dict[str, float]:
    """The share of each of `STAGES` in the time of some batches. The timing itself takes a tenth or so of it."""
    clock = _Clock()
    make = train_maker(data, prepared, tokenizer, seed=seed, timer=clock)
    for number in range(_TIMED):
        make(number)
    return {stage: spent / sum(clock.spent.values()) for stage, spent in clock.spent.items()}


class _Clock:
    """Seconds spent in each stage, from the first call on."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)
        self._stage, self._since = "", 0.0

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self.spent[self._stage] += now - self._since
        self._stage, self._since = stage, now
