"""The head for labels in config.json: names of the labels, kind of problem, dropout."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import category

from bertjax.config.schema import ModelConfig
from bertjax.errors import CheckpointError
from bertjax.huggingface.names import CLASSIFIES, TAGS, ending_of, heads_of, tensor_names
from bertjax.huggingface.structure import DROPOUTS, label_structure
from bertjax.model.heads import HEADS


def to_json(family: str, config: ModelConfig) -> dict[str, Any]:
    """Fields of config.json for a model with such a head."""
    values: dict[str, Any] = {}
    if config.labels:
        values["id2label"] = {str(i): label for i, label in enumerate(config.labels)}
        values["label2id"] = {label: i for i, label in enumerate(config.labels)}
    if ending_of(config) == CLASSIFIES:
        values["problem_type"] = "regression" if len(config.labels) == 1 else "single_label_classification"
    field, _ = DROPOUTS[family][ending_of(config)]
    return values | ({field: config.classifier_dropout} if field else {})


def with_head(
    path: Path, family: str, values: dict[str, Any], config: ModelConfig, *, ending: str, rows: int
) -> ModelConfig:
    """The model with the head of this class too, whose last layer has so many `rows`, as config.json (`path`, `values`)
    describes it. Raises CheckpointError with a line for each wrong field.
    """
    errors: list[str] = []
    labels = _labels(values, rows, errors) if ending in (CLASSIFIES, TAGS) else ()
    problem = values.get("problem_type")
    only = "regression" if rows == 1 else "single_label_classification"
    if ending == CLASSIFIES and problem not in (None, only):
        errors.append(
            f"problem_type = {problem!r:.60}: only {only!r} is supported where the last layer has {rows} rows"
        )
    field, without = DROPOUTS[family][ending]
    dropout = values.get(field) if field else None
    if dropout is None:
        dropout = config.dropout if without is None else without
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        errors.append(f"{field} = {dropout!r:.60}: must be a number, at least 0 and below 1")
    if errors:
        raise CheckpointError("\n".join(f"{path}: {error}" for error in errors))
    # Without an MLM head whose tensors would have the names of this one's.
    parts = {path.partition("/")[0] for path in tensor_names(family, ending)}
    heads = {head for head in config.heads if head in parts} | set(heads_of(family, ending))
    made = replace(
        config, heads=tuple(h for h in HEADS if h in heads), labels=labels, classifier_dropout=float(dropout)
    )
    return replace(made, **label_structure(family, made))


def _labels(values: dict[str, Any], rows: int, errors: list[str]) -> tuple[str, ...]:
    """Their names in the order of the rows. Where config.json has none, those that transformers gives."""
    told, count = values.get("id2label"), values.get("num_labels")
    if told is None:
        if count not in (None, rows):
            errors.append(f"num_labels = {count!r:.60}: the last layer has {rows} rows")
        return tuple(f"LABEL_{i}" for i in range(rows))
    if not isinstance(told, dict) or set(told) != {str(i) for i in range(rows)}:
        errors.append(f"id2label = {told!r:.60}: must name 0 to {rows - 1}, one for each row of the last layer")
        return ()
    found = tuple(told[str(i)] for i in range(rows))
    if wrong := [x for x in found if not isinstance(x, str) or any(category(c) in ("Cc", "Cs") for c in x)]:
        errors.append(f"id2label: {wrong[0]!r:.60}: must be text without control characters")
    elif len(set(found)) < rows:
        twice = next(x for x in found if found.count(x) > 1)
        errors.append(f"id2label: {twice!r:.60}: names two rows; name each once")
    return found
