"""Models side by side: size, work, speed on this device, and the loss on held-out text."""

import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.parallel import sharding
from bertjax.tasks import inputs
from bertjax.train import metrics, objective, workdir
from bertjax.trained import load as pretrained
from bertjax.config.recipe import override
from bertjax.config.schema import Config, MeshConfig, ModelConfig, TeacherConfig
from bertjax.errors import ConfigError, UserError
from bertjax.trained.inference import Loaded
from bertjax.model.network import param_shardings
from bertjax.tasks.pretrain import make_evaluate

BATCHES = (1, 32)
LENGTH = 128
"""Rows at a time, and tokens of a row, whose forward pass is timed."""


def compare(paths: list[Path], *, repeats: int) -> dict[str, Any]:
    """Compare work directories and Hugging Face directories, the first being what the others are held against.

    Returns `models`, a list of `name`, `parameters`, `bytes` (float32), `flops_per_token` (forward), `latency_ms` (by
    batch, median of `repeats`, the models in turn), `sequences_per_second` (of the largest batch), `mlm_loss` and
    `mlm_accuracy`; and `ratios`, the same numbers over those of the first model. Held-out text is that of the first
    work directory that has a data set; where there is none, or a model has another tokenizer or is too short for its
    rows, the last two are None. Raises what `pretrained.load` raises.
    """
    if not paths:
        raise ConfigError("bertjax compare DIR ...: name work directories or Hugging Face directories")
    found = [pretrained.load(path) for path in paths]
    length = min([LENGTH, *(one.model.max_positions for one in found)])
    speeds = _speeds([Loaded(x.model, jax.device_put(x.params), x.tokenizer, x.heads) for x in found], length, repeats)
    models = []
    for path, one, seconds, quality in zip(paths, found, speeds, _qualities(paths, found), strict=True):
        count = sum(leaf.size for leaf in jax.tree.leaves(one.params))
        models.append(
            {
                "name": str(path),
                "parameters": count,
                "bytes": 4 * count,
                "flops_per_token": _forward_flops(one.model, length),
                "latency_ms": {str(batch): 1000 * value for batch, value in seconds.items()},
                "sequences_per_second": BATCHES[-1] / seconds[BATCHES[-1]],
                **quality,
            }
        )
    return {"models": models, "tokens_per_sequence": length, "ratios": [_ratio(model, models[0]) for model in models]}


def _forward_flops(model: ModelConfig, length: int) -> float:
    """Of the encoder alone, as the forward pass is timed without the MLM head."""
    data = replace(Config().data, seq_len=length)
    parts = metrics.flops_per_token(model, data)
    return (parts["total"] - parts["mlm_head"]) / 3.0


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


def _qualities(paths: list[Path], found: list[pretrained.Pretrained]) -> list[dict[str, float | None]]:
    """Loss and accuracy of the masked words of held-out text, for each model."""
    nothing: dict[str, float | None] = {"mlm_loss": None, "mlm_accuracy": None}
    for path in paths:
        try:
            config = workdir.load_config(path)
            tokens, prepared = inputs.open_data(config, path)
            break
        except UserError:  # no work directory, or one without its data set
            continue
    else:
        return [nothing] * len(paths)
    qualities = []
    for one in found:
        same = one.tokenizer is not None and one.tokenizer.digest == tokens.digest
        fits = config.data.seq_len <= one.model.max_positions and not (config.data.pairs and one.model.token_types == 1)
        if not (same and fits and "mlm_head" in one.heads):
            qualities.append(nothing)
            continue
        held_out = objective.held_out(replace(config.objective, pair=0.0))
        asked = override(
            config,
            model=asdict(replace(one.model, attention="auto")),
            objective=vars(held_out),
            teacher=vars(TeacherConfig()),
            mesh=vars(MeshConfig()),
        )
        mesh = sharding.make_mesh(asked.mesh, jax.devices()[:1])
        params = jax.device_put(one.params, param_shardings(asked.model, mesh))
        values = make_evaluate(asked, mesh, tokens, prepared)(params)
        qualities.append({name: values[name] for name in nothing})
    return qualities


def _ratio(model: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in model.items():
        if isinstance(value, dict):
            found[name] = _ratio(value, first[name])
        elif name != "name":
            found[name] = value / first[name] if value is not None and first[name] else None
    return found


def table(result: dict[str, Any]) -> str:
    """The comparison for a person: a column for each model, with the ratio to the first."""
    numbers = [_flat(model) for model in result["models"]]
    ratios = [_flat(ratio) for ratio in result["ratios"]]
    lines = [f"{'':<22}" + "".join(f"{model['name'][-24:]:>26}" for model in result["models"])]
    for name in numbers[0]:
        cells = []
        for i, one in enumerate(numbers):
            value, ratio = one[name], ratios[i][name]
            shown = "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
            cells.append(shown + (f" ({ratio:.2f}x)" if i and ratio is not None else ""))
        lines.append(f"{name.replace('_', ' '):<22}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars of the models, a panel for each number, and below them the held-out loss by step of those that are runs; as
    a picture in the format of the file's ending.
    """
    from matplotlib.figure import Figure  # here: it takes half a second to import

    models = [model["name"] for model in result["models"]]
    numbers = [_flat(model) for model in result["models"]]
    panels = [name for name in numbers[0] if name != "bytes" and any(one[name] is not None for one in numbers)]
    curves = {name: curve for name in models if (curve := _held_out_losses(Path(name)))}
    heights = [0.3 * len(models) + 1.0] + [5.0] * bool(curves)
    figure = Figure(figsize=(2.2 * len(panels) + 2.0, sum(heights)), layout="constrained")
    above, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, name in zip(above.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        axis.barh(range(len(models)), [one[name] or 0.0 for one in numbers])
        axis.set_yticks(range(len(models)), [model[-24:] for model in models])
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    axis.invert_yaxis()
    if curves:
        axis = below[0].subplots()
        for name, curve in curves.items():
            axis.plot(*zip(*curve, strict=True), marker=".", label=name[-24:])
        axis.set(xlabel="step", ylabel="held-out mlm loss")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def _held_out_losses(directory: Path) -> list[tuple[int, float]]:
    """Step and loss of the evaluations of a run; none if the directory is not that of a run."""
    lines = metrics.read(directory / metrics.METRICS)
    return [(line["step"], line["eval_mlm_loss"]) for line in lines if "eval_mlm_loss" in line]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}, batch {batch}": x for batch, x in value.items()}
        elif name != "name":
            found[name] = value
    return found
