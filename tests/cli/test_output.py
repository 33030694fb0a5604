"""`bertjax.cli.output`: results as text and JSON, texts as lines."""

import io
import sys

import pytest

from bertjax.cli.output import ReadEnough, dumps, lines, show
from bertjax.errors import DataError, NumericError


def test_json_has_no_nan():
    assert dumps({"a": [1.5]}) == '{"a": [1.5]}'
    for value in (float("nan"), float("-inf")):
        with pytest.raises(NumericError):
            dumps({"a": [value]})


def test_a_reader_that_has_left(monkeypatch):
    def left(*_):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", left)
    with pytest.raises(ReadEnough):
        show("a")


def test_lines_with_text(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" a \n\n \nb"), encoding="utf-8"))
    assert lines() == ["a", "b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a \xff"), encoding="utf-8"))
    with pytest.raises(DataError, match="standard input"):
        lines()
