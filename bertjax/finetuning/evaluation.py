"""What a model gets right of labelled examples: while it is fine-tuned, and afterwards.

Shape letters: B rows.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config.schema import Config, DataConfig, TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.finetuning import scores
from bertjax.finetuning.inputs import encoded, part, tokenizer_of
from bertjax.finetuning.terms import TERMS
from bertjax.labelled.batches import eval_batches
from bertjax.labelled.example import Example
from bertjax.labelled.reading import read
from bertjax.labelled.records import DEV, TEST, Record
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.train import checkpoint, objective
from bertjax.train.objective import Arrays
from bertjax.train.step import Forward, JittedStep
from bertjax.trained.load import check_restored
from bertjax.trained.predict import HEADS
from bertjax.trained.predicted import Predicted, Predictions

Evaluate = Callable[[Any], tuple[dict[str, float], list[Predicted]]]
"""Parameters on the mesh -> the metrics, and a prediction for each record."""


def evaluator(
    kind: str,
    forward: Forward,
    examples: Sequence[Example],
    records: Sequence[Record],
    data: DataConfig,
    tokenizer: Tokenizer,
    task: TaskConfig,
    labels: Sequence[str],
    mesh: Mesh,
) -> Evaluate:
    """All metrics of a kind of task (`scores.of`) on the records, and `loss`, the mean over what has a label; without
    labels, nothing but the predictions.

    `examples` are those of all records. The step compiles once for each length of rows, at the first call. A question
    may be without an answer where `task.unanswerable` says so, or, if that is auto, one of the records is.
    """
    step = logits_step(kind, forward, mesh)
    null = task.unanswerable == "yes" or (
        task.unanswerable == "auto" and any(record.answers == () for record in records)
    )
    # In a batch a question with endings has the number of its record.
    numbered = examples[:: data.packing] if kind == "choice" else examples

    def evaluate(params: Any) -> tuple[dict[str, float], list[Predicted]]:
        predictions = Predictions(task, labels, records, numbered, null=null)
        loss = weight = 0.0
        ahead: deque[tuple[dict[str, np.ndarray], Any]] = deque()

        def take() -> None:
            nonlocal loss, weight
            batch, values = ahead.popleft()
            values = jax.device_get(values)
            loss, weight = loss + float(values["loss"]), weight + float(values["weight"])
            predictions.add(batch, values)

        for batch in eval_batches(kind, examples, data, pad=tokenizer.special.pad):
            ahead.append((batch, step(params, sharding.put_batch(batch, mesh))))
            if len(ahead) > 1:  # read one late, so that the device has the next batch by then
                take()
        while ahead:
            take()
        predicted = predictions.done()
        found = {"loss": loss / weight} if weight else {}
        return found | scores.of_records(kind, labels, records, predicted), predicted

    return evaluate


def logits_step(kind: str, forward: Forward, mesh: Mesh) -> JittedStep:
    """The jitted step (params, batch) -> the logits of this kind of task by their name, the sum of its loss over what
    has a label, and how much that is.
    """
    term, output = TERMS[kind], HEADS[kind][1]

    def logits(params: Any, forward: Forward, batch: Arrays) -> Arrays:
        outputs = forward(params, batch, None)
        sums = objective.weighted_sums({kind: (1.0, term)}, outputs, batch)
        return {output: outputs[output], "loss": sums[kind]["loss"], "weight": term.weights(batch).sum()}

    return JittedStep(logits, forward, mesh, out=lambda _: sharding.replicated(mesh))


def evaluate_parts(
    config: Config, directory: Path, data: Sequence[str] = (), step: checkpoint.Wanted = "newest"
) -> dict[str, Any]:
    """The model of a fine-tuned run on its dev and its test, or on the examples in `data`: for each, the metrics of
    `evaluator` and how many `examples` it has; with `steps`, `task`, the `metric` by which it is chosen, `workdir`.

    Raises DataError for examples that cannot be read, or have labels that the model does not have.
    """
    task, model = config.task, config.model
    mesh = sharding.make_mesh(config.mesh)
    sharding.check(model, config.data.batch_size // config.optim.accumulate, mesh)
    restored = checkpoint.restore_params(directory / "checkpoints", network.abstract_params(model, mesh), step=step)
    tokenizer = tokenizer_of(config, directory, known=restored.identity["tokenizer"])
    check_restored(config, directory, restored, tokenizer)
    named = {"data": read(task, tuple(data))} if data else {name: part(task, name) for name in (DEV, TEST)}
    found: dict[str, Any] = {}
    for name, records in named.items():
        if records:
            measure = held_out(config, tokenizer, records, mesh)
            found[name] = measure(restored.state)[0] | {"examples": len(records)}
    told = {"task": task.name or task.kind, "metric": scores.chosen(task, model.labels)}
    return {"steps": restored.step, **told, **found, "workdir": str(directory)}


def held_out(config: Config, tokenizer: Tokenizer, records: Sequence[Record], mesh: Mesh) -> Evaluate:
    """`evaluator` of a run. Raises DataError for a label that its model does not have."""
    # In batches of a microbatch's size: what fits into memory for training fits here.
    data = replace(config.data, batch_size=config.data.batch_size // config.optim.accumulate)
    examples = encoded(config, tokenizer, records)
    forward, labels = labelled_forward(config), config.model.labels
    return evaluator(config.task.kind, forward, examples, records, data, tokenizer, config.task, labels, mesh)


def labelled_forward(config: Config) -> Forward:
    """(params, batch, key) -> outputs of the head of the task, whatever other heads the model has."""
    needed = ("pooler", HEADS[config.task.kind][0])
    heads = tuple(head for head in config.model.heads if head in needed)
    return jax.tree_util.Partial(partial(network.apply, config.model, config.compute, heads=heads))
