"""What a fine-tuned model answers `bertjax predict`, as JSON and as a line for a person."""

from dataclasses import asdict
from typing import Any

from bertjax.cli.requests import Request
from bertjax.errors import printable
from bertjax.trained.inference import Loaded
from bertjax.trained.predict import Answered, Chosen, Classified, Scored, Tagged

Answer = Classified | Scored | Tagged | Answered | Chosen
_SHOWN = 80
"""Characters of a text that are shown beside its answer."""


def of(model: Loaded, kind: str, requests: list[Request]) -> list[Any]:
    """The answers of a model of this kind (`task.kind`), in the order of the requests."""
    firsts: Any = [request.first for request in requests]
    seconds: Any = [request.second for request in requests]
    if kind == "tag":
        return model.tag(firsts)
    if kind == "span":
        return model.answer(firsts, seconds)
    if kind == "choice":
        return model.choose(firsts, seconds)
    return list(model.classify(firsts, None if seconds[0] is None else seconds))


def values(answer: Answer) -> dict[str, Any]:
    """An answer as what `--json` prints."""
    found = asdict(answer)
    if isinstance(answer, Answered):
        return {"answer": found.pop("text"), **found}
    if isinstance(answer, Chosen):
        return {"label": found.pop("ending"), **found}
    return found


def line(request: Request, answer: Answer) -> str:
    """An answer for a person, beside the beginning of what was asked."""
    text = request.first if isinstance(request.first, str) else " ".join(request.first)
    asked = printable(text[:_SHOWN] + "..." * (len(text) > _SHOWN))
    if isinstance(answer, Classified):
        return f"{printable(answer.label)} {answer.scores[answer.label]:.3f}   {asked}"
    if isinstance(answer, Scored):
        return f"{answer.score:.3f}   {asked}"
    if isinstance(answer, Chosen):
        ending = request.second[answer.ending] if request.second else ""
        return f"{printable(ending)} {answer.scores[answer.ending]:.3f}   {asked}"
    if isinstance(answer, Answered):
        return f"{printable(answer.text) or '(no answer)'} {answer.score:.3f}   {asked}"
    tags = zip(answer.words, answer.tags, strict=True)
    return printable(" ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in tags))
