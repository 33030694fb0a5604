"""The metrics of fine-tuning: what predictions are worth, as shares of 1.

They are the standard ones: those of scikit-learn and scipy, of seqeval for entities, of SQuAD's script for answers. One
that is not defined is 0.0, never NaN; see `of`.

Shape letter: N examples.
"""

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import ConfigError, NumericError
from bertjax.labelled.entities import entities
from bertjax.labelled.records import Record
from bertjax.trained.predicted import Predicted

CHOSEN = {"classify": "accuracy", "regress": "pearson", "tag": "f1", "span": "f1", "choice": "accuracy"}
"""Kind of a task -> the metric by which runs are chosen, where the config does not say it."""


def of(kind: str, labels: Sequence[str], truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
    """All metrics of a kind of task (`task.kind`), by name; {} where there is nothing to score.

    classify   of names in `labels`. accuracy; f1 of the second of two labels, 0.0 if neither the truth nor a prediction
               is that one; macro_f1, the mean over the labels that occur; matthews, 0.0 if all are of one label
    regress    of numbers. pearson and spearman, 0.0 where all numbers of one side are equal; mse
    tag        of the tags of each sentence. f1, precision, recall of entities (`bertjax.labelled.entities`), each 0.0
               where there is nothing to divide by, so also for texts without an entity; accuracy of tags
    span       of the texts that are right, () = there is no answer, and of one text, "" = none. exact_match and f1;
               with questions that have no answer, also no_answer_accuracy of these, and has_answer_exact_match and
               has_answer_f1 of the others
    choice     of the endings that are right and chosen. accuracy

    Raises NumericError where predictions are no numbers.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} examples have {len(predicted)} predictions")
    if not truth:
        return {}
    values = METRICS[kind](labels, truth, predicted)
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise NumericError(f"{', '.join(bad)}: no longer a number, since predictions are none; lower optim.lr")
    return {name: float(value) for name, value in values.items()}


def of_records(
    kind: str, labels: Sequence[str], records: Sequence[Record], predicted: Sequence[Predicted]
) -> dict[str, float]:
    """The metrics of predictions for these records, of which those without labels are left out."""
    pairs = [(truth(kind, record), one.value) for record, one in zip(records, predicted, strict=True)]
    known = [(right, value) for right, value in pairs if right is not None]
    return of(kind, labels, [right for right, _ in known], [value for _, value in known])


def truth(kind: str, record: Record) -> Any:
    """What is right of a record, in the form in which `of` takes it; None where that is not known."""
    if kind == "tag":
        return record.tags
    if kind == "span":
        return None if record.answers is None else tuple(answer.text for answer in record.answers)
    if kind == "regress":
        return None if record.label is None else float(record.label)
    return record.label


def chosen(task: TaskConfig, labels: Sequence[str]) -> str:
    """The name of the metric by which runs and weights are chosen. Raises ConfigError for one that the task lacks."""
    if task.metric == "auto":
        return CHOSEN[task.kind]
    names = [name for name in NAMES[task.kind] if name != "f1" or task.kind != "classify" or len(labels) == 2]
    if task.metric not in names:
        more = "; macro_f1 is the one for more than two labels" if task.kind == "classify" and len(labels) > 2 else ""
        raise ConfigError(f"task.metric = {task.metric}: task.kind = {task.kind} has {', '.join(names)}{more}")
    return task.metric


NAMES = {
    "classify": ("accuracy", "f1", "macro_f1", "matthews"),
    "regress": ("pearson", "spearman"),
    "tag": ("f1", "accuracy"),
    "span": ("exact_match", "f1"),
    "choice": ("accuracy",),
}
"""Kind of a task -> the metrics that can be chosen by: the larger, the better."""


def _classify(labels: Sequence[str], truth: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    from sklearn import metrics  # here: it takes a second to import

    index = {name: number for number, name in enumerate(labels)}
    right, given = np.array([index[name] for name in truth]), np.array([index[name] for name in predicted])
    values = {"accuracy": float(np.mean(right == given))}
    if len(labels) == 2:
        values["f1"] = metrics.f1_score(right, given, labels=[1], average="macro", zero_division=0.0)
    values["macro_f1"] = metrics.f1_score(right, given, average="macro", zero_division=0.0)
    several = len(np.union1d(right, given)) > 1
    return values | {"matthews": metrics.matthews_corrcoef(right, given) if several else 0.0}


def _regress(labels: Sequence[str], truth: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    from scipy import stats

    right, given = np.array(truth, np.float64), np.array(predicted, np.float64)
    if not np.isfinite(given).all():
        return dict.fromkeys(("pearson", "spearman", "mse"), math.nan)
    values = {"pearson": 0.0, "spearman": 0.0, "mse": float(np.mean(np.square(right - given)))}
    if np.ptp(right) and np.ptp(given):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            found = {"pearson": stats.pearsonr(right, given), "spearman": stats.spearmanr(right, given)}
        values |= {name: one.statistic for name, one in found.items() if math.isfinite(one.statistic)}
    return values


def _tag(labels: Sequence[str], truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    if any(len(right) != len(given) for right, given in zip(truth, predicted, strict=True)):
        raise ValueError("a sentence has more or fewer predictions than words")
    right, given = set(entities(truth)), set(entities(predicted))
    same = len(right & given)
    words = sum(len(tags) for tags in truth)
    hits = sum(sum(map(str.__eq__, *pair)) for pair in zip(truth, predicted, strict=True))
    return {
        "f1": _share(2 * same, len(right) + len(given)),
        "precision": _share(same, len(given)),
        "recall": _share(same, len(right)),
        "accuracy": _share(hits, words),
    }


def _span(labels: Sequence[str], truth: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, float]:
    exact, f1 = answer_scores(truth, predicted)
    answerable = np.array([bool(answers) for answers in truth])
    values = {"exact_match": float(exact.mean()), "f1": float(f1.mean())}
    if answerable.all():
        return values
    if answerable.any():
        has = exact[answerable].mean(), f1[answerable].mean()
        values |= {"has_answer_exact_match": float(has[0]), "has_answer_f1": float(has[1])}
    return values | {"no_answer_accuracy": float(exact[~answerable].mean())}


def _choice(labels: Sequence[str], truth: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    return {"accuracy": sum(map(str.__eq__, truth, predicted)) / len(truth)}


METRICS: dict[str, Callable[[Sequence[str], Any, Any], dict[str, float]]] = {
    "classify": _classify,
    "regress": _regress,
    "tag": _tag,
    "span": _span,
    "choice": _choice,
}
"""Kind of a task -> its metrics, of labels, what is right and what is predicted."""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def answer_scores(truth: Sequence[Sequence[str]], predicted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of each answer, against the right one that fits best, by the official script of SQuAD 2.0.

    As there, a right answer that is nothing but articles and punctuation does not count.
    """
    words: dict[str, tuple[str, ...]] = {}

    def normal(text: str) -> tuple[str, ...]:
        found = words.get(text)
        if found is None:
            found = words[text] = tuple(normalized(text).split())
        return found

    exact, f1 = np.zeros(len(truth)), np.zeros(len(truth))
    for i, (answers, given) in enumerate(zip(truth, predicted, strict=True)):
        given_words = normal(given)
        right = {one for one in map(normal, answers) if one} or {()}
        exact[i] = given_words in right
        f1[i] = 1.0 if exact[i] else max(_overlap(one, given_words) for one in right)
    return exact, f1


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalized(text: str) -> str:
    """A text as answers are compared: in small letters, without punctuation and articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _overlap(right: tuple[str, ...], given: tuple[str, ...]) -> float:
    same = sum((Counter(right) & Counter(given)).values()) if right and given else 0
    return 2 * same / (len(right) + len(given)) if same else 0.0


def best_threshold(records: Sequence[Record], predicted: Sequence[Predicted]) -> dict[str, float]:
    """What `task.null_threshold` would have been best for these questions: best_exact_match and best_f1, and the
    thresholds, best_exact_match_threshold and best_f1_threshold. {} where each always has an answer.

    A threshold is the null odds of one of the questions, or 1.0 less than the least, so that none is answered; of
    several that are as good, the least. One chosen on the examples that are measured flatters.
    """
    pairs = [
        (truth("span", record), one.answered.best.text, one.answered.null_odds)
        for record, one in zip(records, predicted, strict=True)
        if record.labelled and one.answered is not None and one.answered.null_odds is not None
    ]
    if not pairs:
        return {}
    right, texts = [answers for answers, _, _ in pairs], [text for _, text, _ in pairs]
    odds = np.array([number for _, _, number in pairs])
    order = np.argsort(odds, kind="stable")
    last = np.append(np.diff(odds[order]) > 0, True)  # of those that are equal: no threshold comes between them
    thresholds = np.append(odds.min() - 1.0, odds[order][last])
    given, none = answer_scores(right, texts), answer_scores(right, [""] * len(right))
    values: dict[str, float] = {}
    for name, given_N, none_N in zip(("exact_match", "f1"), given, none, strict=True):
        totals = none_N.sum() + np.append(0.0, np.cumsum((given_N - none_N)[order])[last])
        best = int(np.argmax(totals))
        values |= {f"best_{name}": float(totals[best]) / len(right), f"best_{name}_threshold": float(thresholds[best])}
    return values
