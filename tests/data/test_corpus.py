"""Every source form gives the documents it holds, and a bad file is named with its fix."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import DataConfig
from bertjax.data import corpus
from bertjax.data.corpus import documents, split_sentences
from bertjax.errors import DataError

SPEECHES = Path(__file__).parents[2].parent / "shared" / "data" / "corpus" / "speeches"

TWO = [["One is here.", "Two is there."], ["Three."]]
FORMS = {
    "paragraphs": "One is here. Two is there.\n\n\nThree.\n",
    "sentences": "\nOne is here.\r\nTwo is there.\r\n \r\nThree.",
    "wikiextractor": '<doc id="1" url="u" title="A & B">\nA & B\n\nOne is here. Two is there.\n</doc>\n'
    '<doc id="2" url="u" title="C">\nThree.\n</doc>\n',
    "jsonl": json.dumps({"body": "One is here.\nTwo is there."}) + "\n\n" + json.dumps({"body": "Three."}) + "\n",
}


def read(path, **fields):
    return list(documents(DataConfig(source=str(path), **fields)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("auto", [False, True])
def test_each_form_gives_its_documents(tmp_path, form, auto):
    path = tmp_path / ("corpus.jsonl" if form == "jsonl" else "corpus.txt")
    path.write_bytes(b"\xef\xbb\xbf" * (form != "jsonl") + FORMS[form].encode())
    assert read(path, format="auto" if auto else form, text_field="body") == TWO


def test_whole_files_are_documents_in_sorted_order(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(f"File {name}. Next.\n\nAfter a blank line.\n")
    found = read(f"{tmp_path}/b.txt, {tmp_path}/*.txt", format="file")
    assert found == [[f"File {name}.", "Next.", "After a blank line."] for name in "ab"]


def test_sentences_form_does_not_split(tmp_path):
    (tmp_path / "x").write_text("One here. Two there.\n")
    assert read(tmp_path / "x", format="sentences") == [["One here. Two there."]]


def test_counts(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "A b. C d."}\n{"text": " \\n "}\n{"text": "E."}\n')
    counts = Counter()
    list(documents(DataConfig(source=str(tmp_path / "x.jsonl")), counts))
    assert counts == {"documents": 2, "sentences": 3, "empty_documents": 1}


@pytest.mark.parametrize(
    ("name", "content", "form", "words"),
    [
        (
            "latin.txt",
            "Fine.\nCaf\xe9.\n".encode("latin1"),
            "auto",
            ["latin.txt", "byte 9", "iconv -f latin1 -t utf-8"],
        ),
        ("empty.txt", b"\n \n", "auto", ["no document with text"]),
        ("broken.jsonl", b'{"text": "A."}\n{"text": \n', "auto", ["broken.jsonl:2", "JSON"]),
        ("key.jsonl", b'{"body": "A."}\n', "auto", ["key.jsonl:1", "data.text_field"]),
        ("list.jsonl", b"[1]\n", "auto", ["list.jsonl:1"]),
        ("number.jsonl", b'{"text": 3}\n', "auto", ["number.jsonl:1"]),
        ("lone.jsonl", b'{"text": "\\ud800"}\n', "auto", ["lone.jsonl:1"]),
        ("cut.txt", b'<doc id="1" title="T">\nT\n\nText.\n', "auto", ["cut.txt", "cut short"]),
        ("outside.txt", b"Text.\n", "wikiextractor", ["outside.txt:1", "data.format"]),
    ],
)
def test_a_bad_file_is_named_with_its_fix(tmp_path, name, content, form, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, format=form)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_path_that_names_no_file_is_an_error_at_once(tmp_path):
    for source in (f"{tmp_path}/nothing", f"{tmp_path}/*.txt", str(tmp_path)):
        with pytest.raises(DataError, match="data.source"):
            documents(DataConfig(source=source))


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left.", "She stayed!", '"Why?" he asked.', "Nobody knew..."],
        [
            "Dr. J. R. Smith of the U.S. Army met Mrs. Jones, e.g. at No. 5 St. James St. today.",
            "No.",
            "It was I.",
            "Yes.",
        ],
        ["It was (as ever) late.)", "2020 came.", "“Well,” said Mr. Pym.”", "‘Oh!’"],
        ["version 2.0 of x.y is out. it is lower-case"],
        ["In Sept. 1900 it rose 3.5 per cent.", "In Sept.", "The end."],
    ],
)
def test_sentences_are_split_where_english_ends_them(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


@given(st.text(alphabet="aB1. !?\"'()\n\u00e9", max_size=60))
def test_splitting_loses_only_white_space(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


def test_built_in_corpus_is_deterministic_prose():
    first, second = (list(itertools.islice(documents(DataConfig()), 150)) for _ in range(2))
    assert first == second
    assert len(first) == 150
    sentences = [sentence for document in first for sentence in document]
    assert sum(map(len, sentences)) > 200_000
    assert all(sum(map(len, document)) >= 150 for document in first)
    repeated = Counter(sentence for sentence in sentences if len(sentence) > 80)
    assert sum(count - 1 for count in repeated.values()) < 0.01 * len(sentences)


MODULE = '''
"""Prose in a docstring is kept, with :class:`~a.b.Markup` and ``quotes`` made plain. It has sentences, and is
joined over lines.

>>> code(1, 2) is dropped, even if this line is long enough to be a paragraph of prose.

A block that ends like this announces code, and the block is dropped::

    An indented block after two colons is code, however much it looks like prose.

Parameters
----------
name : str
    The parameters of a function are dropped, underline and description and all.

Calls(such, as=f(x), y[0]) { are } <not> words = 1 + 2 == 3 and so are dropped too.

Too short.

- Points of a list become paragraphs of their own, if they are long enough to be.
"""
x = "unused"
def f():
    """Functions and methods are read as well, wherever they stand in the module.

    Prose in a docstring is kept, with `Markup` and quotes made plain. It has sentences, and is joined over lines.
    """
'''
PROSE = [
    "Prose in a docstring is kept, with Markup and quotes made plain.",
    "It has sentences, and is joined over lines.",
    "A block that ends like this announces code, and the block is dropped:",
    "Points of a list become paragraphs of their own, if they are long enough to be.",
    "Functions and methods are read as well, wherever they stand in the module.",
]


def test_built_in_corpus_keeps_prose_once(tmp_path, monkeypatch):
    module = MODULE.replace("Too short.", "Too short.\n\n" * 20)  # files with little documentation are not parsed
    for name in ("a.py", "copy.py", "tests/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(module)
    (tmp_path / "python2.py").write_text(module + "print 1\n")
    monkeypatch.setattr(corpus, "topics", {})
    monkeypatch.setattr(
        corpus.sysconfig, "get_paths", lambda: dict.fromkeys(["stdlib", "purelib", "platlib"], tmp_path)
    )
    counts = Counter()
    assert list(documents(DataConfig(), counts)) == [PROSE]
    assert counts == {"documents": 1, "sentences": len(PROSE), "unparsable_files": 1}


def test_latin1_files_of_the_speeches_are_named():
    if not SPEECHES.is_dir():
        pytest.skip("../shared/data/corpus/speeches is absent")
    refused = 0
    for path in sorted(SPEECHES.glob("*/*.txt")):
        if "\ufffd" in path.read_text("utf-8", errors="replace"):
            refused += 1
            with pytest.raises(DataError, match=path.name):
                read(path, format="file")
        else:
            assert len(read(path, format="file")) == 1
    assert refused == 7
