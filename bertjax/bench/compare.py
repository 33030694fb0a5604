"""Models side by side: size, work, speed on this device, the loss on held-out text, and what they reached on tasks."""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax import steps
from bertjax.bench import retained
from bertjax.config.phases import phase_at
from bertjax.config.schema import Config, MeshConfig
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import ConfigError, UserError
from bertjax.model.cost import flops_per_token
from bertjax.model.network import forward, param_shardings
from bertjax.parallel import sharding
from bertjax.tasks.evaluate import evaluator
from bertjax.tasks.inputs import open_data
from bertjax.tasks.terms import TERMS
from bertjax.train import metrics, workdir
from bertjax.trained import inference
from bertjax.trained.inference import Loaded

BATCHES = (1, 32)
LENGTH = 128
"""Rows at a time, and tokens of a row, whose forward pass is timed."""
_PANELS = 8
"""Most panels of a picture beside each other."""


def compare(paths: list[Path], *, repeats: int) -> dict[str, Any]:
    """Compare work directories and Hugging Face directories, the first being what the others are held against.

    A directory may also hold several fine-tuned runs of a model, one for each task; the first of them is then the model
    that is counted and timed. Returns

    models  a list of `name`, `parameters`, `bytes` (float32), `flops_per_token` (forward), `latency_ms` (by batch,
            median of `repeats`, the models in turn), `sequences_per_second` (of the largest batch); `mlm_loss`,
            `mlm_accuracy`, `context_gain`; `tasks`, a value for each, and `task_mean`, over those that all have
    tasks   the `metric` of each task, and the `part`, dev or test, that was measured
    ratios  the same numbers as of the models, over those of the first
    tokens_per_sequence

    Held-out text is that of the first work directory that has a data set; where there is none, or a model has another
    tokenizer or is too short for its rows, the three numbers from it are None. Raises what `bertjax.load` and
    `retained.results_of` raise.
    """
    if not paths:
        raise ConfigError("bertjax compare DIR ...: name work directories or Hugging Face directories")
    results = [retained.results_of(path) for path in paths]
    tasks = retained.tasks_of(results)
    values = [retained.values_of(one, tasks) for one in results]
    runs = [(retained.runs_of(path) or [path])[0] for path in paths]
    found = [inference.load(path) for path in runs]
    length = min([LENGTH, *(one.config.max_positions for one in found)])
    held_out = _held_out(runs)
    models = []
    for i, (path, one, seconds) in enumerate(zip(paths, found, _speeds(found, length, repeats), strict=True)):
        count = sum(leaf.size for leaf in jax.tree.leaves(one.params))
        models.append(
            {
                "name": str(path),
                "parameters": count,
                "bytes": 4 * count,
                # Of the encoder alone, as the forward pass is timed without the MLM head.
                "flops_per_token": flops_per_token(one.config, length, predicted=0.0)["total"] / 3.0,
                "latency_ms": {str(batch): 1000 * value for batch, value in seconds.items()},
                "sequences_per_second": BATCHES[-1] / seconds[BATCHES[-1]],
                **_quality(one, held_out),
                "tasks": values[i],
                "task_mean": retained.means(values)[i],
            }
        )
    ratios = [_ratio(model, models[0]) for model in models]
    return {"models": models, "tasks": tasks, "tokens_per_sequence": length, "ratios": ratios}


def _speeds(models: list[Loaded], length: int, repeats: int) -> list[dict[int, float]]:
    """Seconds of each model's forward pass by batch; in turn, so that a drift of the machine meets all."""
    rng = np.random.default_rng(0)
    times: list[dict[int, list[float]]] = [{batch: [] for batch in BATCHES} for _ in models]
    for batch in BATCHES:
        rows = [rng.integers(0, model.config.vocab_size, (batch, length)) for model in models]
        for turn in range(repeats + 1):
            for model, tokens_BL, seconds in zip(models, rows, times, strict=True):
                start = time.perf_counter()
                model(tokens_BL, outputs=("hidden",))
                if turn:  # the first one compiles
                    seconds[batch].append(time.perf_counter() - start)
    return [{batch: statistics.median(values) for batch, values in one.items()} for one in times]


def _held_out(paths: list[Path]) -> tuple[Config, Tokenizer, Prepared] | None:
    """The config, in the phase where the run is, tokenizer and data set of the first work directory that has one."""
    for path in paths:
        try:
            config = workdir.load_config(path)
            step = max(steps.numbers(path / "checkpoints"), default=0)
            return phase_at(config, step).config, *open_data(config, path)
        except UserError:  # no work directory, or one without its data set
            continue
    return None


def _quality(model: Loaded, held_out: tuple[Config, Tokenizer, Prepared] | None) -> dict[str, float | None]:
    """Loss, accuracy and gain from context of masked words of held-out text; None where it cannot be asked about it."""
    names = ("mlm_loss", "mlm_accuracy", "context_gain")
    if held_out is None or "mlm_head" not in model.heads:
        return dict.fromkeys(names)
    config, tokenizer, prepared = held_out
    same = model.tokenizer is not None and model.tokenizer.digest == tokenizer.digest
    long_enough = config.data.seq_len <= model.config.max_positions
    if not (same and long_enough) or (config.data.pairs and model.config.token_types == 1):
        return dict.fromkeys(names)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    values = evaluator(
        forward(model.config, model.compute),
        {"mlm": (1.0, TERMS["mlm"])},
        replace(config.data, batch_size=config.data.batch_size // config.optim.accumulate),
        tokenizer,
        prepared,
        mesh,
        seed=config.run.seed,
        rows=config.run.eval_rows,
    )(jax.device_put(model.params, param_shardings(model.config, mesh)))
    return {name: values[name] for name in names}


def _ratio(model: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in model.items():
        if name == "tasks":
            found[name] = {task: retained.share(score, first[name][task]) for task, score in value.items()}
        elif name == "task_mean":
            found[name] = retained.share(value, first[name])
        elif isinstance(value, dict):
            found[name] = _ratio(value, first[name])
        elif name != "name":
            found[name] = value / first[name] if value is not None and first[name] else None
    return found


def table(result: dict[str, Any]) -> str:
    """The comparison for a person: a column for each model, with the ratio to the first, or for tasks the share
    retained. What no model has is left out.
    """
    numbers = [_flat(model) for model in result["models"]]
    ratios = [_flat(ratio) for ratio in result["ratios"]]
    titles = _titles(result)
    width = max(22, *(len(title) + 2 for title in titles.values()))
    lines = [" " * width + "".join(f"{model['name'][-24:]:>26}" for model in result["models"])]
    for name, title in titles.items():
        cells = []
        for i, one in enumerate(numbers):
            value, ratio = one[name], ratios[i][name]
            shown = "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
            if i and ratio is not None:
                shown += f" ({100 * ratio:.1f} %)" if _of_tasks(name) else f" ({ratio:.2f}x)"
            cells.append(shown)
        lines.append(f"{title:<{width}}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def _titles(result: dict[str, Any]) -> dict[str, str]:
    """Name of each number that a model has -> how a person reads it."""
    numbers = [_flat(model) for model in result["models"]]
    titles = {name: name.replace("_", " ") for name in numbers[0]}
    titles |= {f"tasks, {task}": f"{task}, {how['part']} {how['metric']}" for task, how in result["tasks"].items()}
    return {name: title for name, title in titles.items() if any(one[name] is not None for one in numbers)}


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars of the models, a panel for each number, then one for each task with the shares retained, and below them the
    held-out loss by step of those that are runs; as a picture in the format of the file's ending.
    """
    from matplotlib.figure import Figure  # here: it takes half a second to import

    names = [model["name"] for model in result["models"]]
    titles = _titles(result)
    panels = _panels([name for name in titles if name != "bytes"])
    rows, columns = len(panels), len(panels[0])
    curves = {name: curve for name in names if (curve := _held_out_losses(Path(name)))}
    heights = [rows * (0.3 * len(names) + 1.0)] + [5.0] * bool(curves)
    figure = Figure(figsize=(2.2 * columns + 2.0, sum(heights)), layout="constrained")
    above, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    axes = above.subplots(rows, columns, sharey=True, squeeze=False)
    axes[0, 0].set_yticks(range(len(names)), [name[-24:] for name in names])
    axes[0, 0].invert_yaxis()  # of all: they share it
    for axis, name in zip(axes.flat, [name for row in panels for name in row], strict=True):
        if name:
            _bars(axis, titles[name], [_flat(model)[name] for model in result["models"]], shares=_of_tasks(name))
        else:
            axis.remove()
    if curves:
        axis = below[0].subplots()
        for name, curve in curves.items():
            axis.plot(*zip(*curve, strict=True), marker=".", label=name[-24:])
        axis.set(xlabel="step", ylabel="held-out mlm loss")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def _panels(names: list[str]) -> list[list[str]]:
    """Rows of panels, of equal length: what tasks have begins in a new one. "" = an empty place."""
    groups = [[name for name in names if _of_tasks(name) == tasks] for tasks in (False, True)]
    width = max(-(-len(group) // max(-(-len(group) // _PANELS), 1)) for group in groups)
    rows = [group[start : start + width] for group in groups for start in range(0, len(group), width)]
    return [row + [""] * (width - len(row)) for row in rows]


def _bars(axis: Any, title: str, values: list[float | None], *, shares: bool) -> None:
    bars = axis.barh(range(len(values)), [value or 0.0 for value in values])
    if shares:
        found = [retained.share(value, values[0]) for value in values]
        labels = ["" if share is None or not i else f"{100 * share:.1f} %" for i, share in enumerate(found)]
        axis.bar_label(bars, labels, label_type="center", color="white", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", alpha=0.3)


def _of_tasks(name: str) -> bool:
    return name.startswith("task")


def _held_out_losses(directory: Path) -> list[tuple[int, float]]:
    """Step and loss of the evaluations of a run; none if the directory is not that of a run."""
    lines = metrics.read(directory / metrics.METRICS)
    return [(line["step"], line["eval_mlm_loss"]) for line in lines if "eval_mlm_loss" in line]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}, {key}" if name == "tasks" else f"{name}, batch {key}": x for key, x in value.items()}
        elif name != "name":
            found[name] = value
    return found
