"""Minimal pairs: does the model find the good sentence likelier than the bad one? By command, and during training.

Shape letters: S sentences, N pairs of a paradigm.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.config.schema import ComputeConfig, Config, MeshConfig
from bertjax.console import say
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError, NumericError
from bertjax.model.network import param_shardings
from bertjax.parallel import sharding
from bertjax.progress import Progress
from bertjax.train.task import Evaluation
from bertjax.trained import load, pairs
from bertjax.trained import score as sentences
from bertjax.trained.pairs import Paradigm

CHANCE = 0.5


@dataclass(frozen=True)
class Asked:
    """Paradigms as ids: each sentence once, and which of them the pairs are."""

    sentence_S: list[tuple[int, ...]]
    paradigms: list[tuple[str, str, np.ndarray, np.ndarray]]  # name, field, good [N], bad [N]
    skipped: int  # pairs of which one sentence is longer than the positions of the model


def asked(paradigms: Sequence[Paradigm], tokenizer: Tokenizer, most: int) -> Asked:
    """The pairs as ids, without those that take more than `most` positions. Raises DataError if none is left."""
    texts = [text for paradigm in paradigms for pair in paradigm.pairs for text in pair]
    ids_n, lengths = tokenizer.encode_batch(texts)
    rows = iter(tuple(ids.tolist()) for ids in np.split(ids_n, np.cumsum(lengths)[:-1]))
    numbers: dict[tuple[int, ...], int] = {}
    found, skipped = [], 0
    for paradigm in paradigms:
        kept = []
        for _ in paradigm.pairs:
            pair = (next(rows), next(rows))
            if max(map(len, pair)) + 2 <= most:
                kept.append([numbers.setdefault(ids, len(numbers)) for ids in pair])
            else:
                skipped += 1
        if kept:
            good_N, bad_N = np.array(kept).T
            found.append((paradigm.name, paradigm.field, good_N, bad_N))
    if not found:
        fix = "use pairs of shorter sentences, or a model with more positions"
        raise DataError(f"minimal pairs: all are longer than the {most} positions of the model; {fix}")
    return Asked(list(numbers), found, skipped)


def judged(asked: Asked, score_S: np.ndarray) -> dict[str, Any]:
    """Shares of pairs whose good sentence has the higher score; a tie, as of two sentences with the same ids, is wrong.

    `accuracy` is the mean over the paradigms, `standard_error` how far it would typically be off with other pairs of
    the same paradigms; `fields` are means over their paradigms. Raises NumericError for a score that is no number.
    """
    if not np.isfinite(score_S).all():
        raise NumericError("minimal pairs: a score is no number; the weights are too large: use another checkpoint")
    found, by_field = {}, defaultdict(list)
    errors, ties = [], 0
    for name, field, good_N, bad_N in asked.paradigms:
        share = float(np.mean(score_S[good_N] > score_S[bad_N]))
        ties += int(np.sum(score_S[good_N] == score_S[bad_N]))
        found[name] = {"accuracy": share, "pairs": len(good_N), "field": field}
        by_field[field].append(share)
        errors.append(share * (1.0 - share) / len(good_N))
    return {
        "accuracy": float(np.mean([one["accuracy"] for one in found.values()])),
        "standard_error": float(np.sqrt(np.sum(errors))) / len(found),
        "pairs": sum(one["pairs"] for one in found.values()),
        "ties": ties,
        "skipped": asked.skipped,
        "fields": {field: float(np.mean(shares)) for field, shares in by_field.items() if field},
        "paradigms": found,
    }


def score(path: Path, sources: Sequence[str], *, by: str, limit: int) -> dict[str, Any]:
    """`judged` for the model in a work or Hugging Face directory, with `model` and `by`; on all devices.

    `limit` pairs of each paradigm (0 = all). Raises what `pairs.read` and `load.load` raise, CheckpointError for a
    model without a trained MLM head, DataError for one without a tokenizer.
    """
    paradigms = pairs.read(sources, limit=limit)
    found = load.load(path)
    tokenizer = load.word_tokenizer(path, found.heads, found.tokenizer)
    ask = asked(paradigms, tokenizer, found.config.max_positions)
    mesh = sharding.make_mesh(MeshConfig())
    plan = sentences.plan(ask.sentence_S, found.config, tokenizer.special, mesh, by=by)
    bar = _Bar(plan.work)
    try:
        params = jax.device_put(found.params, param_shardings(found.config, mesh))
        score_S = sentences.scorer(found.config, found.compute, mesh)(params, plan, bar.advance)
    finally:
        bar.close()
    _say_skipped(ask)
    return {"model": str(path), "by": by, **judged(ask, score_S)}


def evaluation(config: Config, tokenizer: Tokenizer, mesh: jax.sharding.Mesh) -> tuple[Evaluation, ...]:
    """The evaluation of `run.pairs` during training, by pseudo-log-likelihood; none if there are none.

    It gives `accuracy`, `standard_error`, and the accuracy of each field by its name. Raises DataError for pairs that
    cannot be read, before anything is computed.
    """
    run, model = config.run, config.model
    if not run.pairs:
        return ()
    ask = asked(pairs.read(run.pairs, limit=run.pairs_limit), tokenizer, model.max_positions)
    _say_skipped(ask)
    plan = sentences.plan(ask.sentence_S, model, tokenizer.special, mesh, by="pll")
    # Rows of other lengths than those of training: with the attention that takes any.
    scores = sentences.scorer(model, ComputeConfig(dtype=config.compute.dtype), mesh)

    def evaluate(params: Any) -> dict[str, float]:
        result = judged(ask, scores(params, plan, lambda work: None))
        fields = {f"{field}_accuracy": share for field, share in result["fields"].items()}
        return {name: result[name] for name in ("accuracy", "standard_error")} | fields

    fields = dict.fromkeys(field for _, field, *_ in ask.paradigms if field)
    judges = ("accuracy", *(f"{field}_accuracy" for field in fields))
    on = f"{len(ask.sentence_S)} sentences of {', '.join(run.pairs)}"
    return (Evaluation("pairs", run.eval_every, evaluate, judges=judges, on=on),)


def _say_skipped(asked: Asked) -> None:
    if asked.skipped:
        say(f"minimal pairs: {asked.skipped} are longer than the positions of the model, and left out")


class _Bar:
    """The bar and, for who has none, after some seconds of work how long the rest will take if it is over a minute."""

    def __init__(self, work: int) -> None:
        self._bar, self._work, self._done = Progress(work, unit="token", label="score"), work, 0
        self._start, self._told = (0.0, 0), False

    def advance(self, work: int) -> None:
        """Count so many tokens more."""
        self._bar.advance(work)
        self._done += work
        now = time.monotonic()
        if self._done == work:  # the first batch compiled
            self._start = (now, work)
        elif not self._told and now - self._start[0] > 2.0:
            self._told = True
            left = (now - self._start[0]) * (self._work - self._done) / (self._done - self._start[1])
            if left > 60.0:
                self._bar.say(f"score: about {left / 60.0:.0f} minutes to go; --limit=N takes N pairs of each paradigm")

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


def table(result: dict[str, Any]) -> str:
    """The result for a person: percentages of each paradigm under its field, and the mean."""
    lines, shown = [], result["paradigms"]
    for field in dict.fromkeys(one["field"] for one in shown.values()):
        if field:
            lines.append(f"{field:<62}{100 * result['fields'][field]:6.1f}")
        lines += [
            f"  {name:<60}{100 * one['accuracy']:6.1f}  of {one['pairs']:,}"
            for name, one in shown.items()
            if one["field"] == field
        ]
    mean, error = 100 * result["accuracy"], 100 * result["standard_error"]
    what = f"mean of {len(shown)} paradigms, by {result['by']}"
    lines.append(f"{what:<62}{mean:6.1f}  +- {error:.1f}; chance is 50")
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """A bar for each paradigm, a colour for each field, a line at chance and one at the mean; in the format of the
    file's ending.
    """
    from matplotlib.figure import Figure  # here: it takes half a second to import

    shown = result["paradigms"]
    fields = list(dict.fromkeys(one["field"] for one in shown.values()))
    names = [name for field in fields for name, one in shown.items() if one["field"] == field]
    figure = Figure(figsize=(8.0, 0.22 * len(names) + 1.4), layout="constrained")
    axis = figure.subplots()
    for colour, field in enumerate(fields):
        places = [i for i, name in enumerate(names) if shown[name]["field"] == field]
        shares = [100 * shown[names[i]]["accuracy"] for i in places]
        axis.barh(places, shares, color=f"C{colour % 10}", label=field or None)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.axvline(100 * CHANCE, color="k", linestyle=":", label="chance")
    axis.axvline(100 * result["accuracy"], color="k", linewidth=1, label=f"mean {100 * result['accuracy']:.1f}")
    axis.set(xlim=(0, 100), xlabel=f"% of pairs whose good sentence is likelier ({result['by']})")
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=110)
