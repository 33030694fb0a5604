"""Texts and batches through a loaded model, timed alone or in turn with the torch model of Hugging Face.

Both sides live in this process and take turns, A B A B, so that a drift of the machine's speed meets both: the figure
to quote is the ratio of neighbouring runs.

Shape letters: B rows, L positions of a row.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.trained import inference
from bertjax.errors import ConfigError

ROWS = 32
LENGTH = 128


def bench(path: Path, texts: list[str], *, peer: str, repeats: int) -> dict[str, Any]:
    """Time `texts` given at once (tokenised, and averaged to an embedding each) and 32 rows of 128 tokens, no padding.

    `path` is what `bertjax.load` reads; with `peer` = "torch" a Hugging Face directory, whose torch model takes the
    texts as its users give them: 32 at a time in their order, padded to the longest. Returns for "texts" and "rows"
    `first_seconds` (with compilation), `seconds` of each side (median), `per_second` of bertjax and, with a peer,
    `ratio`, the median of its time over bertjax's, pair by pair. Raises ConfigError where there is nothing to time.
    """
    if not texts:
        raise ConfigError("bertjax bench encode: no texts; give them on standard input, one a line")
    loaded = inference.load(path)
    length = min(LENGTH, loaded.config.max_positions)
    tokens_BL = np.random.default_rng(0).integers(0, loaded.config.vocab_size, (ROWS, length))
    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "bertjax": (lambda: loaded.encode_text(texts), lambda: loaded(tokens_BL, outputs=("hidden",)))
    }
    if peer:
        sides[peer] = _torch(path, texts, tokens_BL)
    counts = {"texts": len(texts), "rows": ROWS}
    return {
        name: _pairs({side: calls[i] for side, calls in sides.items()}, counts[name], repeats)
        for i, name in enumerate(counts)
    }


def _pairs(calls: dict[str, Callable[[], Any]], count: int, repeats: int) -> dict[str, Any]:
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


def _torch(path: Path, texts: list[str], tokens_BL: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError("--peer=torch: needs the extra, `pip install 'bertjax[hf]'`") from error
    if not (path / "model.safetensors").is_file():
        raise ConfigError(f"--peer=torch: {path} is no Hugging Face directory; make one with `bertjax export`")
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
    model, words = AutoModel.from_pretrained(path).train(False), AutoTokenizer.from_pretrained(path)

    @torch.inference_mode()
    def encode() -> None:
        for start in range(0, len(texts), ROWS):
            batch = words(texts[start : start + ROWS], padding=True, truncation=True, return_tensors="pt")
            mask_BL1 = batch["attention_mask"][:, :, None]
            (model(**batch).last_hidden_state * mask_BL1).sum(1) / mask_BL1.sum(1)

    rows_BL = torch.from_numpy(tokens_BL)

    @torch.inference_mode()
    def hidden() -> None:
        model(input_ids=rows_BL, attention_mask=torch.ones_like(rows_BL))

    return encode, hidden
