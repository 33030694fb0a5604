"""Rows are read by name and by number, and a row that does not fit is named with its line."""

import json

import pytest

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import ConfigError, DataError
from bertjax.labelled import source, tables


def table(path, content, *, labelled=True, kind="classify", **fields):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(tables.table(str(path), TaskConfig(kind=kind, **fields), labelled=labelled))


def pairs(records):
    return [(*record.texts, record.label) for record in records]


def refused(error, path, content, **fields):
    with pytest.raises(error) as caught:
        table(path, content, **fields)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message.replace(str(path), path.name)


# Columns


def test_columns_by_name_and_by_number(tmp_path):
    path = tmp_path / "x.tsv"
    with_header = "index\tlabel\ttext\n0\tgood\tone\n1\tbad\ttwo\n"
    assert pairs(table(path, with_header)) == [("one", "good"), ("two", "bad")]
    assert table(path, with_header)[1].place == f"{path}: line 3"
    assert pairs(table(path, with_header, header="yes", text="3", label="2")) == [("one", "good"), ("two", "bad")]
    without = with_header.partition("\n")[2]
    assert pairs(table(path, without, text="3", label="2")) == [("one", "good"), ("two", "bad")]
    named = {"columns": ("index", "label", "text")}
    assert pairs(table(path, without, **named)) == [("one", "good"), ("two", "bad")]
    assert pairs(table(path, with_header, **named)) == [("one", "good"), ("two", "bad")]  # known by the names in it
    assert len(table(path, with_header, header="no", **named)) == 3
    assert pairs(table(path, "2\ttext\nlabel\tx\n", text="text", label="2")) == [
        ("x", "label")
    ]  # a name before a number


def test_columns_that_are_not_there(tmp_path):
    path, content = tmp_path / "x.tsv", "sentence\tlabel\none\tgood\n"
    message = refused(ConfigError, path, content, text="sentense")
    assert message.startswith("task.text = 'sentense': x.tsv: line 1 has no such column; it has sentence, label; the")
    assert "nearest is 'sentence'" in message and "name all columns in task.columns" in message
    assert "task.label = 'class'" in refused(ConfigError, path, content, text="sentence", label="class")
    assert "task.pair = 'other'" in refused(ConfigError, path, content, text="sentence", pair="other")
    assert "read without a header" in refused(ConfigError, path, content, header="no")
    assert "several columns of this name" in refused(ConfigError, path, "text\ttext\tlabel\na\tb\tc\n")
    assert "line 1: has 2 columns, and '4' is column 4" in refused(DataError, path, content, text="4", label="2")
    assert "no such column" in refused(ConfigError, path, content, text="0", header="yes")
    with pytest.raises(ConfigError, match=r"^task.text = 'text': task.columns has no such column; it has a, b"):
        table(path, content, header="no", columns=("a", "b"))


def test_the_columns_of_a_row_are_counted(tmp_path, capsys):
    path = tmp_path / "x.tsv"
    assert "line 3: has 3 columns, and the header 2" in refused(DataError, path, "text\tlabel\na\tb\na\tb\tc\n")
    assert "line 2: has 1 columns, and the header 2" in refused(DataError, path, "text\tlabel\na b\n")
    assert "line 2: has 1 columns, and '2' is column 2" in refused(DataError, path, "a\tb\na\n", text="1", label="2")
    assert capsys.readouterr().err == ""
    assert len(table(path, "a\tb\na\tb\tc\na\tb\tc\n", text="1", label="2")) == 3
    assert "x.tsv: line 2 and 1 more: has 3 columns where line 1 has 2" in capsys.readouterr().err


def test_labels_may_be_missing_only_where_they_are_not_learnt(tmp_path):
    path = tmp_path / "x.tsv"
    for content in ("text\tlabel\na\tgood\nb\t \n", "text\tlabel\tx\na\tgood\t\nb\t\tx\n"):
        assert "line 3: has no label in column 'label'" in refused(DataError, path, content)
        assert [record.label for record in table(path, content, labelled=False)] == ["good", None]
    assert [record.label for record in table(path, "text\nb\n", labelled=False)] == [None]
    assert [record.label for record in table(path, "b\n", labelled=False, text="1", label="2")] == [None]
    assert [record.label for record in table(path, "b\tgood\n", labelled=False, text="1", label="2")] == ["good"]


def test_a_header_that_is_taken_for_a_row_is_told(tmp_path):
    path, rows = tmp_path / "x.tsv", "".join(f"text {i}\t{i % 2}\n" for i in range(20))
    message = refused(DataError, path, "sentence\tlabel\n" + rows, text="1", label="2")
    assert message.startswith("x.tsv: line 1: its label 'label' is that of no other row") and "task.header" in message
    for header, count in (("no", 21), ("yes", 20)):
        assert len(table(path, "sentence\tlabel\n" + rows, text="1", label="2", header=header)) == count
    assert len(table(path, rows, text="1", label="2")) == 20


def test_a_file_without_rows(tmp_path):
    path = tmp_path / "x.tsv"
    assert "is empty" in refused(DataError, path, "")
    assert "nothing but blank lines" in refused(DataError, path, "\n\r\n")
    assert "nothing but blank lines" in refused(DataError, path, "\n\r\n", quotes="yes")
    assert "a header and no rows" in refused(DataError, path, "text\tlabel\n")


# Cells


def test_delimiters(tmp_path):
    expected = [("a, b", "c")]
    assert pairs(table(tmp_path / "x.tsv", "text\tlabel\na, b\tc\n")) == expected
    assert pairs(table(tmp_path / "x.txt", "text\tlabel\na, b\tc\n")) == expected
    assert pairs(table(tmp_path / "x.csv", 'text,label\n"a, b",c\n')) == expected
    assert pairs(table(tmp_path / "x.csv", 'text;label\n"a, b";c\n', delimiter="semicolon")) == expected
    trec = {"columns": ("label", "text"), "delimiter": "space", "separator": ":"}
    found = table(tmp_path / "x.txt", "NUM:date What :  is ?\nHUM:ind Who ?\n", **trec)
    assert pairs(found) == [("What :  is ?", "NUM"), ("Who ?", "HUM")]
    assert "line 1: has 1 columns" in refused(DataError, tmp_path / "x.txt", "NUM:date\n", **trec)
    with pytest.raises(ConfigError, match="task.quotes"):
        table(tmp_path / "x.txt", "NUM:date What\n", quotes="yes", **trec)


def test_quotes(tmp_path):
    tsv, csv = tmp_path / "x.tsv", tmp_path / "x.csv"
    content = 'text\tlabel\n"It ""is"" so."\tgood\nSay "no"\tbad\n'
    assert pairs(table(tsv, content))[0] == ('"It ""is"" so."', "good")
    assert pairs(table(tsv, content, quotes="yes")) == [('It "is" so.', "good"), ('Say "no"', "bad")]
    assert pairs(table(tsv, 'text\tlabel\n"open\tgood\n')) == [('"open', "good")]
    records = table(csv, 'text,label\r\n"two\r\nlines",good\r\none,bad\r\n')
    assert pairs(records) == [("two\nlines", "good"), ("one", "bad")]
    assert [record.place for record in records] == [f"{csv}: line 2", f"{csv}: line 4"]


def test_quotes_that_do_not_close(tmp_path):
    path = tmp_path / "x.csv"
    message = refused(DataError, path, 'text,label\nfine,a\n"open,a\nb,a\n')
    assert message.startswith("x.csv: line 3: a quote is open to the end of the file; ") and "task.quotes" in message
    assert "x.csv: line 2: ',' expected after '\"'" in refused(DataError, path, 'text,label\n"a "b" c",a\n')


def test_blank_lines_are_left_out_and_said(tmp_path, capsys):
    assert len(table(tmp_path / "x.tsv", "text\tlabel\na\tb\n\n\n")) == 1
    assert len(table(tmp_path / "x.csv", "text,label\na,b\n\n\n")) == 1
    assert capsys.readouterr().err == ""
    assert len(table(tmp_path / "x.tsv", "text\tlabel\n\na\tb\n  \na\tb\n")) == 2
    assert len(table(tmp_path / "x.csv", "text,label\n\na,b\n\na,b\n")) == 2
    said = capsys.readouterr().err
    assert "x.tsv: line 2 and 1 more: blank" in said and "x.csv: line 2 and 1 more: blank" in said


@pytest.mark.parametrize("quotes", ["yes", "no"])
def test_very_long_cells_are_refused(tmp_path, monkeypatch, quotes):
    content = "text\tlabel\na\tb\n" + "x" * 10_000_000 + "\tb\n"
    message = refused(DataError, tmp_path / "x.tsv", content, quotes=quotes)
    assert message.startswith("x.tsv: line 3: column 'text' has 10,000,000 characters, above 1,000,000;")
    content = "text\tlabel\na\tb\n" + "x" * (source.MAX_LINE + 1)
    assert "line 3: longer than" in refused(DataError, tmp_path / "x.tsv", content, quotes=quotes)


# Lines of JSON


def objects(path, *lines, labelled=True, kind="classify", **fields):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return list(tables.json_lines(str(path), TaskConfig(kind=kind, **fields), labelled=labelled))


def test_lines_of_json(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    found = objects(path, {"text": "a\nb", "label": 1, "more": []}, "", {"label": "x", "text": ""})
    assert pairs(found) == [("a\nb", "1"), ("", "x")]
    assert [record.place for record in found] == [f"{path}: line 1", f"{path}: line 3"]
    assert "line 2: blank" in capsys.readouterr().err
    assert pairs(objects(path, {"text": "a"}, labelled=False)) == [("a", None)]


@pytest.mark.parametrize(
    ("lines", "error", "problem"),
    [
        (['{"text": "a", "label": 1}', "{"], DataError, "line 2: no JSON"),
        (["[1]"], DataError, "line 1: no JSON object but list"),
        (["[" * 100_000], DataError, "line 1: no JSON"),
        (
            ['{"txt": "a", "label": 1}'],
            ConfigError,
            "line 1 has no such column; it has txt, label; the nearest is 'txt'",
        ),
        (['{"text": "a", "label": 1}', '{"label": 1}'], DataError, "line 2: column 'text' is missing"),
        (['{"text": 5, "label": 1}'], DataError, "line 1: column 'text' is 5 and no text"),
        (['{"text": "\\ud800", "label": 1}'], DataError, "no character of a text"),
        (['{"text": "a", "label": null}'], DataError, "line 1: has no label"),
        (['{"text": "a", "label": {}}'], DataError, "line 1: the label in column 'label' is {}"),
        ([""], DataError, "nothing but blank lines"),
    ],
)
def test_a_wrong_object_is_named(tmp_path, lines, error, problem):
    with pytest.raises(error) as caught:
        objects(tmp_path / "x.jsonl", *lines)
    assert problem in str(caught.value) and "\n" not in str(caught.value)
