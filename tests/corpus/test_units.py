"""Every source gives the documents it holds, however it is cut into units."""

import contextlib
import dataclasses
import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertjax.config.schema import DataConfig
from bertjax.corpus import files, lines, opening
from bertjax.corpus import units as corpus
from bertjax.corpus.units import Part, Unit, documents, units
from bertjax.errors import DataError

CORPUS = Path(__file__).parents[2].parent / "shared" / "data" / "corpus"

TWO = [["One is here.", "Two is there."], ["Three."]]
FORMS = {
    "paragraphs": "One is here. Two is there.\n\n\nThree.\n",
    "sentences": "\nOne is here.\r\nTwo is there.\r\n \r\nThree.",
    "wikiextractor": '<doc id="1" url="u" title="A & B">\nA & B\n\nOne is here. Two is there.\n</doc>\n'
    '<doc id="2" url="u" title="C">\nThree.\n</doc>\n',
    "jsonl": json.dumps({"body": "One is here.\nTwo is there."}) + "\n\n" + json.dumps({"body": "Three."}) + "\n",
}


def read(path, **fields):
    return list(documents(DataConfig(source=(str(path),), **fields)))


def read_units(found, data):
    counts = Counter()
    return [document for unit in found for document in corpus.read(unit, data, counts)], counts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("auto", [False, True])
def test_each_form_gives_its_documents(tmp_path, form, auto):
    path = tmp_path / ("corpus.jsonl" if form == "jsonl" else "corpus.txt")
    path.write_bytes(b"\xef\xbb\xbf" + FORMS[form].encode())
    assert read(path, format="auto" if auto else form, text_field="body") == TWO


def test_whole_files_are_documents_in_sorted_order(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(f"File {name}. Next.\n\nAfter a blank line.\n")
    (tmp_path / "c.txt").write_text("")
    counts = Counter()
    data = DataConfig(source=(f"{tmp_path}/*.txt",), format="file")
    assert list(documents(data, counts)) == [[f"File {name}.", "Next.", "After a blank line."] for name in "ab"]
    assert counts == {"documents": 2, "sentences": 6, "empty_documents": 1}


def test_sentences_form_does_not_split(tmp_path):
    (tmp_path / "x").write_text("One here. Two there.\n")
    assert read(tmp_path / "x", format="sentences") == [["One here. Two there."]]


@pytest.mark.parametrize(("count", "blank", "documents"), [(1000, False, 1000), (999, False, 1), (5000, True, 2)])
def test_many_lines_without_a_blank_one_are_documents(tmp_path, monkeypatch, count, blank, documents):
    """In every part of the file, and split into sentences; fewer lines, or lines in paragraphs, are one document."""
    monkeypatch.setattr(corpus, "UNIT_BYTES", 5000)
    found = [f"One is {i}. Two." for i in range(count)]
    (tmp_path / "x").write_text("\n".join(found[:9] + [""] * blank + found[9:]) + "\n")
    data = DataConfig(source=(str(tmp_path / "x"),))
    assert sum(read(tmp_path / "x"), []) == [part for i in range(count) for part in (f"One is {i}.", "Two.")]
    assert len(read(tmp_path / "x")) == documents
    assert corpus.records(data) == ([str(tmp_path / "x")] if documents == count else [])
    assert corpus.records(dataclasses.replace(data, format="paragraphs")) == []


def test_lines_are_documents_and_are_not_split(tmp_path):
    (tmp_path / "x").write_text("\nC.C[Na+] One. Two.\n\n \nc1ccccc1\n")
    assert read(tmp_path / "x", format="lines") == [["C.C[Na+] One. Two."], ["c1ccccc1"]]


def test_a_part_of_a_file_of_lines_is_the_lines_that_begin_in_it(tmp_path):
    """So that no part reads the file to its end for want of a blank line."""
    (tmp_path / "x").write_text("".join(f"line {i}\n" for i in range(10)))
    found, _ = read_units([Unit(0, (Part(str(tmp_path / "x"), 15, 30),))], DataConfig(format="lines"))
    assert found == [["line 3"], ["line 4"]]  # at bytes 21 and 28; line 2 begins at 14


def test_sequences_of_fasta_are_joined_lines_without_their_names(tmp_path, monkeypatch):
    (tmp_path / "x").write_text(">one a protein.\nMKT\nAYI\n\n>empty\n>two\n; a note\nQRQ\n")
    assert read(tmp_path / "x", format="fasta") == [["MKTAYI"], ["QRQ"]]
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 5)
    (tmp_path / "x").write_text(">long\n" + "ACGT\n" * 5)
    assert read(tmp_path / "x", format="fasta") == [["ACGTACGT"], ["ACGTACGT"], ["ACGT"]]


def test_counts(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "A b. C d."}\n{"text": " \\n "}\n{"text": "E."}\n')
    counts = Counter()
    list(documents(DataConfig(source=(str(tmp_path / "x.jsonl"),)), counts))
    assert counts == {"documents": 2, "sentences": 3, "empty_documents": 1}


def test_a_path_that_names_no_file_is_an_error_at_once(tmp_path):
    for source in (f"{tmp_path}/nothing", f"{tmp_path}/*.txt", str(tmp_path), "/dev/null"):
        with pytest.raises(DataError, match="data.source"):
            documents(DataConfig(source=(source,)))


# Units


def test_units_keep_the_order_of_entries_and_name_no_path_twice(tmp_path):
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_bytes(b"Text.\n")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"Text.\n"))
    data = DataConfig(source=(f"{tmp_path}/b.txt", "builtin", f"{tmp_path}/*"))
    named = [(unit.source, [Path(part.path).name for part in unit.parts]) for unit in units(data)]
    assert named == [(0, ["b.txt"]), (1, ["builtin"]), (2, ["a.txt", "c.gz"])]


def test_small_files_share_a_unit_and_large_ones_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "UNIT_BYTES", 100)
    for name, size in {"a": 60, "b": 60, "c": 230, "d": 5, "f": 1}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "e.gz").write_bytes(gzip.compress(b"abcdefghij"))
    assert (tmp_path / "e.gz").stat().st_size == 30
    found = [
        [(Path(part.path).name, part.start, part.end) for part in unit.parts]
        for unit in units(DataConfig(source=(f"{tmp_path}/*",)))
    ]
    assert found == [
        [("a", 0, 60), ("b", 0, 60)],
        [("c", 0, 100)],
        [("c", 100, 200)],
        [("c", 200, 230), ("d", 0, 5), ("e.gz", 0, 30)],  # 30 compressed bytes count for 120
        [("f", 0, 1)],
    ]
    whole = units(DataConfig(source=(f"{tmp_path}/c",), format="file"))
    assert whole == [Unit(0, (Part(f"{tmp_path}/c", 0, 230),))]


def test_units_are_plain_data(tmp_path):
    (tmp_path / "x").write_text("Text.\n")
    (unit,) = units(DataConfig(source=(f"{tmp_path}/x",)))
    plain = json.loads(json.dumps(dataclasses.asdict(unit)))
    assert Unit(plain["source"], tuple(Part(**part) for part in plain["parts"])) == unit


LINES = {
    "paragraphs": ["", " \t", "\u00a0", "\0", "A b. C d.", "é", "word " * 9, "\u3000" * 30],
    "wikiextractor": ["", '<doc title="A b.">', "<doc ", "</doc>", "A b.", "C d. E f.", "word <doc " * 3, "\0<doc \0"],
    "jsonl": ["", '{"text": "A b. C d.\\nE."}', '{"text": "\\n"}', '{"text": ', "[1]", '{"text": "\\u0000<doc "}'],
}
LINES["fasta"] = ["", ">", ">a b. C d.", "ACGT", "; note", "MKT " * 9, "\0>"]
LINES["sentences"] = LINES["lines"] = LINES["paragraphs"]


def texts(form):
    """Files of lines that matter for the form, of any other bytes, of UTF-8 and not."""
    line = st.sampled_from([line.encode() for line in LINES[form]] + [b"caf\xe9", b'{"text": "\xe9"}', b"<doc \xe9"])
    lines = st.lists(line | st.binary(max_size=12), max_size=12)
    ends = st.sampled_from([b"\n", b"\r\n"])
    heads = st.sampled_from([b"", b"\xef\xbb\xbf"])
    return st.builds(lambda head, lines, end, last: head + end.join(lines) + last, heads, lines, ends, ends | heads)


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("limit", [30, 1_000_000])
def test_cutting_a_file_changes_nothing(tmp_path_factory, form, limit):
    """The documents of the parts, one after the other, are those of the file, and so is what was counted."""
    path = tmp_path_factory.mktemp("cut") / "file"
    data = DataConfig(source=(str(path),), format=form)

    @given(text=texts(form), seed=st.integers(0, 999), cuts=st.integers(0, 6))
    @example(text=b"A.\n\nB.\n\n\nC.\n", seed=0, cuts=6)
    def check(text, seed, cuts):
        path.write_bytes(text)
        # Favour the neighbourhood of line ends, where cuts could go wrong.
        places = [i + d for i, byte in enumerate(text) if byte == 10 for d in (-1, 0, 1, 2)] + list(range(len(text)))
        cut = [0, *sorted(min(max(0, p), len(text)) for p in random.Random(seed).choices(places or [0], k=cuts))]
        parts = [Part(str(path), *pair) for pair in zip(cut, [*cut[1:], len(text)], strict=True)]
        whole = read_units([Unit(0, (Part(str(path), 0, len(text)),))], data)
        assert read_units([Unit(0, (part,)) for part in parts], data) == whole
        assert all(sentence for document in whole[0] for sentence in document)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_CHARACTERS", limit)
        patch.setattr(files, "MAX_JSON_BYTES", limit)
        patch.setattr(opening, "BUFFER", 7)
        check()


def test_a_cut_file_keeps_the_form_of_its_head(tmp_path, monkeypatch):
    path = tmp_path / "wiki"
    path.write_text("\n" + "".join(f'<doc title="T{i}">\nT{i}\n\nPart {i}.\n\nEnd.\n</doc>\n' for i in range(20)))
    monkeypatch.setattr(corpus, "UNIT_BYTES", 50)
    data = DataConfig(source=(str(path),))
    assert len(units(data)) > 15
    assert list(documents(data)) == [[f"Part {i}.", "End."] for i in range(20)]


@pytest.mark.parametrize("line", [b"A b.\n", b"A b. "])
def test_a_file_without_blank_lines_is_scanned_once_by_all_parts_but_the_first(tmp_path, monkeypatch, line):
    path = tmp_path / "x"
    path.write_bytes(line * 2000)
    ends = []  # how far each part was read

    @contextlib.contextmanager
    def opened(path):
        with open(path, "rb", 100) as file:
            yield file
            ends.append(file.tell())

    monkeypatch.setattr(opening, "BUFFER", 100)
    monkeypatch.setattr(opening, "opened", opened)
    data = DataConfig(source=(str(path),), format="paragraphs")
    found = []
    for start in range(0, 10_000, 1000):
        found += read_units([Unit(0, (Part(str(path), start, start + 1000),))], data)[0]
    assert ["".join(document).replace(" ", "") for document in found] == ["Ab." * 2000]
    assert ends[0] == 10_000
    assert all(end <= 1000 * (part + 2) + 100 for part, end in enumerate(ends[1:]))


def test_a_long_document_is_cut_between_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_CHARACTERS", 30)
    (tmp_path / "x").write_text(("Aaaa aaaa. Bbbb bbbb.\n" * 3 + "\nC.\n\n") * 2)
    counts = Counter()
    found = list(documents(DataConfig(source=(str(tmp_path / "x"),)), counts))
    assert sum(found, []) == (["Aaaa aaaa.", "Bbbb bbbb."] * 3 + ["C."]) * 2
    assert [len(document) for document in found] == [3, 3, 1] * 2
    assert counts == {"documents": 6, "sentences": 14, "cut_documents": 2}


@pytest.mark.parametrize(
    ("name", "content", "form", "words"),
    [
        ("empty.txt", b"\n \n", "auto", ["no document with text; name files"]),
        ("broken.jsonl", b'\n{"text": \n', "auto", ["broken.jsonl:2", "JSON", "bad_json_lines: 1"]),
        ("key.jsonl", b'{"body": "A."}\n' * 3, "auto", ["key.jsonl:1", "data.text_field", "bad_json_lines: 3"]),
        ("list.jsonl", b'{"text": ""}\n[1]\n', "auto", ["list.jsonl:2", "bad_json_lines: 1, empty_documents: 1"]),
        ("number.jsonl", b'{"text": 3}\n', "auto", ["number.jsonl:1"]),
        ("lone.jsonl", b'{"text": "\\ud800"}\n', "auto", ["lone.jsonl:1"]),
        ("deep.jsonl", b"[" * 100_000, "auto", ["deep.jsonl:1"]),
        ("outside.txt", b"\nText.\n", "wikiextractor", ["outside.txt:2", "data.format", "outside_lines: 1"]),
    ],
)
def test_a_corpus_without_text_is_an_error_with_the_reason(tmp_path, name, content, form, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, format=form)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_speeches_are_read_although_seven_are_latin1():
    if not CORPUS.is_dir():
        pytest.skip("../shared/data/corpus is absent")
    for path in sorted(CORPUS.glob("speeches/*/*.txt")):
        counts = Counter()
        (document,) = documents(DataConfig(source=(str(path),), format="file"), counts)
        raw = path.read_bytes()
        bad = "\ufffd" in raw.decode(errors="replace")
        assert (counts["bad_utf8_lines"] > 0) == bad
        assert "".join("".join(document).split()) == "".join(raw.decode("cp1252" if bad else "utf-8").split())


def test_real_files_read_the_same_in_small_parts(monkeypatch):
    if not CORPUS.is_dir():
        pytest.skip("../shared/data/corpus is absent")
    for name in ("wiki/wiki_15", "novels/ENG18470_Aguilar.txt"):
        data = DataConfig(source=(str(CORPUS / name),))
        whole = read_units(units(data), data)
        with monkeypatch.context() as patch:
            patch.setattr(corpus, "UNIT_BYTES", 40_000)
            assert len(units(data)) > 20
            assert read_units(units(data), data) == whole


def test_a_large_corpus_has_larger_units(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("A line.\n\n" * 2000)
    data = DataConfig(source=(str(tmp_path / "a.txt"),))
    monkeypatch.setattr(corpus, "UNIT_BYTES", 100)
    many = corpus.units(data)
    assert len(many) == 180
    monkeypatch.setattr(corpus, "MAX_UNITS", 10)
    few = corpus.units(data)
    assert 9 <= len(few) <= 10
    texts = [[list(corpus.read(unit, data, Counter())) for unit in units] for units in (many, few)]
    assert sum(texts[0], []) == sum(texts[1], []) and len(sum(texts[0], [])) == 2000
