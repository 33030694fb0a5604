"""Questions are read with answers that stand where they should, and everything else is named."""

import json

import pytest

from bertjax.errors import DataError
from bertjax.labelled import squad
from bertjax.labelled.records import Answer

CONTEXT = "🤗 The café of Zoë is open. It is in Zoë's street."
ANSWER = {"text": "Zoë", "answer_start": CONTEXT.index("Zoë")}


def question(**values):
    return {"id": "q1", "question": "Whose?", "answers": [ANSWER], **values}


def read(path, *questions, labelled=True, whole=None, context=CONTEXT):
    paragraphs = [{"context": context, "qas": list(questions)}]
    path.write_text(json.dumps(whole or {"data": [{"title": "T", "paragraphs": paragraphs}]}))
    return list(squad.records(str(path), labelled=labelled))


def test_questions_with_and_without_answers(tmp_path):
    path = tmp_path / "x.json"
    no_answer = question(id="q2", answers=[], is_impossible=True)
    found = read(path, question(answers=[ANSWER, ANSWER]), no_answer, question(id="q3", answers=[]))
    assert [record.name for record in found] == ["q1", "q2", "q3"]
    assert found[0].texts == ("Whose?", CONTEXT) and found[0].place == f"{path}: question q1"
    answer = Answer(ANSWER["answer_start"], "Zoë")
    assert [record.answers for record in found] == [(answer, answer), (), ()]
    lists = question(answers={"text": ["Zoë"], "answer_start": [ANSWER["answer_start"]]})
    assert read(path, lists)[0].answers == (answer,)


def test_answers_may_be_unknown_where_they_are_not_learnt(tmp_path):
    unlabelled = {"id": "q1", "question": "Whose?"}
    assert [record.answers for record in read(tmp_path / "x", unlabelled, labelled=False)] == [None]
    with pytest.raises(DataError, match="x: question q1: has no answers"):
        read(tmp_path / "x", unlabelled)
    assert read(tmp_path / "x", {**unlabelled, "is_impossible": True})[0].answers == ()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"answers": [{"text": "Zoë", "answer_start": 1}]}, "at character 1 there is ' Th'; it stands at 14"),
        ({"answers": [{"text": "Zoe", "answer_start": 14}]}, "'Zoe' .* there is 'Zoë'; the context has it nowhere"),
        ({"answers": [{"text": "Zoë", "answer_start": 999}]}, "999 is outside its context of 49; it stands at 14"),
        ({"answers": [{"text": "Zoë", "answer_start": -35}]}, "-35 is outside"),
        ({"answers": [{"text": "Zoë", "answer_start": "14"}]}, "answer_start is '14' and no whole number"),
        ({"answers": [{"text": "Zoë", "answer_start": True}]}, "answer_start is True"),
        ({"answers": [{"text": " ", "answer_start": 1}]}, "an answer is empty"),
        ({"answers": [{"answer_start": 1}]}, "an answer is missing"),
        ({"answers": "Zoë"}, "answers are 'Zoë' and no list"),
        ({"answers": {"text": ["Zoë"], "answer_start": []}}, "and no list"),
        ({"is_impossible": True}, "is_impossible, and 1 answers"),
        ({"is_impossible": "no"}, "is_impossible is 'no'"),
        ({"question": None}, "question is missing"),
        ({"question": "a\ud83d"}, "no character of a text"),
    ],
)
def test_a_wrong_question_is_named(tmp_path, values, problem):
    with pytest.raises(DataError, match=f"^{tmp_path / 'x.json'}: question q1: .*{problem}") as caught:
        read(tmp_path / "x.json", question(**values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("whole", "problem"),
    [
        ([1], "no list 'data'"),
        ({"data": {}}, "no list 'data'"),
        ({"data": [{"title": "T"}]}, "article 1: has no list 'paragraphs'"),
        ({"data": [{"paragraphs": []}, {"paragraphs": [{"context": "c"}]}]}, "article 2, paragraph 1: .*'qas'"),
        ({"data": [{"paragraphs": [{"context": "c", "qas": ["q"]}]}]}, "article 1, paragraph 1: 'q' is no question"),
        ({"data": [{"paragraphs": [{"qas": [question()]}]}]}, "question q1: context is missing"),
        ({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question(), question()]}]}]}, "the id 'q1' is that of"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path, whole, problem):
    with pytest.raises(DataError, match=f"^{tmp_path / 'x.json'}: .*{problem}"):
        read(tmp_path / "x.json", whole=whole)


def test_questions_without_ids_are_named_by_what_they_ask(tmp_path):
    nameless = {"question": "Whose?", "answers": [ANSWER]}
    assert [record.name for record in read(tmp_path / "x", nameless, nameless)] == ["", ""]
    with pytest.raises(DataError, match="x: article 1, paragraph 1: 'Whose.': the answer"):
        read(tmp_path / "x", {**nameless, "answers": [{"text": "Zoë", "answer_start": 1}]})
