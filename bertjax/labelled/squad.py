"""Questions on texts: the JSON of SQuAD 1.1 and 2.0, and the same values in rows."""

from collections.abc import Iterator, Mapping
from typing import Any

from bertjax.errors import DataError
from bertjax.labelled import source
from bertjax.labelled.records import Answer, Record


def records(path: str, *, labelled: bool) -> Iterator[Record]:
    """The questions of a file, in its order. Without answers only where they need not be `labelled`.

    Raises DataError for what is no such file, naming the article and paragraph, or the question by its id.
    """
    whole = source.json_value(path)
    seen: set[str] = set()
    for a, article in enumerate(_items(path, whole, "data"), 1):
        for p, paragraph in enumerate(_items(f"{path}: article {a}", article, "paragraphs"), 1):
            place = f"{path}: article {a}, paragraph {p}"
            for question in _items(place, paragraph, "qas"):
                if not isinstance(question, dict):
                    raise DataError(f"{place}: {question!r:.40} is no question with its answers; correct the file")
                name = str(question.get("id") or "")
                if name and name in seen:
                    raise DataError(f"{place}: the id {name!r} is that of an earlier question; give it one of its own")
                seen.add(name)
                named = f"{path}: question {name}" if name else f"{place}: {question.get('question')!r:.60}"
                yield record(named, {**question, "context": paragraph.get("context")}, labelled=labelled)


def record(place: str, values: Mapping[str, Any], *, labelled: bool) -> Record:
    """The record of values called question, context, id, answers and is_impossible, of which the last two are the
    label.

    The answers are a list of {"text", "answer_start"} or, as TFDS and Hugging Face have it, one such of lists. An empty
    list, or is_impossible, says that the context has no answer. Raises DataError where an answer does not stand in the
    context where it is said to.
    """
    question = source.text(place, "question", values.get("question"))
    context = source.text(place, "context", values.get("context"))
    impossible = values.get("is_impossible", False)
    if impossible not in (True, False):  # as 1 and 0, too
        raise DataError(f"{place}: is_impossible is {impossible!r:.40}; write true or false")
    found = values.get("answers")
    if found is None and impossible:
        found = []
    if found is None and labelled:
        raise DataError(f"{place}: has no answers; add them, with [] where the context has none")
    answers = None if found is None else tuple(_answer(place, context, item) for item in _paired(place, found))
    if answers and impossible:
        raise DataError(f"{place}: is_impossible, and {len(answers)} answers; take out one of both")
    name = str(values.get("id") or "")
    return Record(place, (question, context), answers=answers, name=name)


def _items(place: str, value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{place}: has no list {key!r}, as the JSON of SQuAD has; correct it, or set task.format")
    return found


def _paired(place: str, found: Any) -> list[tuple[Any, Any]]:
    """(text, answer_start) of each answer."""
    if isinstance(found, dict):
        texts, starts = found.get("text"), found.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return [(item.get("text"), item.get("answer_start")) for item in found]
    raise DataError(f'{place}: answers are {found!r:.60} and no list of {{"text", "answer_start"}}; correct them')


def _answer(place: str, context: str, item: tuple[Any, Any]) -> Answer:
    answer, start = source.text(place, "an answer", item[0]), item[1]
    if not answer.strip():
        raise DataError(f"{place}: an answer is empty; take it out, and leave [] where the context has none")
    if isinstance(start, bool) or not isinstance(start, int):
        raise DataError(f"{place}: answer_start is {start!r:.40} and no whole number; count characters from 0")
    if start >= 0 and context.startswith(answer, start):
        return Answer(start, answer)
    where = f"at character {start} there is {context[start : start + len(answer)]!r:.60}"
    if not 0 <= start < len(context):
        where = f"character {start} is outside its context of {len(context)}"
    at = context.find(answer)
    fix = f"it stands at {at}" if at >= 0 else "the context has it nowhere"
    raise DataError(f"{place}: the answer {answer!r:.60} is not where it should be: {where}; {fix}")
