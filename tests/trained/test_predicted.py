"""`bertjax.trained.predicted`: from the outputs on batches to a prediction for each record."""

from types import SimpleNamespace

import numpy as np
import pytest

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import NumericError
from bertjax.labelled.records import Record
from bertjax.trained.predicted import Predictions, softmax

LABELS = ("O", "B-A", "I-A")


def example(record, count=3, **fields):
    return SimpleNamespace(record=record, tokens=np.zeros(count, np.int32), **fields)


def batch(numbers, starts=None):
    """A batch with these examples [B, K], -1 where there is none; `starts` of each in its row."""
    numbers = np.array(numbers)
    return {"numbers": numbers, "pair_positions": np.zeros_like(numbers) if starts is None else np.array(starts)}


def predictions(kind, records, examples, batches, *, labels=LABELS, null=False, **task):
    taken = Predictions(TaskConfig(kind=kind, **task), labels, records, examples, null=null)
    for one, outputs in batches:
        taken.add(one, outputs)
    return taken.done()


def texts(count):
    return [Record(f"a.tsv: line {i + 1}", ("text",)) for i in range(count)]


def test_labels_of_packed_rows_in_any_order():
    logits = {"class_logits": np.array([[[0, 1, 2], [9, 9, 9]], [[3, 0, 0], [1, 4, 1]]], np.float32)}
    found = predictions("classify", texts(3), [example(i) for i in range(3)], [(batch([[2, -1], [0, 1]]), logits)])
    assert [one.value for one in found] == ["O", "B-A", "I-A"]
    for one, row in zip(found, ([3, 0, 0], [1, 4, 1], [0, 1, 2]), strict=True):
        weights = np.exp(row)
        assert one.scores == pytest.approx(dict(zip(LABELS, weights / weights.sum(), strict=True)))


def test_numbers():
    logits = {"class_logits": np.array([[[0.5]], [[-7.25]], [[99.0]]], np.float32)}
    found = predictions(
        "regress", texts(2), [example(0), example(1)], [(batch([[1], [0], [-1]]), logits)], labels=("x",)
    )
    assert [one.value for one in found] == [-7.25, 0.5]


def test_one_of_the_endings_of_a_row():
    """Which are as many examples, of which `numbers` has one."""
    records = [Record("q", ("text", "a", "b", "c"))] * 2
    logits = {"class_logits": np.array([[[0], [2], [1]], [[5], [4], [3]]], np.float32)}
    found = predictions("choice", records, [example(0), example(1)], [(batch([[1], [0]]), logits)], labels=())
    assert [one.value for one in found] == ["0", "1"]
    assert list(found[1].scores) == ["0", "1", "2"] and sum(found[1].scores.values()) == pytest.approx(1.0)


def one_hot(*labels):
    return 5.0 * np.eye(3)[list(labels)]


def test_a_word_has_the_tag_of_its_first_piece_wherever_its_sentence_is_cut():
    """The first sentence has five words in two examples, the second of which lies behind another in its row; a word of
    the last sentence has no piece.
    """
    records = [Record("s", tuple("abcde")), Record("s", ("f", "g")), Record("s", ())]
    examples = [
        example(0, 6, words=np.array([-1, 0, 1, 1, 2, -1])),
        example(0, 5, words=np.array([-1, 3, -1, 4, -1])),  # only first pieces are told
        example(1, 3, words=np.array([-1, 1, -1])),
    ]
    logits = np.zeros((2, 8, 3))
    logits[0, :6] = one_hot(2, 1, 2, 0, 0, 2)
    logits[1, 3:] = one_hot(2, 1, 0, 2, 2)
    logits[1, :3] = one_hot(0, 2, 0)
    batches = [
        (batch([[2, 1]], [[0, 3]]), {"tag_logits": logits[1:]}),
        (batch([[0, -1]]), {"tag_logits": logits[:1]}),
    ]
    found = predictions("tag", records, examples, batches)
    assert [one.value for one in found] == [("B-A", "I-A", "O", "B-A", "I-A"), ("O", "I-A"), ()]
    sure = np.exp(5) / (np.exp(5) + 2)
    assert [len(one.scores) for one in found] == [5, 2, 0] and found[0].scores == pytest.approx((sure,) * 5)


def span_example(record, offsets):
    places = np.array([(-1, -1), *offsets])
    return example(record, len(places), offsets=places, max_context=places[:, 0] >= 0)


def test_of_equal_answers_that_of_the_first_window_is_taken():
    """Whatever the order of the batches."""
    examples = [span_example(0, [(0, 3)]), span_example(0, [(8, 11)])]
    one = {"span_logits": np.ones((1, 2, 2))}
    (found,) = predictions(
        "span", [Record("q", ("who?", "Ada and Ada"))], examples, [(batch([[1]]), one), (batch([[0]]), one)]
    )
    assert (found.value, found.answered.start) == ("Ada", 0)


@pytest.mark.parametrize("null", [False, True])
def test_answers_of_the_windows_of_a_question(null):
    """Two windows in one row, the last one first, and another question."""
    records = [Record("q", ("who?", "Ada Byron")), Record("q", ("when?", "1815"))]
    examples = [span_example(0, [(0, 3)]), span_example(0, [(4, 9)]), span_example(1, [(0, 4)])]
    logits = np.zeros((2, 4, 2))
    logits[0, 1], logits[0, 3], logits[1, 0] = 6.0, 4.0, 8.0
    batches = [
        (batch([[2, -1]]), {"span_logits": logits[1:]}),
        (batch([[1, 0]], [[0, 2]]), {"span_logits": logits[:1]}),
    ]
    found = predictions("span", records, examples, batches, null=null)
    assert [one.value for one in found] == ["Byron", "" if null else "1815"]
    assert [one.answered.start for one in found] == [4, -1 if null else 0]
    assert [one.answered.null_odds for one in found] == ([-12.0, 16.0] if null else [None, None])
    assert list(found[0].scores) == ["Byron", "Ada"] + [""] * null
    assert sum(found[0].scores.values()) == pytest.approx(1.0)


def test_what_is_no_number_is_refused_with_its_place():
    logits = np.zeros((2, 1, 3), np.float32)
    logits[1] = np.nan
    taken = Predictions(TaskConfig(kind="classify"), LABELS, texts(2), [example(0), example(1)], null=False)
    taken.add(batch([[0], [-1]]), {"class_logits": logits})  # of padding, nobody asks
    with pytest.raises(NumericError, match=r"a\.tsv: line 2: .* no number"):
        taken.add(batch([[0], [1]]), {"class_logits": logits})


def test_a_record_that_was_in_no_batch_is_not_made_up():
    taken = Predictions(TaskConfig(kind="classify"), LABELS, texts(2), [example(0), example(1)], null=False)
    taken.add(batch([[1]]), {"class_logits": np.zeros((1, 1, 3))})
    with pytest.raises(KeyError):
        taken.done()


def test_softmax_of_large_numbers():
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4], [-1e4, 0.0]])), [[0.5, 0.5], [0.0, 1.0]])
