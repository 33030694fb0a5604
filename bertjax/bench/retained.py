"""What fine-tuned runs reached on their tasks, and the share of a first model's that another one retains."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax import storage
from bertjax.console import say
from bertjax.errors import DataError
from bertjax.finetuning.finetune import RESULT
from bertjax.train import workdir

_SIZE_LIMIT = 10_000_000  # bytes of a result


@dataclass(frozen=True)
class Result:
    """Of one run, or of several that differ in their seeds: its task, and its metrics on dev and test by name."""

    task: str
    metric: str  # the one by which runs are chosen
    dev: dict[str, float]
    test: dict[str, float]  # {} = there was no test


def runs_of(path: Path) -> list[Path]:
    """The fine-tuned runs of a model: a work directory itself, or those in a directory of several, by name."""
    if (path / RESULT).exists() or (path / "checkpoints").exists() or not path.is_dir():
        return [path] if (path / RESULT).exists() else []
    return sorted(child for child in path.iterdir() if (child / RESULT).exists())


def results_of(path: Path) -> dict[str, Result]:
    """What a model reached, by task. Raises DataError for a file that `bertjax finetune` does not write, and for two
    runs of the same task.
    """
    found: dict[str, Result] = {}
    for run in runs_of(path):
        result = _read(run / RESULT)
        if result.task in found:
            raise DataError(f"{run / RESULT}: {path} has two runs of the task {result.task!r}; move one of them away")
        found[result.task] = result
    if not found and (path / "checkpoints").exists() and _fine_tuned(path):
        say(f"{path}: has no {RESULT} yet, which `bertjax finetune` writes at its end")
    return found


def _fine_tuned(path: Path) -> bool:
    found = workdir.remembered(path)
    return found is not None and found[0].task.kind != ""


def _read(path: Path) -> Result:
    fix = "let `bertjax finetune` write it anew"
    try:
        values = json.loads(storage.read(path, _SIZE_LIMIT))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); {fix}") from None
    match values:
        case {"task": str(task), "metric": str(metric), "metrics": {"dev": dict(dev), **others}}:
            test = others.get("test", {})
            if isinstance(test, dict) and all(map(_is_number, [*dev.values(), *test.values()])):
                return Result(task, metric, dev, test)
    raise DataError(f"{path}: is no result of `bertjax finetune`; {fix}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def tasks_of(found: list[dict[str, Result]]) -> dict[str, dict[str, str]]:
    """Of models' results: task -> the metric and the `part`, dev or test, on which they are compared.

    The metric is that of the first model that has the task, and the part test where all that have the task were tested.
    """
    tasks: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(name for results in found for name in results):
        having = [results[name] for results in found if name in results]
        metric = having[0].metric
        part = "test" if all(metric in result.test for result in having) else "dev"
        tasks[name] = {"metric": metric, "part": part}
    return tasks


def values_of(results: dict[str, Result], tasks: dict[str, dict[str, str]]) -> dict[str, float | None]:
    """A model's value of each task; None where it has none."""
    return {
        name: getattr(results[name], how["part"]).get(how["metric"]) if name in results else None
        for name, how in tasks.items()
    }


def means(values: list[dict[str, float | None]]) -> list[float | None]:
    """Of each model, the mean over the tasks that all models with tasks have; None where those are fewer than two."""
    having = [model for model in values if any(value is not None for value in model.values())]
    common = [name for name in (values[0] if values else {}) if all(model[name] is not None for model in having)]
    return [_mean([model[name] for name in common]) for model in values]


def _mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if len(values) > 1 and None not in values else None


def share(value: float | None, first: float | None) -> float | None:
    """What is retained of the first model's; None where that is nothing to retain."""
    return value / first if value is not None and first is not None and first > 0.0 else None
