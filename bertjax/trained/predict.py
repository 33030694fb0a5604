"""What a fine-tuned model says of texts: labels, numbers, tags of words, answers, the right one of several endings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from bertjax.config.schema import ModelConfig, TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError
from bertjax.labelled.encode import encode
from bertjax.labelled.entities import entities
from bertjax.labelled.example import Example
from bertjax.labelled.records import Record
from bertjax.trained.predicted import Predicted, Predictions
from bertjax.trained.texts import checked_texts, same_count, words_of

HEADS = {
    "classify": ("classifier", "class_logits"),
    "regress": ("classifier", "class_logits"),
    "choice": ("classifier", "class_logits"),
    "tag": ("tagger", "tag_logits"),
    "span": ("span_head", "span_logits"),
}
"""Kind of a task -> the head that it needs, and the output of that."""
_ASKED = {"classify": "classify", "regress": "classify", "choice": "choose", "tag": "tag", "span": "answer"}
"""Kind of a task -> the method that asks a model of that kind."""


class Model(Protocol):
    """What is asked here: `bertjax.trained.inference.Loaded`, without the rest of it."""

    @property
    def config(self) -> ModelConfig:
        """What it is."""

    @property
    def task(self) -> TaskConfig:
        """Of its fine-tuning."""

    @property
    def seq_len(self) -> int:
        """Most tokens of a row of that; 0 = the positions of the model."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where it came without one."""

    @property
    def heads(self) -> frozenset[str]:
        """Those that were trained."""

    def logits(self, output: str, examples: Sequence[Example]) -> list[np.ndarray]:
        """An output for each example, without its padding, float32."""


@dataclass(frozen=True)
class Classified:
    """The likeliest label of a text or a pair, and the probability of each."""

    label: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """The number that a model of regression gives a text or a pair."""

    score: float


@dataclass(frozen=True)
class Entity:
    """Words that the tags make one thing of; `text` is what stands from character `start` to `end`."""

    label: str
    text: str
    start: int
    end: int
    score: float  # mean probability of the tags of its words


@dataclass(frozen=True)
class Tagged:
    """The words of a text, the likeliest tag of each, and the entities that the tags make."""

    words: list[str]
    tags: list[str]
    entities: list[Entity]


@dataclass(frozen=True)
class Answered:
    """What stands in the context from character `start` to `end`; "", -1 and -1 where that is no answer."""

    text: str
    start: int
    end: int
    score: float  # its probability among the best candidates


@dataclass(frozen=True)
class Chosen:
    """Which ending is likeliest, from 0, and the probability of each."""

    ending: int
    scores: list[float]


def kind_of(model: Model) -> str:
    """The kind of task that a model was fine-tuned for (`task.kind`). Raises DataError for one that was not."""
    classifies = {0: "choice", 1: "regress"}.get(len(model.config.labels), "classify")
    kinds = {"classifier": classifies, "tagger": "tag", "span_head": "span"}
    found = [kind for head, kind in kinds.items() if head in model.heads]
    if not found:
        others = ", ".join(sorted(model.heads)) or "none"
        raise DataError(f"this model answers nothing: its heads are {others}; fine-tune one with `bertjax finetune`")
    return found[0]


def classify(model: Model, texts: Iterable[str], pairs: Iterable[str] | None) -> list[Classified] | list[Scored]:
    """See `Loaded.classify`."""
    kind = _asked(model, "classify", ("classify", "regress"))
    firsts = checked_texts("classify", texts)
    each: list[tuple[str, ...]] = [(text,) for text in firsts]
    if pairs is not None:
        seconds = checked_texts("classify", pairs)
        same_count("classify", "texts", firsts, "pairs", seconds)
        each = list(zip(firsts, seconds, strict=True))
    _check_pairs(model, paired=pairs is not None)
    found: list[Any] = _predicted(model, kind, each)
    if kind == "regress":
        return [Scored(one.value) for one in found]
    return [Classified(one.value, one.scores) for one in found]


def choose(model: Model, texts: Iterable[str], endings: Iterable[Sequence[str]]) -> list[Chosen]:
    """See `Loaded.choose`."""
    kind = _asked(model, "choose", ("choice",))
    firsts = checked_texts("choose", texts)
    groups = [checked_texts("choose", group) for group in _listed("choose", endings)]
    same_count("choose", "texts", firsts, "lists of endings", groups)
    for number, group in enumerate(groups):
        if len(group) < 2:
            raise DataError(f"choose: text {number} has {len(group)} endings; give two or more")
    chosen: dict[int, Chosen] = {}
    for size in {len(group) for group in groups}:
        same = [number for number, group in enumerate(groups) if len(group) == size]
        found: list[Any] = _predicted(model, kind, [(firsts[number], *groups[number]) for number in same], size)
        chosen |= {i: Chosen(int(one.value), list(one.scores.values())) for i, one in zip(same, found, strict=True)}
    return [chosen[number] for number in range(len(groups))]


def tag(model: Model, texts: Iterable[str | Sequence[str]]) -> list[Tagged]:
    """See `Loaded.tag`."""
    kind = _asked(model, "tag", ("tag",))
    given = [text if isinstance(text, str) else checked_texts("tag", text) for text in _listed("tag", texts)]
    sentences = [words_of(text) for text in given]
    checked_texts("tag", [text for text, _, _ in sentences])
    found: list[Any] = _predicted(model, kind, [tuple(words) for _, words, _ in sentences if words])
    filled = iter(found)
    each: list[Any] = [next(filled) if words else Predicted((), ()) for _, words, _ in sentences]
    tagged = [Tagged(words, list(one.value), []) for (_, words, _), one in zip(sentences, each, strict=True)]
    for number, first, behind, label in entities([one.tags for one in tagged]):
        text, words, starts = sentences[number]
        start, end = starts[first], starts[behind - 1] + len(words[behind - 1])
        score = float(np.mean(each[number].scores[first:behind]))
        tagged[number].entities.append(Entity(label, text[start:end], start, end, score))
    return tagged


def answer(
    model: Model, questions: Iterable[str], contexts: Iterable[str], null_threshold: float | None
) -> list[Answered]:
    """See `Loaded.answer`."""
    kind = _asked(model, "answer", ("span",))
    asked, given = checked_texts("answer", questions), checked_texts("answer", contexts)
    same_count("answer", "questions", asked, "contexts", given)
    threshold = model.task.null_threshold if null_threshold is None else null_threshold
    may_lack = model.task.unanswerable == "yes" or null_threshold is not None
    pairs: list[tuple[str, ...]] = list(zip(asked, given, strict=True))
    found: list[Any] = _predicted(model, kind, pairs, null_threshold=threshold, null=may_lack)
    return [
        Answered(text, start, start + len(text), scores.get(text, 0.0))
        for text, start, scores in ((one.value, one.answered.start, one.scores) for one in found)
    ]


def _asked(model: Model, what: str, kinds: tuple[str, ...]) -> str:
    """The kind of the model. Raises DataError if it is not one of these, by which `what` asks."""
    head = HEADS[kinds[0]][0]
    if head not in model.heads:
        others = ", ".join(sorted(model.heads)) or "none"
        fix = "fine-tune one with `bertjax finetune`"
        raise DataError(f"{what}: this model has no {head}; its heads are {others}; {fix}")
    if model.tokenizer is None:
        raise DataError(f"{what}: this model came without a tokenizer that bertjax reads; call it on token ids")
    found = kind_of(model)
    if found not in kinds:
        raise DataError(f"{what}: this model does something else (task.kind = {found}); ask it by .{_ASKED[found]}")
    return found


def _check_pairs(model: Model, *, paired: bool) -> None:
    """Raise DataError if a model is asked about pairs that was trained on texts, or the reverse, if that is known."""
    task = model.task
    if task.train and paired and not task.pair:
        raise DataError("classify: this model was trained on single texts (task.pair = ''); give no second ones")
    if task.train and task.pair and not paired:
        raise DataError(f"classify: this model was trained on pairs (task.pair = {task.pair!r}); give the second texts")


def _listed(what: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{what}: takes a list; put a single text into one")
    return list(values)


def _predicted(
    model: Model, kind: str, each: list[tuple[str, ...]], endings: int = 1, *, null: bool = False, **task: Any
) -> list[Predicted]:
    """What a model says of texts, each given as in a record of this kind, all with so many `endings`; as if `task` were
    fields of its own. Raises NumericError for what is no number.
    """
    assert model.tokenizer is not None  # `_asked` saw to it
    config, settings = model.config, replace(model.task, kind=kind, **task)
    length = model.seq_len or config.max_positions
    if kind == "choice" and settings.train:  # an ending has the same room as in training, however many there are
        length = length // len(settings.endings)
    if kind == "span":  # with room for some of the context, in a model that knows no better
        settings = replace(settings, max_question=min(settings.max_question, length // 2))
    records = [Record(place=f"text {number}", texts=texts) for number, texts in enumerate(each)]
    examples = encode(
        records,
        settings,
        config.labels,
        model.tokenizer,
        seq_len=length * endings,
        token_types=config.token_types > 1,
        quiet=True,
    )
    output = HEADS[kind][1]
    logits = model.logits(output, examples)
    taken = Predictions(settings, config.labels, records, examples[::endings], null=null)
    for number, first in enumerate(range(0, len(examples), endings)):
        row = np.stack(logits[first : first + endings]) if output == "class_logits" else logits[first]
        taken.add({"numbers": np.array([[number]]), "pair_positions": np.zeros((1, 1), int)}, {output: row[None]})
    return taken.done()
