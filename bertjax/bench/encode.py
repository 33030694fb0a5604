"""Texts and batches through a loaded model, timed alone or in turn with the torch model of Hugging Face.

Both sides live in this process and take turns, A B A B, so that a drift of the machine's speed meets both: the figure
to quote is the ratio of neighbouring runs.

Shape letters: B rows, L positions of a row.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.bench import torch_peer
from bertjax.errors import ConfigError
from bertjax.trained import inference

ROWS = 32
LENGTH = 128


def bench(path: Path, texts: list[str], *, vs: str, repeats: int) -> dict[str, Any]:
    """Time `texts` given at once (tokenised, and averaged to an embedding each) and 32 rows of 128 tokens, no padding.

    `path` is what `bertjax.load` reads; with `vs` = "hf" a Hugging Face directory, whose torch model takes the
    texts as its users give them: 32 at a time in their order, padded to the longest. Returns for "texts" and "rows"
    `first_seconds` (with compilation), `seconds` of each side (median), `per_second` of bertjax and, with `vs`,
    `ratio`, the median of its time over bertjax's, pair by pair. Raises ConfigError where there is nothing to time.
    """
    if not texts:
        raise ConfigError("bertjax bench encode: no texts; give them on standard input, one a line")
    encode, hidden = torch_peer.encoder(path) if vs else (None, None)
    loaded = inference.load(path)
    length = min(LENGTH, loaded.config.max_positions)
    tokens_BL = np.random.default_rng(0).integers(0, loaded.config.vocab_size, (ROWS, length))
    on_texts: dict[str, Callable[[], Any]] = {"bertjax": partial(loaded.encode_text, texts)}
    on_rows: dict[str, Callable[[], Any]] = {"bertjax": partial(loaded, tokens_BL, outputs=("hidden",))}
    if encode and hidden:
        on_texts[vs], on_rows[vs] = partial(encode, texts), partial(hidden, tokens_BL)
    return {"texts": _timed(on_texts, len(texts), repeats), "rows": _timed(on_rows, ROWS, repeats)}


def _timed(calls: dict[str, Callable[[], Any]], count: int, repeats: int) -> dict[str, Any]:
    """Each side's call in turn, of which bertjax's is the first."""
    first = {side: _seconds(call) for side, call in calls.items()}
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(repeats):
        for side, call in calls.items():
            times[side].append(_seconds(call))
    medians = {side: statistics.median(seconds) for side, seconds in times.items()}
    result = {"first_seconds": first["bertjax"], "seconds": medians, "per_second": count / medians["bertjax"]}
    ours, *others = times.values()
    if others:
        result["ratio"] = statistics.median(theirs / mine for mine, theirs in zip(ours, others[0], strict=True))
    return result


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
