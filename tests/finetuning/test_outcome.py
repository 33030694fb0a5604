"""`bertjax.finetuning.outcome`: files of predictions that others can read, and a picture of what is taken for what."""

import json

import matplotlib.figure
import numpy as np
import pytest

from bertjax.finetuning import outcome
from bertjax.labelled.records import Answer, Record
from bertjax.trained.answers import NONE, Answered, Candidate
from bertjax.trained.predicted import Predicted


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the pictures that are made, that of the matrix only."""
    axes = []
    save = matplotlib.figure.Figure.savefig

    def note(figure, *args, **options):
        axes.append(figure.axes[0])
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", note)
    return axes


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def cells(axis):
    """(row, column) -> its text."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axis.texts}


def test_labels(tmp_path, drawn):
    records = [Record("a.tsv: line 1", ("good", "so"), "pos"), Record("a.tsv: line 2", ("bad",), "neg", name="x7")] * 2
    found = [Predicted("pos", {"neg": 0.25, "pos": 0.75}), Predicted("pos", {"neg": 1 / 3, "pos": 2 / 3})]
    found += [found[0], Predicted("neg", {"neg": 0.9, "pos": 0.1})]
    paths = outcome.write(tmp_path, "dev", "classify", ("neg", "pos"), records, found)
    assert [path.name for path in paths] == ["predictions.dev.jsonl", "confusion.dev.png"]
    assert lines(paths[0])[:2] == [
        {
            "place": "a.tsv: line 1",
            "texts": ["good", "so"],
            "truth": "pos",
            "predicted": "pos",
            "scores": {"neg": 0.25, "pos": 0.75},
        },
        {
            "place": "a.tsv: line 2",
            "name": "x7",
            "texts": ["bad"],
            "truth": "neg",
            "predicted": "pos",
            "scores": {"neg": 0.333333, "pos": 0.666667},
        },
    ]
    assert paths[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (axis,) = drawn
    assert cells(axis) == {(0, 0): "1\n50 %", (0, 1): "1\n50 %", (1, 1): "2\n100 %"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["neg  (2)", "pos  (2)"]
    assert axis.get_title() == "dev: 3 of 4 right"


def test_tags(tmp_path, drawn):
    """A word with a tab would be two columns."""
    records = [Record("s", ("Ada", "Byron", "of", "Kent"), tags=("B-P", "I-P", "O", "B-L")), Record("s", ("a\tb",))]
    records[1] = Record("s", ("a\tb", "\u2028"), tags=("O", "O"))
    found = [Predicted(("B-P", "I-P", "O", "B-P"), (1.0, 0.5, 0.25, 0.123456789)), Predicted(("B-L", "O"), (1.0, 1.0))]
    labels = ("O", "B-L", "I-L", "B-P", "I-P")
    paths = outcome.write(tmp_path, "test", "tag", labels, records, found)
    assert [path.name for path in paths] == ["predictions.test.jsonl", "predictions.test.conll", "confusion.test.png"]
    first, second = lines(paths[0])
    assert first["truth"] == ["B-P", "I-P", "O", "B-L"] and first["predicted"] == ["B-P", "I-P", "O", "B-P"]
    assert first["scores"] == [1.0, 0.5, 0.25, 0.123457] and second["texts"] == ["a\tb", "\u2028"]
    assert paths[1].read_text() == (
        "Ada\tB-P\tB-P\nByron\tI-P\tI-P\nof\tO\tO\nKent\tB-L\tB-P\n\na b\tO\tB-L\n \tO\tO\n"
    )
    # One of the right words and type, one of another type, and one where there is none.
    assert cells(drawn[0]) == {(0, 1): "1\n100 %", (1, 1): "1\n100 %", (2, 0): "1\n100 %"}
    assert [label.get_text() for label in drawn[0].get_xticklabels()] == ["L", "P", "none"]
    assert drawn[0].get_title() == "test: 1 of 2 entities found, none = not these words"


def test_entities_of_other_words_are_not_these():
    records = [Record("s", ("a", "b", "c"), tags=("B-P", "I-P", "O"))]
    names, counts = outcome.confusion("tag", ("O", "B-P", "I-P"), records, [Predicted(("B-P", "O", "B-P"))])
    assert names == ["P", "none"] and counts.tolist() == [[0, 1], [2, 0]]
    records = [Record("s", ("a",), tags=("B-P",)), Record("s", ("a",), tags=("O",))]  # nor of another sentence
    _, counts = outcome.confusion("tag", ("O", "B-P"), records, [Predicted(("O",)), Predicted(("B-P",))])
    assert counts.tolist() == [[0, 1], [1, 0]]
    records = [Record("s", ("a", "b"), tags=("B-none", "O"))]  # a type of that name is another one
    names, counts = outcome.confusion("tag", ("O", "B-none"), records, [Predicted(("B-none", "B-none"))])
    assert names == ["none", "none"] and counts.tolist() == [[1, 0], [1, 0]]


def answered(text, start, odds=None):
    candidates = (Candidate("Ada", 4, 2.0), Candidate("Byron", 8, 1.0), *([] if odds is None else [NONE]))
    scores = {"Ada": 0.7, "Byron": 0.2} | ({} if odds is None else {"": 0.1})
    return Predicted(text, scores, Answered(text, start, candidates, tuple(scores.values()), odds))


@pytest.mark.parametrize("null", [False, True])
def test_answers(tmp_path, null):
    records = [
        Record("q.json: 1", ("who?", "By Ada Byron"), answers=(Answer(3, "Ada"), Answer(3, "Ada Byron")), name="q1"),
        Record("q.json: 2", ("who?", "…"), answers=()),
    ]
    found = [answered("Ada", 3, -2.5 if null else None), answered("", -1, 4.0 if null else None)]
    paths = outcome.write(tmp_path, "dev", "span", (), records, found)
    names = ["predictions.dev.jsonl", "squad_predictions.dev.json", "squad_null_odds.dev.json"]
    assert [path.name for path in paths] == names[: 3 if null else 2]
    first, second = lines(paths[0])
    assert (first["truth"], first["predicted"], first["start"]) == (["Ada", "Ada Byron"], "Ada", 3)
    assert (second["truth"], second["predicted"], second["start"]) == ([], "", -1)
    assert list(first["scores"]) == ["Ada", "Byron"] + [""] * null and first.get("null_odds") == (
        -2.5 if null else None
    )
    assert json.loads(paths[1].read_text()) == {"q1": "Ada", "1": ""}
    assert not null or json.loads(paths[2].read_text()) == {"q1": -2.5, "1": 4.0}


def test_of_many_answers_the_best_five_are_told():
    scores = {str(i): 0.1 for i in range(20)}
    told = outcome.line("span", Record("q", ("", "")), Predicted("0", scores, Answered("0", 0, (), (), None)))
    assert list(told["scores"]) == list("01234") and "truth" not in told
    assert len(outcome.line("classify", Record("t", ("",)), Predicted("0", scores))["scores"]) == 20


def test_numbers_and_endings(tmp_path):
    (path,) = outcome.write(tmp_path, "dev", "regress", ("x",), [Record("t", ("a", "b"), "2.50")], [Predicted(2.25)])
    assert lines(path) == [{"place": "t", "texts": ["a", "b"], "truth": 2.5, "predicted": 2.25}]
    one = Predicted("1", {"0": 0.25, "1": 0.75})
    (path,) = outcome.write(tmp_path, "dev", "choice", (), [Record("t", ("a", "b", "c"), "0")], [one])
    assert lines(path)[0]["predicted"] == "1" and lines(path)[0]["truth"] == "0"


@pytest.mark.parametrize(("kind", "value"), [("classify", "a"), ("tag", ("O",)), ("span", "x"), ("choice", "0")])
def test_without_labels_there_is_neither_truth_nor_matrix(tmp_path, kind, value):
    paths = outcome.write(tmp_path, "test", kind, ("a", "O"), [Record("t", ("w",))], [Predicted(value)])
    assert not (tmp_path / "confusion.test.png").exists()
    assert "truth" not in lines(paths[0])[0]
    if kind == "tag":
        assert paths[1].read_text() == "w\tO\n"


def test_half_a_character_is_written_as_json_has_it(tmp_path):
    """JSON can hold it, UTF-8 cannot."""
    records = [Record("t", ("\ud83d née 漢",), "\ud800")]
    found = [Predicted("\ud800", {"\ud800": 1.0})]
    jsonl, _ = outcome.write(tmp_path, "dev", "classify", ("\ud800",), records, found)
    assert lines(jsonl)[0]["texts"] == ["\ud83d née 漢"] and "née 漢".encode() in jsonl.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 9, 20])
def test_labels_of_any_text_and_number(tmp_path, drawn, count):
    """No warning, no formula; long ones are cut."""
    names = ["$\\frac{$", "漢字 \U0001f600", "", "%s {}", "a" * 100 + "\n", *map(str, range(15))][:count]
    outcome.plot_confusion(tmp_path / "x.png", names, np.eye(count, dtype=int), title="$x$ dev", what="label")
    assert all(len(label.get_text()) <= 24 for label in drawn[0].get_xticklabels())
    assert drawn[0].get_xticklabels()[0].get_text() == names[0]


def test_the_rarest_of_too_many_labels_are_drawn_as_one(tmp_path, drawn):
    names, size = [f"c{i}" for i in range(60)], outcome.MOST_LABELS
    counts = np.diag(np.where(np.arange(60) % 5, 100, 1))
    counts[0, 5], counts[1, 0] = 7, 3
    outcome.plot_confusion(tmp_path / "x.png", names, counts, title="dev", what="label")
    shown = [label.get_text() for label in drawn[0].get_xticklabels()]
    assert len(shown) == size and shown[-1] == f"{60 - size + 1} others" and shown[:3] == ["c0", "c1", "c2"]
    assert sum(int(text.split("\n")[0]) for text in cells(drawn[0]).values()) == counts.sum()


def test_what_is_written_is_whole(tmp_path, monkeypatch):
    """A failure leaves the file of before."""
    outcome.write(tmp_path, "dev", "regress", (), [Record("t", ("a",), "1")], [Predicted(1.0)])
    before = (tmp_path / "predictions.dev.jsonl").read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        outcome.write(tmp_path, "dev", "regress", (), [Record("t", ("a",), "1")], [Predicted(float("nan"))])
    assert (tmp_path / "predictions.dev.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.dev.jsonl"]
