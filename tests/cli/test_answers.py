"""`bertjax.cli.answers`: what a person and what a program is shown; and `bertjax predict`, from lines to answers."""

import io
import json
import os
import subprocess
import sys

import finetuned
import pytest
from small import tiny

import bertjax
from bertjax.cli import answers
from bertjax.cli import main as cli
from bertjax.cli.requests import Request
from bertjax.trained.predict import Answered, Chosen, Classified, Entity, Scored, Tagged

SHOWN = [
    (
        Request("", "a \x1b[2J " + "x" * 99),
        Classified("go\nod", {"bad": 0.25, "go\nod": 0.75}),
        r"go\nod 0.750   a \x1b[2J " + "x" * 73 + "...",
        {"label": "go\nod", "scores": {"bad": 0.25, "go\nod": 0.75}},
    ),
    (Request("", "a", "b"), Scored(2.5), "2.500   a", {"score": 2.5}),
    (
        Request("", "a", ["b", "c\x07"]),
        Chosen(1, [0.25, 0.75]),
        r"c\x07 0.750   a",
        {"label": 1, "scores": [0.25, 0.75]},
    ),
    (
        Request("", "a?", "b c"),
        Answered("c", 2, 3, 0.5),
        "c 0.500   a?",
        {"answer": "c", "start": 2, "end": 3, "score": 0.5},
    ),
    (
        Request("", "a?", "b c"),
        Answered("", -1, -1, 0.5),
        "(no answer) 0.500   a?",
        {"answer": "", "start": -1, "end": -1, "score": 0.5},
    ),
    (
        Request("", ["Anna", "is", "in"]),
        Tagged(["Anna", "is", "in"], ["B-PER", "O", "O"], [Entity("PER", "Anna", 0, 4, 0.5)]),
        "Anna/B-PER is in",
        {
            "words": ["Anna", "is", "in"],
            "tags": ["B-PER", "O", "O"],
            "entities": [{"label": "PER", "text": "Anna", "start": 0, "end": 4, "score": 0.5}],
        },
    ),
]


@pytest.mark.parametrize(("request_", "answer", "line", "values"), SHOWN, ids=[type(s[1]).__name__ for s in SHOWN])
def test_an_answer_is_a_line_and_an_object(request_, answer, line, values):
    assert answers.line(request_, answer) == line
    assert answers.values(answer) == values and list(answers.values(answer)) == list(values)


# The command --------------------------------------------------------------------------------------------------------

INPUTS = {
    "classify": ["a b\nc\n\nd e f\n", [{"text": "a b"}, {"text": "c"}, {"text": "d e f"}]],
    "regress": ["a\tb\nc\td\ne\tf\n", [{"text": a, "pair": b} for a, b in ("ab", "cd", "ef")]],
    "tag": ["a b\nc\nd e f\n", [{"words": ["a", "b"]}, {"text": "c"}, {"words": ["d", "e", "f"]}]],
    "span": ["a?\tb c\ne\tf\n\th\n", [{"question": q, "context": c} for q, c in (("a?", "b c"), "ef", ("", "h"))]],
    "choice": ["a\tb\tc\nd\te\tf\ng\th\ti\n", [{"text": t, "endings": e} for t, *e in ("abc", "def", "ghi")]],
}
"""The same as lines and as objects."""
KEYS = {
    "classify": {"label", "scores"},
    "regress": {"score"},
    "tag": {"words", "tags", "entities"},
    "span": {"answer", "start", "end", "score"},
    "choice": {"label", "scores"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A work directory of each kind."""
    root = tmp_path_factory.mktemp("runs")
    paired = {"regress": {"pair": "pair"}}
    return {kind: finetuned.write(root / kind, finetuned.config_of(kind, task=paired.get(kind, {}))) for kind in INPUTS}


def run(monkeypatch, content, *arguments):
    """Exit code of a command in this process."""
    data = content if isinstance(content, bytes) else content.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", *arguments])
    return end.value.code


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_answers_each_line_in_its_order(kind, runs, monkeypatch, capsys):
    """As lines or objects of standard input, or as arguments; and as the same model answers in Python."""
    workdir = f"--workdir={runs[kind]}"
    shown = []
    objects = "".join(json.dumps(values) + "\n" for values in INPUTS[kind][1])
    for content in (INPUTS[kind][0], objects):
        assert run(monkeypatch, content, workdir, "--json") == 0
        shown.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert run(monkeypatch, "", workdir, "--json", *objects.splitlines()) == 0
    shown.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert shown[0] == shown[1] == shown[2] and len(shown[0]) == 3
    assert all(set(values) == KEYS[kind] for values in shown[0])
    model, lines = bertjax.load(runs[kind]), [line.split("\t") for line in INPUTS[kind][0].splitlines() if line]
    firsts, seconds = [line[0] for line in lines], [line[1:] for line in lines]
    asked = {
        "classify": lambda: model.classify(firsts),
        "regress": lambda: model.classify(firsts, [second for (second,) in seconds]),
        "tag": lambda: model.tag(firsts),
        "span": lambda: model.answer(firsts, [second for (second,) in seconds]),
        "choice": lambda: model.choose(firsts, seconds),
    }[kind]()
    assert shown[0] == [json.loads(json.dumps(answers.values(one))) for one in asked]
    assert run(monkeypatch, INPUTS[kind][0], workdir) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_many_lines_are_answered_in_their_order(runs, monkeypatch, capsys):
    texts = [" ".join(finetuned.LETTERS[: 1 + i % 11]) for i in range(600)]
    assert run(monkeypatch, "\n".join(texts), f"--workdir={runs['tag']}", "--json") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(one["words"]) for one in shown] == texts


@pytest.mark.parametrize(
    ("kind", "content", "arguments", "code", "named"),
    [
        ("classify", b"a\n\xff\n", [], 3, "standard input: line 2: is not UTF-8 text"),
        ("classify", 'a\n{"text": "b"}\n', [], 3, "standard input: line 2: is a JSON object"),
        ("span", "", ["a?"], 3, "argument 1: is one text, and this model must be told more"),
        ("classify", "a\tb\n", [], 3, "trained on single texts (task.pair = '')"),
        ("tag", "a\n", ["--format=tsv"], 2, "--format=tsv: this model takes one text at a time"),
        ("tag", "a\n", ["--format=xml"], 2, "--format=xml: must be"),
    ],
)
def test_a_mistake_is_one_line(kind, content, arguments, code, named, runs, monkeypatch, capsys):
    assert run(monkeypatch, content, f"--workdir={runs[kind]}", *arguments) == code
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert named in line and out == ""


def test_nothing_to_answer_is_no_mistake(runs, monkeypatch, capsys):
    assert run(monkeypatch, "\n \n", f"--workdir={runs['span']}", "--json") == 0
    assert capsys.readouterr().out == ""


def test_a_model_that_was_not_fine_tuned_says_so(tmp_path, monkeypatch, capsys):
    config = tiny(model={"num_layers": 1}, data={"tokenizer_kind": "wordpiece"})
    assert run(monkeypatch, "a\n", f"--workdir={finetuned.write(tmp_path, config)}") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "answers nothing: its heads are mlm_head, pair_head, pooler; fine-tune one with `bertjax finetune`" in line


def test_early_lines_are_answered_before_the_last_is_there_and_a_reader_may_leave(runs):
    command = [sys.executable, "-m", "bertjax", "predict", f"--workdir={runs['classify']}", "--json"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ, **streams) as process:
        process.stdin.write(b"a b\n" * 300)
        process.stdin.flush()
        first = process.stdout.readline()  # and standard input is open still
        assert set(json.loads(first)) == KEYS["classify"]
        process.stdout.close()
        process.stdin.close()
        assert process.wait(timeout=120) == 0 and process.stderr.read() == b""
