"""A training step timed: by itself, or in turn with the torch model of Hugging Face on the same examples.

The peer gets an example a row, padded to the longest of the batch, as its users give them; where rows hold several
examples, bertjax has them together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from bertjax.bench import own_step, torch_peer
from bertjax.bench.turns import Rows, Side, Work, in_turn, ratio
from bertjax.config.schema import Config

if TYPE_CHECKING:  # rows of random tokens take none of the packages that read data or tokenize
    from bertjax.data.dataset import Prepared
    from bertjax.data.tokenizer import Tokenizer

_BATCHES = 8  # of real rows: as many lengths as it takes for a fair mean


def bench(config: Config, *, vs: str = "", windows: int = 5, rows: Rows | None = None) -> dict[str, Any]:
    """Time training steps on `rows` (None = full rows of random tokens); with `vs`, one of `torch_peer.NAMES`, in turn
    with that model, or with each of them. Returns

    real_tokens_per_second, slot_tokens_per_second   medians of the windows; slots count padding
    step_seconds            median, least, greatest, and their spread as a share of the median
    flops_per_token         of the model, matrix products alone, forward and backward (`bertjax.model.cost`), and
    flops_per_token_by_xla  XLA's own count of the same step, elementwise work included; None with a teacher
    mfu                     by the former, of the devices' peak; None where that is not known
    peak_bytes              of a device by its allocator, or on CPU of the process
    compile_seconds         cold, and cached: again, from what JAX has kept on disk
    recompiles              programs compiled after the first steps
    device, versions
    peer, peers, ratio      with `vs`: the fastest of the models timed, all of them by name, and how many times as many
                            real tokens a second bertjax does as the former, median of neighbouring windows

    Raises ConfigError for a config that cannot train here, or whose work the peer cannot do.
    """
    names = torch_peer.check_step(config, vs) if vs else ()
    with tempfile.TemporaryDirectory(prefix="bertjax-cache-") as cache:
        own = partial(own_step.work, config, rows, cache=cache, shared=bool(vs))
        sides: dict[str, Callable[[], Work]] = {"bertjax": own}
        sides |= {name: partial(torch_peer.work, config, rows, name) for name in names}
        timed = in_turn(sides, windows=windows)
    ours = timed.pop("bertjax")
    result = _told(ours, ours)
    if timed:
        fastest = max(timed, key=lambda name: timed[name].median(lambda w: w.tokens / w.seconds))
        peers = {name: _told(side, ours) for name, side in timed.items()}
        result |= {"peer": {"name": fastest} | peers[fastest], "peers": peers, "ratio": ratio(ours, timed[fastest])}
    return result


def real_rows(config: Config, prepared: Prepared, tokenizer: Tokenizer) -> Rows:
    """The first batches of the training stream of a run."""
    from bertjax.data.loader import train_batches

    with closing(train_batches(config.data, prepared, tokenizer, seed=config.run.seed)) as batches:
        return list(islice(batches, _BATCHES))


def table(result: dict[str, Any]) -> str:
    """The same for a person."""
    flops, compiled = result["flops_per_token"], result["compile_seconds"]
    counted = result["flops_per_token_by_xla"]
    by_xla = f"; {counted / 1e6:,.1f} million by XLA's count" if counted else ""
    lines = [
        f"{result['device']}; {', '.join(f'{name} {number}' for name, number in result['versions'].items())}",
        f"{flops / 1e6:,.1f} million FLOPs a real token{by_xla}",
        f"compiled in {compiled['cold']:.1f} s, from the cache in {compiled['cached']:.1f} s;"
        f" {result['recompiles']} compiled after the first steps",
        f"{'':<12}{'s per step':>12}{'spread':>9}{'real tokens/s':>15}{'slots/s':>12}{'MFU':>8}{'peak memory':>14}",
    ]
    for name, side in {"bertjax": result, **result.get("peers", {})}.items():
        took, mfu = side["step_seconds"], side["mfu"]
        lines.append(
            f"{name:<12}{took['median']:>12.4g}{took['spread']:>9.1%}{side['real_tokens_per_second']:>15,.0f}"
            f"{side['slot_tokens_per_second']:>12,.0f}{'-' if mfu is None else f'{mfu:.1%}':>8}"
            f"{side['peak_bytes'] / 1e9:>11,.2f} GB"
        )
    if "ratio" in result:
        lines.append(f"bertjax is {result['ratio']:.3f} times as fast as {result['peer']['name']} by real tokens")
    return "\n".join(lines)


def _told(side: Side, ours: Side) -> dict[str, Any]:
    """The figures of a side; FLOPs and peak are those of the work, which are the same for all."""
    steps = [window.seconds / window.steps for window in side.windows]
    median = side.median(lambda w: w.seconds / w.steps)
    rate, flops, peak = side.median(lambda w: w.tokens / w.seconds), ours.facts["flops_per_token"], ours.facts["peak"]
    spread = (max(steps) - min(steps)) / median
    return {
        "real_tokens_per_second": rate,
        "slot_tokens_per_second": side.median(lambda w: w.slots / w.seconds),
        "mfu": rate * flops / peak if peak else None,
        "step_seconds": {"median": median, "least": min(steps), "greatest": max(steps), "spread": spread},
        **{name: value for name, value in side.facts.items() if name != "peak"},
    }
