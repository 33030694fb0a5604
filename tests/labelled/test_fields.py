"""Values of a row become the record of their kind, or say what they should be."""

import pytest

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import DataError
from bertjax.labelled.fields import missing, needed, record
from bertjax.labelled.records import Answer

CHOICE = {"kind": "choice", "text": "q", "endings": ("a", "b")}


def make(values, *, labelled=True, **fields):
    return record("f: line 1", TaskConfig(**{"kind": "classify", **fields}), values, labelled=labelled)


def refused(values, **fields):
    with pytest.raises(DataError, match="^f: line 1: ") as caught:
        make(values, **fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "label"),
    [(" good ", "good"), (1, "1"), (-0.5, "-0.5"), (True, "true"), (False, "false"), ("", None), (float("nan"), None)],
)
def test_labels_are_what_is_written(value, label):
    assert make({"text": "a", "label": value}, labelled=False).label == label


def test_the_label_before_the_separator():
    assert make({"text": "a", "label": "NUM:date:x"}, separator=":").label == "NUM"
    assert make({"text": "a", "label": "NUM"}, separator=":").label == "NUM"
    assert "has no label" in refused({"text": "a", "label": ":date"}, separator=":")


def test_pairs_and_endings():
    pair = make({"text": "a", "pair": "b", "label": "x"}, pair="pair")
    assert pair.texts == ("a", "b") and pair.labelled
    found = make({"q": "Who?", "a": "I", "b": "you", "label": 1}, **CHOICE)
    assert (found.texts, found.label) == (("Who?", "I", "you"), "1")
    for label in ("2", "-1", "A", "1.0", "²"):
        assert "none of the endings; write which ending is right, from 0 to 1" in refused(
            {"q": "Who?", "a": "I", "b": "you", "label": label}, **CHOICE
        )


def test_numbers():
    assert make({"text": "a", "label": "3.80"}, kind="regress").label == "3.80"
    assert make({"text": "a", "label": "1e-2"}, kind="regress").label == "1e-2"
    assert "is no number; write it with a point" in refused({"text": "a", "label": "3,8"}, kind="regress")
    for label in ("nan", "inf", "-inf", "1e999"):
        assert "no number to learn" in refused({"text": "a", "label": label}, kind="regress")


def test_words_with_tags():
    task = {"kind": "tag", "text": "words", "label": "tags"}
    found = make({"words": ["a", "b"], "tags": ["O", "B-X"]}, **task)
    assert (found.texts, found.tags) == (("a", "b"), ("O", "B-X"))
    assert make({"words": ["a"]}, labelled=False, **task).tags is None
    for values, problem in [
        ({"words": "a b", "tags": ["O"]}, "'a b' and no list of words"),
        ({"words": [], "tags": []}, "no list of words"),
        ({"words": ["a", " "], "tags": ["O", "O"]}, "a word of 'words' is empty"),
        ({"words": ["a", 1], "tags": ["O", "O"]}, "a word of 'words' is 1 and no text"),
        ({"words": ["a"], "tags": ["O", "O"]}, "1 words and 2 tags in column 'tags'"),
        ({"words": ["a"], "tags": [3]}, "a tag of 'tags' is 3 and no text"),
        ({"words": ["a"]}, "1 words and None in column 'tags'"),
    ]:
        assert problem in refused(values, **task)


def test_questions():
    values = {"question": "Who?", "context": "You are.", "id": 5, "answers": {"text": ["You"], "answer_start": [0]}}
    found = make(values, kind="span")
    assert (found.texts, found.answers, found.name) == (("Who?", "You are."), (Answer(0, "You"),), "5")


def test_the_columns_that_a_row_must_have():
    task = TaskConfig(kind="classify", pair="b")
    assert list(needed(task, labelled=True)) == [("task.text", "text"), ("task.pair", "b"), ("task.label", "label")]
    assert [column for _, column in needed(task, labelled=False)] == ["text", "b"]
    assert [column for _, column in needed(TaskConfig(**CHOICE), labelled=True)] == ["q", "a", "b", "label"]
    assert [column for _, column in needed(TaskConfig(kind="span"), labelled=True)] == ["question", "context"]


def test_a_missing_column_is_told_without_moving_the_cursor():
    message = str(missing("task.text", "text", "f", ["a\x1b[2J", "b" * 99]))
    assert message.startswith("task.text = 'text': f has no such column; it has a\\x1b[2J, bbb")
    assert len(message) < 160
