"""What a fine-tuned model says of texts: labels, numbers, tags of words, answers, the right one of several endings.

Shape letters: C labels, L tokens of an example, K endings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from bertjax.config.schema import ModelConfig, TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError, NumericError
from bertjax.labelled import answers
from bertjax.labelled.encode import Example, encode
from bertjax.labelled.entities import entities
from bertjax.labelled.records import Record
from bertjax.trained.texts import checked_texts, same_count, words_of

HEADS = {
    "classify": ("classifier", "class_logits"),
    "regress": ("classifier", "class_logits"),
    "choice": ("classifier", "class_logits"),
    "tag": ("tagger", "tag_logits"),
    "span": ("span_head", "span_logits"),
}
"""Kind of a task -> the head that it needs, and what of it is read."""
_ASKED = {"classify": "classify", "regress": "classify", "choice": "choose", "tag": "tag", "span": "answer"}
"""Kind of a task -> the method that asks a model of that kind."""


class Model(Protocol):
    """What is asked here: `bertjax.trained.inference.Loaded`, without the rest of it."""

    config: ModelConfig
    task: TaskConfig
    seq_len: int
    tokenizer: Tokenizer | None
    heads: frozenset[str]

    def logits(self, output: str, examples: Sequence[Example]) -> list[np.ndarray]:
        """An output for each example, without its padding, float32."""
        ...


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
    """Neighbouring words that the tags make one thing of; `text` is what stands from character `start` to `end`."""

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
    """What stands in the context from character `start` to `end`; "", -1 and -1 where that does not answer the question."""

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
    firsts = checked_texts("classify", texts)
    kind = _asked(model, "classify", ("classify", "regress"))
    if pairs is None:
        records = [_record("text", i, text) for i, text in enumerate(firsts)]
    else:
        seconds = checked_texts("classify", pairs)
        same_count("classify", "texts", firsts, "pairs", seconds)
        records = [_record("text", i, *both) for i, both in enumerate(zip(firsts, seconds, strict=True))]
    _check_pairs(model, paired=pairs is not None)
    logits = [logits_C for _, logits_C in _logits(model, kind, records)]
    if kind == "regress":
        return [Scored(float(logits_C[0])) for logits_C in logits]
    names = model.config.labels
    return [
        Classified(names[int(probs_C.argmax())], dict(zip(names, probs_C.tolist(), strict=True)))
        for probs_C in map(_softmax, logits)
    ]


def choose(model: Model, texts: Iterable[str], endings: Iterable[Sequence[str]]) -> list[Chosen]:
    """See `Loaded.choose`."""
    firsts, groups = checked_texts("choose", texts), _listed("choose", endings)
    kind = _asked(model, "choose", ("choice",))
    same_count("choose", "texts", firsts, "lists of endings", groups)
    for i, group in enumerate(groups):
        if len(checked_texts("choose", group)) < 2:
            raise DataError(f"choose: endings {i} are {len(group)}; give two or more")
    records = [_record("text", i, text, *group) for i, (text, group) in enumerate(zip(firsts, groups, strict=True))]
    scores: list[list[float]] = [[] for _ in records]
    for example, logits_C in _logits(model, kind, records):
        scores[example.record].append(float(logits_C[0]))  # the endings of a record follow each other
    probs = [_softmax(np.array(each)) for each in scores]
    return [Chosen(int(probs_K.argmax()), probs_K.tolist()) for probs_K in probs]


def tag(model: Model, texts: Iterable[str | Sequence[str]]) -> list[Tagged]:
    """See `Loaded.tag`."""
    kind = _asked(model, "tag", ("tag",))
    given = [text if isinstance(text, str) else checked_texts("tag", text) for text in _listed("tag", texts)]
    sentences = [words_of(text) for text in given]
    checked_texts("tag", [text for text, _, _ in sentences])
    names = model.config.labels
    outside = names.index("O") if "O" in names else 0
    best = [np.full(len(words), outside) for _, words, _ in sentences]  # of a word of which no piece is left
    probs = [np.ones(len(words)) for _, words, _ in sentences]
    records = [_record("text", i, *words) for i, (_, words, _) in enumerate(sentences) if words]
    kept = [i for i, (_, words, _) in enumerate(sentences) if words]
    for example, logits_LC in _logits(model, kind, records):
        word_k, first_k = np.unique(example.words, return_index=True)
        word_k, first_k = word_k[word_k >= 0], first_k[word_k >= 0]
        probs_kC = _softmax(logits_LC[first_k])
        best[kept[example.record]][word_k] = probs_kC.argmax(axis=-1)
        probs[kept[example.record]][word_k] = probs_kC.max(axis=-1)
    tags = [[names[c] for c in best_W] for best_W in best]
    tagged = [Tagged(words, its, []) for (_, words, _), its in zip(sentences, tags, strict=True)]
    for number, first, behind, label in entities(tags):
        text, words, starts = sentences[number]
        start, end = starts[first], starts[behind - 1] + len(words[behind - 1])
        score = float(probs[number][first:behind].mean())
        tagged[number].entities.append(Entity(label, text[start:end], start, end, score))
    return tagged


def answer(
    model: Model, questions: Iterable[str], contexts: Iterable[str], null_threshold: float | None
) -> list[Answered]:
    """See `Loaded.answer`."""
    asked, given = checked_texts("answer", questions), checked_texts("answer", contexts)
    kind = _asked(model, "answer", ("span",))
    same_count("answer", "questions", asked, "contexts", given)
    may_lack = model.task.unanswerable == "yes" or null_threshold is not None
    task = model.task if null_threshold is None else replace(model.task, null_threshold=null_threshold)
    records = [_record("question", i, *both) for i, both in enumerate(zip(asked, given, strict=True))]
    windows: list[list[answers.Window]] = [[] for _ in records]
    for example, logits_N2 in _logits(model, kind, records):
        context = given[example.record]
        found = answers.window(context, logits_N2, example.offsets, example.max_context, task)
        windows[example.record].append(found)
    return [_answered(answers.answer(each, task, null=may_lack)) for each in windows]


def _answered(found: answers.Answered) -> Answered:
    scores = dict(zip((one.text for one in found.candidates), found.probabilities, strict=True))
    if not found.text:
        return Answered("", -1, -1, scores.get("", 0.0))
    return Answered(found.text, found.start, found.start + len(found.text), scores[found.text])


def _asked(model: Model, what: str, kinds: tuple[str, ...]) -> str:
    """The kind of the model. Raises DataError if it is not one of these, by which `what` asks."""
    heads = {HEADS[kind][0] for kind in kinds}
    if not heads & model.heads:
        others = ", ".join(sorted(model.heads)) or "none"
        raise DataError(
            f"{what}: this model has no {heads.pop()}; its heads are {others}; fine-tune one with `bertjax finetune`"
        )
    found = kind_of(model)
    if found not in kinds:
        raise DataError(f"{what}: this model does something else (task.kind = {found}); ask it by .{_ASKED[found]}")
    return found


def _check_pairs(model: Model, *, paired: bool) -> None:
    """Raise DataError if a model of a known task is asked about pairs and was trained on texts, or the reverse."""
    task = model.task
    if task.kind and paired and not task.pair:
        raise DataError("classify: this model was trained on single texts (task.pair = ''); leave the pairs")
    if task.kind and task.pair and not paired:
        raise DataError(
            f"classify: this model was trained on pairs (task.pair = {task.pair!r}); give the second text of each"
        )


def _record(what: str, number: int, *texts: str) -> Record:
    return Record(place=f"{what} {number}", texts=texts)


def _listed(what: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"{what}: takes a list; put a single text into one")
    return list(values)


def _logits(model: Model, kind: str, records: list[Record]) -> list[tuple[Example, np.ndarray]]:
    """Every example of the records with its logits. Raises NumericError for what is no number."""
    if model.tokenizer is None:
        raise DataError("this model came without a tokenizer that bertjax reads; call it on token ids")
    config = model.config
    examples = encode(
        records,
        replace(model.task, kind=kind),
        config.labels,
        model.tokenizer,
        seq_len=model.seq_len or config.max_positions,
        token_types=config.token_types > 1,
    )
    logits = model.logits(HEADS[kind][1], examples)
    for example, logits_x in zip(examples, logits, strict=True):
        if not np.isfinite(logits_x).all():
            text = records[example.record].texts[0]
            raise NumericError(f"{text!r:.60}: this model gives no numbers; its weights are too large, use another")
    return list(zip(examples, logits, strict=True))


def _softmax(logits_xC: np.ndarray) -> np.ndarray:
    exps_xC = np.exp(logits_xC.astype(np.float64) - logits_xC.max(axis=-1, keepdims=True))
    return exps_xC / exps_xC.sum(axis=-1, keepdims=True)
