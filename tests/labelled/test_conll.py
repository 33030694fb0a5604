"""Sentences are read whatever their columns and tags; a word without a tag is named with its line."""

import pytest

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import DataError
from bertjax.labelled import conll


def read(path, content, *, labelled=True, **fields):
    path.write_bytes(content.encode())
    return conll.sentences(str(path), TaskConfig(kind="tag", **fields), labelled=labelled)


def refused(path, content, **fields):
    with pytest.raises(DataError, match=f"^{path}: ") as caught:
        read(path, content, **fields)
    return str(caught.value).removeprefix(f"{path}: ")


def test_words_and_tags(tmp_path, capsys):
    path = tmp_path / "x.conll"
    found = read(path, "\n\nEU\tB-ORG\nis a\tO\n\t\n\nhere\tO\n")
    assert [record.texts for record in found] == [("EU", "is a"), ("here",)]
    assert [record.tags for record in found] == [("B-ORG", "O"), ("O",)]
    assert [record.place for record in found] == [f"{path}: line 3", f"{path}: line 7"]
    crlf = read(path, "\ufeff-DOCSTART- -X- -X- O\r\n\r\nEU NNP B-NP B-ORG\r\n. . O O\r\n")
    assert (crlf[0].texts, crlf[0].tags) == (("EU", "."), ("B-ORG", "O"))
    assert capsys.readouterr().err == ""


def test_columns_by_number(tmp_path):
    content = "1 EU B-ORG x\n2 . O x\n"
    assert read(tmp_path / "x", content, text="2", label="3")[0].tags == ("B-ORG", "O")
    assert "line 1: has no column 9 with a word" in refused(tmp_path / "x", content, text="9", label="3")
    assert "line 1: the word 'EU' has no tag" in refused(tmp_path / "x", content, text="2", label="9")


def test_words_without_tags(tmp_path):
    assert "line 2: has 1 columns where others have 2" in refused(tmp_path / "x", "a O\nb\n")
    assert "line 2: the word 'b' has no tag" in refused(tmp_path / "x", "a\tO\nb\t\n")
    assert "line 1: the word 'a' has no tag" in refused(tmp_path / "x", "a\n")
    assert "line 2: the word is missing before its tag" in refused(tmp_path / "x", "a\tO\n\tO\n")
    assert "has no words" in refused(tmp_path / "x", "\n\n")
    assert "has no words" in refused(tmp_path / "x", "-DOCSTART- O\n")
    assert read(tmp_path / "x", "a\nb\n", labelled=False)[0].tags is None
    assert read(tmp_path / "x", "a O\nb O\n", labelled=False)[0].tags == ("O", "O")


def test_the_language_before_each_word_is_taken_away(tmp_path, capsys):
    assert read(tmp_path / "x", "en:a:b\tO\nen::\tO\n\nen:c\tO\n")[0].texts == ("a:b", ":")
    assert "'en:'" in capsys.readouterr().err
    for content in ("en:a\tO\nb\tO\n", "en:\tO\nen:a\tO\n", "en:a\tO\nde:b\tO\n"):
        assert read(tmp_path / "x", content)[0].texts == tuple(line.split()[0] for line in content.splitlines())
    assert capsys.readouterr().err == ""


def test_other_tags_become_iob2_which_is_said(tmp_path, capsys):
    assert read(tmp_path / "x", "a I-X\nb I-X\n\nc O\n")[0].tags == ("B-X", "I-X")
    assert "x: the tags of 1 sentences are not IOB2" in capsys.readouterr().err
    assert read(tmp_path / "x", "a S-X\nb B-X\nc E-X\n")[0].tags == ("B-X", "B-X", "I-X")


def test_tags_that_are_no_chunks_stay(tmp_path, capsys):
    assert read(tmp_path / "x", "a DET\nb NOUN\nc O\n")[0].tags == ("DET", "NOUN", "O")
    assert capsys.readouterr().err == ""
    message = refused(tmp_path / "x", "z O\n\na B-X\nb NOUN\n")
    assert message.startswith("line 3: the tag 'NOUN' of word 2 is neither O nor of the form B-X")
