"""`bertjax.finetuning.scores`: the standard metrics to 1e-6, and a number wherever one is not defined."""

import math
import random
import re
import string
from types import SimpleNamespace

import numpy as np
import official
import pytest
import sklearn.metrics
from scipy import stats

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import ConfigError, NumericError
from bertjax.finetuning import scores
from bertjax.labelled.records import Answer, Record
from bertjax.trained.answers import NONE, Answered, Candidate
from bertjax.trained.predicted import Predicted


def close(values):
    return pytest.approx(values, abs=1e-6)


# Labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c", "d"), tuple(map(str, range(12)))])
def test_labels_are_scored_as_scikit_learn_does(labels):
    """Also where some labels do not occur."""
    rng = random.Random(0)
    for _ in range(40):
        truth = rng.choices(rng.sample(labels, rng.randint(1, len(labels))), k=rng.choice([1, 2, 5, 50]))
        predicted = [one if rng.random() < 0.5 else rng.choice(labels) for one in truth]
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(truth, predicted),
            "macro_f1": sklearn.metrics.f1_score(truth, predicted, average="macro", zero_division=0),
            "matthews": 0.0,
        }
        if len(set(truth + predicted)) > 1:
            expected["matthews"] = sklearn.metrics.matthews_corrcoef(truth, predicted)
        if len(labels) == 2:
            signs = [[label == "b" for label in side] for side in (truth, predicted)]
            expected["f1"] = sklearn.metrics.f1_score(*signs, zero_division=0)
        assert scores.of("classify", labels, truth, predicted) == close(expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ("aaaa", "aaaa", {"accuracy": 1.0, "f1": 0.0, "macro_f1": 1.0, "matthews": 0.0}),
        ("bbbb", "bbbb", {"accuracy": 1.0, "f1": 1.0, "macro_f1": 1.0, "matthews": 0.0}),
        ("aaaa", "bbbb", {"accuracy": 0.0, "f1": 0.0, "macro_f1": 0.0, "matthews": 0.0}),
        ("abab", "aaaa", {"accuracy": 0.5, "f1": 0.0, "macro_f1": 1 / 3, "matthews": 0.0}),
        ("abab", "abab", {"accuracy": 1.0, "f1": 1.0, "macro_f1": 1.0, "matthews": 1.0}),
        ("abab", "baba", {"accuracy": 0.0, "f1": 0.0, "macro_f1": 0.0, "matthews": -1.0}),
    ],
)
def test_one_label_alone(truth, predicted, expected):
    assert scores.of("classify", ("a", "b"), truth, predicted) == close(expected)


def test_f1_is_of_the_second_label_not_of_the_last_in_the_alphabet():
    found = scores.of("classify", ("yes", "no"), ["yes", "no", "no"], ["yes", "no", "yes"])
    assert found["f1"] == close(2 / 3)


# Numbers ------------------------------------------------------------------------------------------------------------


def test_numbers_are_scored_as_scipy_does():
    rng = np.random.default_rng(0)
    for count in (2, 3, 10, 500):
        truth = rng.integers(0, 6, count) * 0.5  # many are equal
        truth[:2] = 0.0, 5.0
        predicted = (truth + rng.normal(size=count)).round(1)
        found = scores.of("regress", (), truth.tolist(), predicted.tolist())
        assert found["pearson"] == close(stats.pearsonr(truth, predicted).statistic)
        assert found["spearman"] == close(stats.spearmanr(truth, predicted).statistic)
        assert found["mse"] == close(sklearn.metrics.mean_squared_error(truth, predicted))


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([1.0, 2.0], [3.0, 3.0]), ([3.0, 3.0], [1.0, 2.0]), ([1.0], [2.0]), ([2.0, 2.0], [2.0, 2.0])],
)
def test_where_all_are_equal_nothing_correlates(truth, predicted):
    mse = sum((a - b) ** 2 for a, b in zip(truth, predicted, strict=True)) / len(truth)
    assert scores.of("regress", (), truth, predicted) == {"pearson": 0.0, "spearman": 0.0, "mse": mse}


@pytest.mark.parametrize(
    "predicted",
    [[1.0, 1.0 + 2**-52, 1.0], [1e-300, 2e-300, 3e-300], [1e150, -1e150, 1.0], [5e-324, 0.0, 0.0]],
)
def test_extreme_numbers_are_scored(predicted):
    found = scores.of("regress", (), [1.0, 2.0, 4.0], predicted)
    assert all(math.isfinite(value) for value in found.values()) and abs(found["pearson"]) <= 1.0
    assert found["spearman"] == close(stats.spearmanr([1.0, 2.0, 4.0], predicted).statistic)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_no_numbers_are_refused(bad):
    with pytest.raises(NumericError, match="pearson, spearman, mse: no longer a number"):
        scores.of("regress", (), [1.0, 2.0, 3.0], [1.0, bad, 2.0])


# Tags ---------------------------------------------------------------------------------------------------------------

TAGS = ["O", "O", "O", "B-A", "I-A", "B-B", "I-B", "E-B", "S-A", "I-C"]


def test_tags_are_scored_as_seqeval_does():
    """Sequences that no scheme allows too."""
    seqeval = pytest.importorskip("seqeval.metrics")
    rng = random.Random(0)
    for _ in range(200):
        truth = [rng.choices(TAGS, k=rng.randint(1, 9)) for _ in range(rng.randint(1, 6))]
        predicted = [[tag if rng.random() < 0.8 else rng.choice(TAGS) for tag in tags] for tags in truth]
        expected = {"accuracy": seqeval.accuracy_score(truth, predicted)}
        for name in ("f1", "precision", "recall"):
            expected[name] = getattr(seqeval, f"{name}_score")(truth, predicted, zero_division=0)
        assert scores.of("tag", (), truth, predicted) == close(expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ("O O", "O O", {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}),  # as seqeval: no entity at all
        ("B-A O", "O O", {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.5}),
        ("O O", "B-A O", {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.5}),
        ("B-A I-A", "I-A I-A", {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 0.5}),
        ("B-A I-A", "B-A B-A", {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.5}),
        ("B-A O B-B", "B-A O O", {"f1": 2 / 3, "precision": 1.0, "recall": 0.5, "accuracy": 2 / 3}),
        ("", "", {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.0}),
    ],
)
def test_tags_of_a_sentence(truth, predicted, expected):
    assert scores.of("tag", (), [truth.split()], [predicted.split()]) == close(expected)


def test_the_same_words_in_another_sentence_are_another_entity():
    found = scores.of("tag", (), [["B-A", "O"], ["O", "O"]], [["O", "O"], ["B-A", "O"]])
    assert found["f1"] == 0.0


# Answers ------------------------------------------------------------------------------------------------------------

OURS = {
    "exact": "exact_match",
    "f1": "f1",
    "HasAns_exact": "has_answer_exact_match",
    "HasAns_f1": "has_answer_f1",
    "NoAns_exact": "no_answer_accuracy",
    "NoAns_f1": "no_answer_accuracy",
}


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("seed", official.SEEDS)
def test_answers_are_scored_as_the_script_does(seed, edges):
    """Several right answers, none, and what is nothing without articles and punctuation."""
    kept = official.read()["edges" if edges else "metrics"][seed]
    truth, predicted, _ = zip(*official.questions(seed, edges=edges), strict=True)
    found = scores.of("span", (), truth, predicted)
    expected = {ours: kept[theirs] / 100 for theirs, ours in OURS.items() if theirs in kept}
    if "NoAns_total" not in kept:  # then those with an answer are all, and not told twice
        expected = {name: value for name, value in expected.items() if not name.startswith("has")}
    assert found == close(expected)


def plain(right, given):
    """The rules in other words: exact match and F1 of an answer, of words that are counted one by one."""

    def words(text):
        kept = "".join(" " if character.isspace() else character for character in text.lower())
        kept = "".join(character for character in kept if character not in string.punctuation)
        return [word for word in re.split(r"\s+", re.sub(r"(?<!\w)(a|an|the)(?!\w)", " ", kept)) if word]

    given, best = words(given), (0.0, 0.0)
    for one in [one for one in map(words, right) if one] or [[]]:
        left, same = list(one), 0
        for word in given:
            if word in left:
                left.remove(word)
                same += 1
        f1 = float(one == given) if not (one and given) else 2 * same / (len(one) + len(given))
        best = max(best[0], float(one == given)), max(best[1], f1)
    return best


def test_a_plain_second_implementation_gives_the_same():
    for seed in range(100, 130):
        asked = official.questions(seed, edges=seed % 2 == 0)
        exact, f1 = scores.answer_scores(*list(zip(*asked, strict=True))[:2])
        for i, (right, given, _) in enumerate(asked):
            assert (exact[i], f1[i]) == close(plain(right, given)), (right, given)


@pytest.mark.parametrize(
    ("right", "given", "exact", "f1"),
    [
        (["the U.S. Army"], "US army!", 1.0, 1.0),
        (["Theatre"], "the Theatre", 1.0, 1.0),
        (["in 1973", "1973"], "1973", 1.0, 1.0),
        (["one two two three"], "two two four", 0.0, 4 / 7),
        (["Ada"], "", 0.0, 0.0),
        ([], "", 1.0, 1.0),
        ([], "Ada", 0.0, 0.0),
        (["the"], "", 1.0, 1.0),  # nothing is left of it, so that no answer is right
        (["the", "Ada"], "", 0.0, 0.0),
        (["Åland\u00a0islands"], "åland  islands", 1.0, 1.0),
    ],
)
def test_answers_to_a_question(right, given, exact, f1):
    assert scores.of("span", (), [right], [given])["exact_match"] == exact
    assert scores.of("span", (), [right], [given])["f1"] == close(f1)


# Thresholds ---------------------------------------------------------------------------------------------------------


def answered(questions):
    """Records and predictions of [(right answers, best answer, null odds)]."""
    records = [Record("q", ("", ""), answers=tuple(Answer(0, text) for text in right)) for right, _, _ in questions]
    found = []
    for _, text, odds in questions:
        candidates = (Candidate(text, 0, 0.0), NONE._replace(score=odds))
        found.append(Predicted("", {}, Answered("", -1, candidates, (0.5, 0.5), odds)))
    return records, found


@pytest.mark.parametrize("seed", official.SEEDS)
def test_the_best_threshold_is_that_of_the_script(seed):
    kept = official.read()["metrics"][seed]
    found = scores.best_threshold(*answered(official.questions(seed, edges=False)))
    for theirs, ours in (("best_exact", "best_exact_match"), ("best_f1", "best_f1")):
        assert found[ours] == close(kept[theirs] / 100)
        if seed != 7:  # where none has an answer, the script says 0.0, whatever the odds
            assert found[f"{ours}_threshold"] == close(kept[f"{theirs}_thresh"])


@pytest.mark.parametrize("digits", [0, 9])
def test_the_best_threshold_gives_what_it_promises_and_no_other_gives_more(digits):
    """Also where many odds are equal, between which none can be set."""
    for seed in (7, *range(20, 40)):  # 7: none has an answer
        asked = [(right, text, round(odds, digits)) for right, text, odds in official.questions(seed, edges=True)]
        truth = [right for right, _, _ in asked]

        def at(threshold, asked=asked, truth=truth):
            texts = [text if odds <= threshold else "" for _, text, odds in asked]
            return scores.of("span", (), truth, texts)

        found = scores.best_threshold(*answered(asked))
        tried = [at(threshold) for threshold in [-99.0, *(odds for _, _, odds in asked)]]
        for name in ("exact_match", "f1"):
            assert found[f"best_{name}"] == close(max(one[name] for one in tried))
            assert at(found[f"best_{name}_threshold"])[name] == close(found[f"best_{name}"])


def test_no_threshold_where_there_always_is_an_answer():
    candidate = Candidate("Ada", 0, 1.0)
    always = Predicted("Ada", {}, Answered("Ada", 0, (candidate,), (1.0,), None))
    assert scores.best_threshold([Record("q", ("", ""), answers=())], [always]) == {}


# All ----------------------------------------------------------------------------------------------------------------


def test_endings():
    assert scores.of("choice", (), ["0", "3", "1"], ["0", "3", "2"]) == {"accuracy": 2 / 3}


@pytest.mark.parametrize("kind", scores.METRICS)
def test_nothing_has_no_metric(kind):
    assert scores.of(kind, ("a", "b"), [], []) == {}


@pytest.mark.parametrize("kind", scores.METRICS)
def test_a_prediction_for_each(kind):
    with pytest.raises(ValueError, match="2 examples have 1"):
        scores.of(kind, ("a", "b"), ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="more or fewer predictions than words"):
        scores.of("tag", (), [["O", "O"]], [["O"]])


@pytest.mark.parametrize(
    ("kind", "known", "value", "metric"),
    [
        ("classify", {"label": "b"}, "b", "accuracy"),
        ("regress", {"label": "2.5"}, 2.5, "mse"),
        ("tag", {"tags": ("B-A",)}, ("B-A",), "accuracy"),
        ("span", {"answers": (Answer(3, "Ada"),)}, "Ada", "exact_match"),
        ("span", {"answers": ()}, "", "exact_match"),
        ("choice", {"label": "1"}, "1", "accuracy"),
    ],
)
def test_records_without_labels_are_left_out(kind, known, value, metric):
    records = [Record("x", ("w",)), Record("x", ("w",), **known)]
    found = scores.of_records(kind, ("a", "b"), records, [Predicted("a"), Predicted(value)])
    assert found[metric] == (0.0 if kind == "regress" else 1.0)
    assert scores.of_records(kind, ("a", "b"), records[:1], [Predicted(value)]) == {}


def test_the_metric_by_which_runs_are_chosen():
    for kind, metric in scores.CHOSEN.items():
        assert scores.chosen(TaskConfig(kind=kind), ("a", "b")) == metric in scores.NAMES[kind]
    assert scores.chosen(TaskConfig(kind="classify", metric="f1"), ("a", "b")) == "f1"
    with pytest.raises(ConfigError, match=r"metric = f1: .* has accuracy, macro_f1, matthews; macro_f1 is the one"):
        scores.chosen(TaskConfig(kind="classify", metric="f1"), ("a", "b", "c"))
    with pytest.raises(ConfigError, match=r"task\.metric = matthews: task\.kind = tag has f1, accuracy$"):
        scores.chosen(TaskConfig(kind="tag", metric="matthews"), ())


def test_metrics_that_can_be_chosen_are_there():
    given = SimpleNamespace(classify=["a"], regress=[1.0], tag=[["O"]], span=[()], choice=["0"])
    for kind, names in scores.NAMES.items():
        truth = getattr(given, kind)
        assert set(names) <= set(scores.of(kind, ("a", "b"), truth, [""] if kind == "span" else truth))
