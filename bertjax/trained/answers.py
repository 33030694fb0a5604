"""Answers to questions: from logits of the windows of a text to its characters, as BERT's published code does it.

In each window, the likeliest starts are combined with the likeliest ends. A start counts only in the window that has
the most context around it. Where there may be no answer, what the [CLS] tokens say is one more candidate.

Shape letters: N tokens of a window, S starts, E ends, C candidates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bertjax.config.task_fields import TaskConfig


class Candidate(NamedTuple):
    """An answer that is possible; the text is "", its start -1, where that is that there is none."""

    text: str
    start: int
    """The first of its characters in the context."""
    score: float
    """The sum of the logits of its first and its last token."""


@dataclass(frozen=True)
class Window:
    """What one window says."""

    candidates: tuple[Candidate, ...]
    """Best first, no text twice, at most `task.best_answers`."""
    null: float
    """The score of no answer."""
    likely: bool
    """Whether they are of the best starts and ends; if not, they count only where no other window has such."""


@dataclass(frozen=True)
class Answered:
    """What the windows of a question say together."""

    text: str
    """The answer; "" where there is none."""
    start: int
    """The first of its characters in the context; -1 where there is none."""
    candidates: tuple[Candidate, ...]
    """Best first; that there is no answer is one of them if that may be. () for a context without a word."""
    probabilities: tuple[float, ...]
    """Of each of these; their sum is 1."""
    null_odds: float | None
    """How much higher no answer scores than the best answer; None where there always is one."""

    @property
    def best(self) -> Candidate:
        """The best answer, whatever the score of none."""
        return next((one for one in self.candidates if one.text), NONE)


NONE = Candidate("", -1, 0.0)


def window(
    context: str, logits_N2: np.ndarray, offsets_N2: np.ndarray, max_context_N: np.ndarray, task: TaskConfig
) -> Window:
    """The candidates of a window: `logits_N2` of starts and of ends, the first token being [CLS].

    `offsets_N2` has the characters of each token in `context`, -1 for those of no context; `max_context_N` tells
    whether no other window has more context around the token. Starts and ends are the best of all tokens, as in the
    published code; where that leaves no candidate, as with a model that has learnt nothing, each start has its best
    end.
    """
    inside_N = offsets_N2[:, 0] >= 0
    may_start_N = inside_N & max_context_N
    start_N, end_N = logits_N2[:, 0].astype(np.float64), logits_N2[:, 1].astype(np.float64)
    first_C, last_C = _combined(start_N, end_N, may_start_N, inside_N, task)
    likely = len(first_C) > 0
    if not likely:
        first_C = np.flatnonzero(may_start_N)
        last_C = _best_ends(end_N, inside_N, task.max_answer)[first_C]
    scores_C = start_N[first_C] + end_N[last_C]
    order_C = np.argsort(-scores_C, kind="stable")
    found = _texts(context, offsets_N2[first_C[order_C], 0], offsets_N2[last_C[order_C], 1], scores_C[order_C], task)
    return Window(tuple(found), float(start_N[0] + end_N[0]), likely)


def _texts(
    context: str, starts_C: np.ndarray, ends_C: np.ndarray, scores_C: np.ndarray, task: TaskConfig
) -> Iterable[Candidate]:
    """The best of the candidates whose texts differ, without white space around them."""
    found: dict[str, Candidate] = {}
    for start, end, score in zip(starts_C.tolist(), ends_C.tolist(), scores_C.tolist(), strict=True):
        whole = context[start:end]
        text = whole.strip()
        if text and text not in found:
            found[text] = Candidate(text, start + len(whole) - len(whole.lstrip()), score)
            if len(found) == task.best_answers:
                break
    return found.values()


def _combined(
    start_N: np.ndarray, end_N: np.ndarray, may_start_N: np.ndarray, may_end_N: np.ndarray, task: TaskConfig
) -> tuple[np.ndarray, np.ndarray]:
    """First and last tokens of the pairs of the best starts and the best ends that are possible, best start first."""
    starts_S, ends_E = best(start_N, task.best_answers), best(end_N, task.best_answers)
    starts_S, ends_E = starts_S[may_start_N[starts_S]], ends_E[may_end_N[ends_E]]
    more_SE = ends_E - starts_S[:, None]
    at_S, at_E = np.nonzero((more_SE >= 0) & (more_SE < task.max_answer))
    return starts_S[at_S], ends_E[at_E]


def _best_ends(end_N: np.ndarray, may_end_N: np.ndarray, longest: int) -> np.ndarray:
    """For each token as a start, the end that scores best and is not too far away."""
    longest = min(longest, len(end_N))
    ahead = np.concatenate((np.where(may_end_N, end_N, -np.inf), np.full(longest - 1, -np.inf)))
    return np.arange(len(end_N)) + np.lib.stride_tricks.sliding_window_view(ahead, longest).argmax(axis=1)


def best(values_N: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` largest, largest first, the first ones of those that are equal."""
    indices = np.arange(len(values_N))
    if count < len(values_N):
        least = np.partition(values_N, -count)[-count]
        indices = np.flatnonzero(values_N >= least)  # more than asked for, where some are equal
    return indices[np.argsort(-values_N[indices], kind="stable")][:count]


def answer(windows: Iterable[Window], task: TaskConfig, *, null: bool) -> Answered:
    """The answer of a question by all its windows, in their order; `null`: whether it may be that there is none.

    There is none where its score, the least of all windows, is more than `task.null_threshold` above the best answer's.
    """
    windows = list(windows)
    likely = [one for one in windows if one.likely] or windows
    found = sorted((one for window in likely for one in window.candidates), key=lambda one: -one.score)
    none = NONE._replace(score=min(window.null for window in windows))
    if null:
        found.insert(sum(one.score >= none.score for one in found), none)
    candidates: dict[str, Candidate] = {}
    for one in found:
        candidates.setdefault(one.text, one)
    kept = list(candidates.values())[: task.best_answers]
    top = next((one for one in found if one.text), None)
    kept += [one for one in (top, none) if null and one and one not in kept]
    odds = none.score - (top or NONE).score
    chosen = NONE if top is None or (null and odds > task.null_threshold) else top
    return Answered(
        chosen.text, chosen.start, tuple(kept), _softmax([one.score for one in kept]), odds if null else None
    )


def _softmax(scores: Sequence[float]) -> tuple[float, ...]:
    if not scores:
        return ()
    powers = np.exp(np.array(scores) - max(scores))
    return tuple((powers / powers.sum()).tolist())
