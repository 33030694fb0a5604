"""Lines are read whatever they end in and however they are packed; what is odd is said, what is no text refused."""

import gzip
import json
import os

import pytest

from bertjax.errors import DataError
from bertjax.labelled import source
from bertjax.labelled.source import Notes, json_value, text, text_lines


def lines(path, content):
    path.write_bytes(content)
    notes = Notes(path.name)
    found = list(text_lines(str(path), notes))
    notes.say()
    return found


def test_line_ends_and_byte_order_mark_are_no_text(tmp_path, capsys):
    plain = [(1, "a\tb"), (2, ""), (3, "c \u2028d")]
    assert lines(tmp_path / "x", "a\tb\n\nc \u2028d\n".encode()) == plain
    assert lines(tmp_path / "x", b"\xef\xbb\xbf" + "a\tb\r\n\r\nc \u2028d".encode()) == plain
    assert lines(tmp_path / "x", "a\tb\n\nc \u2028d".encode("utf-16")) == plain
    assert lines(tmp_path / "x.gz", gzip.compress("a\tb\n\nc \u2028d".encode())) == plain
    assert capsys.readouterr().err == ""


def test_what_is_odd_is_said_once_with_its_first_line(tmp_path, capsys):
    found = lines(tmp_path / "x", b"one\ncaf\xe9 \x93\n\0two\n\xe9\n")
    assert found == [(1, "one"), (2, "café “"), (3, "two"), (4, "é")]
    assert capsys.readouterr().err.splitlines() == [
        "x: line 2 and 1 more: not UTF-8, so it is read as Latin-1",
        "x: line 3: has NUL in it, which is left out",
    ]


def refused(path):
    with pytest.raises(DataError) as caught:
        list(text_lines(str(path), Notes("")))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_file_of_text_is_refused(tmp_path, monkeypatch):
    assert "No such file" in refused(tmp_path / "none")
    assert "no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(tmp_path / "pipe")
    for name, content, problem in [
        ("empty", b"", "is empty"),
        ("picture.tsv", b"\x89PNG\r\n", "PNG picture; leave it out of the task"),
        ("packed.tsv", gzip.compress(b"text"), "ends in .gz"),
        ("damaged.gz", gzip.compress(b"text" * 999)[:-20], "cannot be read"),
        ("many", b"a\0b\0" * 9, "another encoding"),
        ("cyrillic", "привет и пока\n".encode("cp1251") * 9, "leave it out of the task"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert problem in refused(tmp_path / name)
    monkeypatch.setattr(source, "MAX_LINE", 9)
    (tmp_path / "long").write_bytes(b"12345678\n123456789\n")
    assert "line 2: longer than 9 bytes" in refused(tmp_path / "long")


def test_json_of_a_whole_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": "é"}, ensure_ascii=False).encode())
    assert json_value(str(path)) == {"a": "é"}
    for content, problem in [
        (b" \n", "is empty"),
        (b'{"a":\n\xe9}', "line 2: not UTF-8"),
        (b'{"a":\n1,}', "line 2: no JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=problem):
            json_value(str(path))


def test_a_value_is_text_of_some_length(monkeypatch):
    assert text("f: line 1", "column 'a'", "é\t") == "é\t"
    monkeypatch.setattr(source, "MAX_CHARACTERS", 10)
    for value, problem in [
        (None, "is missing and no text"),
        (5, "is 5 and no text"),
        (["a"], r"is \['a'\] and no text"),
        ("x" * 11, "has 11 characters, above 10"),
        ("a\ud83d", r"has '\\ud83d' in it"),
        ("a\0", r"has '\\x00' in it"),
    ]:
        with pytest.raises(DataError, match=f"^f: line 1: column 'a' {problem}"):
            text("f: line 1", "column 'a'", value)
