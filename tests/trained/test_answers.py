"""`bertjax.trained.answers`: the published code finds the same answers, and so does a plain second implementation."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import official
import pytest

from bertjax.config.task_fields import TaskConfig
from bertjax.trained import answers
from bertjax.trained.answers import Candidate

TASK = TaskConfig(
    kind="span", best_answers=official.BEST, max_answer=official.LONGEST, null_threshold=official.THRESHOLD
)


def asked(seed):
    """Context and arguments of `answers.window` of the questions that the published code was asked."""
    words, found = official.windows(seed)
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    offsets = [(start, after - 1) for start, after in pairwise(starts)]
    return " ".join(words), [
        (
            np.array(logits, np.float32),
            np.array([(-1, -1) if token is None else offsets[token] for token in tokens]),
            np.array(max_context),
        )
        for tokens, logits, max_context in found
    ]


def answered(context, windows, task, *, null):
    return answers.answer([answers.window(context, *one, task) for one in windows], task, null=null)


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("seed", official.SEEDS)
def test_the_published_code_gives_the_same(seed, null):
    """Equal scores, repeated texts, and no answer included."""
    kept = official.read()["answers_or_none" if null else "answers"][seed]
    found = answered(*asked(seed), TASK, null=null)
    texts, shares = zip(*kept["best"], strict=True)
    assert found.text == kept["text"]
    assert tuple(one.text for one in found.candidates) == texts
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-6)
    assert found.null_odds == (pytest.approx(*kept["odds"], abs=1e-6) if null else None)


def test_both_answers_and_none_are_among_them():
    texts = [one["text"] for one in official.read()["answers_or_none"]]
    assert "" in texts and len(set(texts)) > 2


def plain(context, windows, task, *, null):
    """By loops over all pairs: the texts in order of score, their scores, and the null odds."""
    likely, others, nulls = [], [], []
    for logits, offsets, max_context in windows:
        start, end = logits[:, 0].astype(float).tolist(), logits[:, 1].astype(float).tolist()
        starts, ends = (sorted(range(len(x)), key=lambda i, x=x: -x[i])[: task.best_answers] for x in (start, end))
        words = [i for i in range(len(start)) if offsets[i][0] >= 0]

        def said(s, e, start=start, end=end, offsets=offsets):
            return context[offsets[s][0] : offsets[e][1]], start[s] + end[e]

        near = [(s, e) for s in words if max_context[s] for e in words if s <= e < s + task.max_answer]
        likely += [said(s, e) for s in starts for e in ends if (s, e) in near]
        others += [said(s, max((e for x, e in near if x == s), key=lambda e: end[e])) for s in {s for s, _ in near}]
        nulls.append(start[0] + end[0])
    best = {}
    for text, score in sorted(likely or others, key=lambda pair: -pair[1]) + [("", min(nulls))] * null:
        best.setdefault(text, score)
    texts = sorted(best, key=lambda text: -best[text])[: task.best_answers]
    first = next((text for text in best if text), None)
    texts += [text for text in (first, "") if null and text in best and text not in texts]
    return texts, [best[text] for text in texts], min(nulls) - (best[first] if first else 0.0)


@pytest.mark.parametrize("null", [False, True])
def test_a_plain_second_implementation_gives_the_same(null):
    rng, unlikely = random.Random(1), 0
    for _ in range(300):
        context, windows = asked(2 * rng.randrange(10**6))  # no two scores are equal
        windows = windows[: rng.randint(1, 3)]
        task = replace(
            TASK,
            best_answers=rng.choice([1, 2, 5, 20]),
            max_answer=rng.choice([1, 2, 5, 30]),
            null_threshold=rng.choice([-3.0, 0.0, 4.0]),
        )
        found = answered(context, windows, task, null=null)
        texts, scores, odds = plain(context, windows, task, null=null)
        assert [one.text for one in found.candidates] == texts
        assert [one.score for one in found.candidates] == scores
        assert found.text == ("" if null and odds > task.null_threshold else next(text for text in texts if text))
        assert found.null_odds == (odds if null else None)
        assert context[found.start :].startswith(found.text) if found.text else found.start == -1
        assert math.isclose(sum(found.probabilities), 1.0)
        unlikely += not any(answers.window(context, *one, task).likely for one in windows)
    assert unlikely > 10


def simple(scores, task=TASK, *, null=False, context="Ada Lovelace, 1815", count=3):
    """The answer of one window: [CLS] ? [SEP] and the words of the context."""
    offsets = np.array([(-1, -1)] * 3 + [(0, 3), (4, 12), (14, 18)][:count])
    logits = np.zeros((len(offsets), 2), np.float32)
    for (place, side), score in scores.items():
        logits[place, side] = score
    return answered(context, [(logits, offsets, np.ones(len(offsets), bool))], task, null=null)


def test_text_is_cut_from_the_context_by_its_characters():
    found = simple({(3, 0): 5.0, (4, 1): 4.0})
    assert (found.text, found.start) == ("Ada Lovelace", 0)
    assert found.candidates[0] == Candidate("Ada Lovelace", 0, 9.0) == found.best


def test_white_space_around_a_token_is_no_part_of_an_answer():
    """As where tokens hold the space before them."""
    found = simple({(4, 0): 5.0, (4, 1): 4.0}, context="Ada  Byron  , 1815")
    assert (found.text, found.start) == ("Byron", 5)
    assert simple({(3, 0): 9.0, (3, 1): 9.0}, context="   Lovelace , 1815").text == "Lovelace"


def test_none_where_its_score_is_above_the_threshold():
    scores = {(0, 0): 3.0, (0, 1): 3.0, (5, 0): 2.0, (5, 1): 2.0}
    for threshold, text in ((1.9, ""), (2.0, "1815"), (2.1, "1815")):
        found = simple(scores, replace(TASK, null_threshold=threshold), null=True)
        assert (found.text, found.null_odds, found.best.text) == (text, 2.0, "1815")
        assert found.start == (14 if text else -1)
    assert simple(scores, null=False).text == "1815"


def test_the_window_that_is_surest_of_an_answer_decides_about_none():
    """The least of the null scores, though the answer is in another window."""
    offsets, allowed = np.array([(-1, -1), (0, 3)]), np.ones(2, bool)
    sure = np.array([[-4, -4], [0, 0]], np.float32)
    unsure = np.array([[4, 4], [1, 1]], np.float32)
    windows = [answers.window("Ada", one, offsets, allowed, TASK) for one in (unsure, sure)]
    assert answers.answer(windows, TASK, null=True).null_odds == -10.0


def test_a_context_without_a_word_has_no_answer():
    for null in (False, True):
        found = simple({(0, 0): 1.0}, null=null, count=0)
        assert (found.text, found.start, found.best) == ("", -1, answers.NONE)
        assert [one.text for one in found.candidates] == [""] * null


def test_a_model_that_looks_elsewhere_answers_all_the_same():
    """The best starts are before the best ends or outside the context: an answer, though not of the best ones."""
    found = simple({(5, 0): 9.0, (3, 1): 8.0}, replace(TASK, best_answers=1))
    assert found.text == "1815"
    found = simple({(0, 0): 9.0, (0, 1): 9.0, (4, 0): 1.0, (5, 1): 2.0}, replace(TASK, best_answers=1))
    assert found.text == "Lovelace, 1815"


def test_best_takes_the_first_of_equals():
    values = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 2.0])
    for count in range(1, 9):
        assert answers.best(values, count).tolist() == [1, 3, 2, 4, 5, 0][:count]
