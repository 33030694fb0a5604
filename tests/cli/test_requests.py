"""`bertjax.cli.requests`: lines of each form, in order, read as they are needed; and each mistake with its line."""

import io
import json
import sys

import pytest

from bertjax.cli import requests
from bertjax.cli.requests import Request, chunks
from bertjax.errors import ConfigError, DataError


class Source(io.RawIOBase):
    """Standard input that counts the bytes that were taken from it."""

    def __init__(self, content):
        self.rest, self.taken = content, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.rest[: min(len(buffer), 64)]
        self.rest = self.rest[len(part) :]
        self.taken += len(part)
        buffer[: len(part)] = part
        return len(part)


def given(monkeypatch, content):
    source = Source(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(source, 64)))
    return source


def read(monkeypatch, kind, content, form="auto"):
    """First and second of each request of standard input."""
    given(monkeypatch, content)
    return [(one.first, one.second) for chunk in chunks(kind, [], form) for one in chunk]


def problem(monkeypatch, kind, content, form="auto"):
    """The one line of the error that it is."""
    with pytest.raises(DataError) as error:
        read(monkeypatch, kind, content, form)
    (line,) = str(error.value).splitlines()
    assert len(line) < 250
    return line


def objects(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_a_line_is_a_text(monkeypatch):
    assert read(monkeypatch, "classify", "\ufeff one \r\n\n\t \ntwo {3}\n\u2028x") == [
        ("one", None),
        ("two {3}", None),
        ("x", None),
    ]
    assert read(monkeypatch, "regress", "") == []
    assert read(monkeypatch, "tag", "Anna\tin Rome\n") == [("Anna\tin Rome", None)]


def test_words_of_the_command_line_come_first(monkeypatch):
    given(monkeypatch, "not read")
    (chunk,) = chunks("classify", ["a", "", "b"], "auto")
    assert chunk == [Request("argument 1", "a"), Request("argument 3", "b")]


def test_columns_are_pairs(monkeypatch):
    assert read(monkeypatch, "classify", "a\tb\n\tc\nd\t\r\n") == [("a", "b"), ("", "c"), ("d", "")]
    assert read(monkeypatch, "span", "who?\tAnna.\n") == [("who?", "Anna.")]
    assert read(monkeypatch, "choice", "a\tb\tc\nd\te\tf\tg\n") == [("a", ["b", "c"]), ("d", ["e", "f", "g"])]


def test_objects(monkeypatch):
    assert read(monkeypatch, "classify", objects({"text": "a\tb"}, {"text": "é", "label": 3})) == [
        ("a\tb", None),
        ("é", None),
    ]
    assert read(monkeypatch, "regress", objects({"text": "a", "pair": "b"})) == [("a", "b")]
    assert read(monkeypatch, "span", objects({"question": "a", "context": "b"})) == [("a", "b")]
    assert read(monkeypatch, "tag", objects({"words": ["a", "b c"]}, {"text": "d e"})) == [
        (["a", "b c"], None),
        ("d e", None),
    ]
    assert read(monkeypatch, "choice", objects({"text": "a", "endings": ["b", "c"]})) == [("a", ["b", "c"])]


def test_a_form_can_be_named(monkeypatch):
    content = '{"text": "a"}\nb\tc\n'
    assert read(monkeypatch, "classify", content, "text") == [('{"text": "a"}', None), ("b\tc", None)]
    assert read(monkeypatch, "classify", '{"a\tb\n', "tsv") == [('{"a', "b")]
    assert "line 2: is no JSON object" in problem(monkeypatch, "classify", content, "jsonl")


@pytest.mark.parametrize(
    ("kind", "content", "named"),
    [
        ("classify", 'a\n{"text": "b"}\n', "line 2: is a JSON object, and the first line is not"),
        ("classify", "a\n\nb\tc\n", "line 3: has a TAB, and the first line has none"),
        ("classify", "a\tb\nc\n", "line 2: has 1 column, must have 2: TEXT TAB PAIR"),
        ("classify", "a\tb\tc\n", "line 1: has 3 columns, must have 2"),
        ("choice", "a\tb\n", "line 1: has 2 columns, must have 3 or more: TEXT TAB ENDINGS TAB ..., or {"),
        ("classify", '{"text": "a"}\nb\n', "line 2: is no JSON object (Expecting value"),
        ("classify", '{"text": "a"}\n[1]\n', "line 2: is no JSON object (list)"),
        ("classify", '{"text": "a"}\n{"text": "b"', "line 2: is no JSON object (Expecting"),
        ("classify", '{"a": ' + "[" * 100_000, "line 1: is no JSON object (nested too deeply)"),
        ("classify", '{"text": ' + "9" * 5000 + "}", "line 1: is no JSON object (Exceeds the limit"),
        ("regress", objects({"text": "a", "pair": "b"}, {"text": "c"}), 'line 2: lacks "pair", which the first'),
        ("regress", objects({"text": "a"}, {"text": "b", "pair": "c"}), 'line 2: has "pair", which the first'),
        ("classify", objects({"texts": "a"}), 'line 1: lacks "text" (has "texts"); add it'),
        ("classify", "{}", 'line 1: lacks "text" (has nothing); add it'),
        ("classify", objects({"text": 3}), 'line 1: "text" = 3: must be a text'),
        ("classify", objects({"text": ["a"]}), "line 1: \"text\" = ['a']: must be a text"),
        ("classify", '{"text": NaN}', 'line 1: "text" = nan: must be a text'),
        ("classify", '{"text": "\\ud800"}', 'line 1: "text" has half a character'),
        ("tag", objects({"words": "a b"}), "line 1: \"words\" = 'a b': must be a list of texts"),
        ("tag", objects({"words": []}), 'line 1: "words" = []: must be a list of texts'),
        ("tag", objects({"words": ["a", None]}), "line 1: \"words\" = ['a', None]: must be a list of texts"),
        ("span", "who?\n", "line 1: is one text, and this model must be told more; give QUESTION TAB CONTEXT, or"),
        ("span", objects({"question": "a"}), 'line 1: lacks "context" (has "question"); add it'),
        ("classify", b"a\n\xff\n", "line 2: is not UTF-8 text (invalid start byte); convert it"),
        ("classify", "\u001b[2J\ta\tb\n", "line 1: has 3 columns"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(kind, content, named, monkeypatch):
    assert problem(monkeypatch, kind, content).startswith(f"standard input: {named}")


def test_columns_for_a_model_that_takes_none_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--format=tsv: this model takes one text at a time"):
        read(monkeypatch, "tag", "a\tb\n", "tsv")


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(requests, "_LONGEST", 100)
    assert "line 2: has more than 100 bytes; cut it" in problem(monkeypatch, "classify", "a\n" + "x" * 1000)
    assert len(read(monkeypatch, "classify", "x" * 99 + "\n" + "y" * 100)) == 2


def test_no_more_is_read_than_is_answered(monkeypatch):
    """A chunk, and the buffer; what comes later is a mistake that is not met."""
    lines = [f"text {i}\n".encode() for i in range(10_000)]
    source = given(monkeypatch, b"".join([*lines, b"\xff"]))
    first, second = (chunk for _, chunk in zip(range(2), chunks("classify", [], "auto"), strict=False))
    assert [one.first for one in first + second] == [f"text {i}" for i in range(len(first + second))]
    assert len(first) == len(second) == 256 and source.taken < 2 * len(b"".join(lines[:512]))


def test_long_texts_make_short_chunks(monkeypatch):
    monkeypatch.setattr(requests, "_CHARACTERS", 100)
    given(monkeypatch, ("x" * 59 + "\n") * 5)
    assert [len(chunk) for chunk in chunks("classify", [], "auto")] == [2, 2, 1]
