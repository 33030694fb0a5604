"""Lines are read whatever is wrong with them, repaired where that can be done, and counted; a bad file is named."""

import gzip
import json
import os
import tracemalloc

import pyarrow
import pytest
from corpus.reading import WIKI, read

from bertjax.config.schema import DataConfig
from bertjax.corpus import lines
from bertjax.corpus.units import documents
from bertjax.errors import DataError


def write_compressed(path, content, members=1):
    """Of several members, as parallel compressors write them."""
    size = -(-len(content) // members)
    with open(path, "wb") as file:
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            packed = gzip.compress(piece) if path.suffix == ".gz" else pyarrow.compress(piece, "zstd", asbytes=True)
            file.write(packed)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("form", ["wikiextractor", "jsonl"])
def test_compressed_files_read_as_plain_ones(tmp_path, suffix, form):
    text = WIKI * 3000 if form == "wikiextractor" else json.dumps({"text": "One is here. Two is there."})
    path = tmp_path / f"corpus.{'jsonl' if form == 'jsonl' else 'txt'}.{suffix}"
    write_compressed(path, text.encode(), members=2)
    found, counts = read(path)
    assert (found, counts) == read(tmp_path / path.stem, text.encode())
    assert len(found) == text.count("One")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "other", "missing"])
@pytest.mark.parametrize("form", ["auto", "paragraphs"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, suffix, damage, form):
    path = tmp_path / f"corpus{suffix}"
    write_compressed(path, os.urandom(50_000).hex().encode())
    found = documents(DataConfig(source=(str(path),), format=form))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:20_000])
    elif damage == "other":
        path.write_bytes(b"plain text\n")
    else:
        path.unlink()
    with pytest.raises(DataError, match=f"corpus{suffix}: cannot be read") as caught:
        list(found)
    assert "\n" not in str(caught.value)


def test_latin1_lines_are_read_as_windows_1252(tmp_path):
    content = "Naïve.\nCafé.\n".encode() + "Café £5.\n".encode("latin1") + b"\x93Quoted\x94 \x81.\n"
    found, counts = read(tmp_path / "x", content)
    assert found == [["Naïve.", "Café.", "Café £5.", "“Quoted” \ufffd."]]
    assert counts == {"bad_utf8_lines": 2}


def test_nul_and_byte_order_mark_are_removed(tmp_path):
    found, counts = read(tmp_path / "x", b"\xef\xbb\xbfA\0 b.\n\0\nC.\n\xef\xbb\xbfD.")
    assert found == [["A b."], ["C.", "\ufeffD."]]  # a mark inside a file is a character
    assert counts == {"nul_lines": 2}
    found, counts = read(tmp_path / "x.jsonl", b'\xef\xbb\xbf{"text": "A\\u0000 b."}')
    assert (found, counts) == ([["A b."]], {"nul_lines": 1})


LONG_LINES = {
    "spaces": b"caf\xc3\xa9-x " * 300_000,
    "tabs": b"word-x\t" * 300_000,
    "no space": b"\xe6\xbc\xa2" * 2_500_000,
    "latin1": b"caf\xe9-x " * 300_000 + b"caf\xe9",
    "latin1 after a million bytes": b"w " * 499_999 + b"w\xe9" + b" x" * 600_000,
    "latin1 at the end": b"word " * 250_000 + b"caf\xe9",
    "nul": b"w\0rd-x " * 300_000,
}


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\nB."])
@pytest.mark.parametrize("name", LONG_LINES)
def test_long_lines_are_cut_at_white_space(tmp_path, name, end):
    line = LONG_LINES[name]
    found, counts = read(tmp_path / "x", b"A.\n" + line + end)
    sentences = [sentence for document in found for sentence in document]
    text = (b"A. " + line + b" " + end).decode("cp1252" if "latin1" in name else "utf-8").replace("\0", "")
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert max(map(len, sentences)) <= lines.MAX_CHARACTERS
    if name != "no space":
        assert set(" ".join(sentences).split()) == set(text.split())
    problem = {"bad_utf8_lines": 1} if "latin1" in name else {"nul_lines": 1} if name == "nul" else {}
    assert counts == {"long_lines": 1, "cut_documents": 1, **problem}


def test_a_line_of_exactly_the_limit_is_not_long(tmp_path):
    for letter in ("x", "é"):
        found, counts = read(tmp_path / "x", (letter * lines.MAX_CHARACTERS + "\n").encode())
        assert (found, counts) == ([[letter * lines.MAX_CHARACTERS]], {})


def test_a_long_blank_line_is_blank(tmp_path):
    found, _ = read(tmp_path / "x", b"A.\n" + b" " * 2_500_000 + b"\nB.\nC." + b" " * 2_500_000 + b"D.")
    assert found == [["A."], ["B.", "C.", "D."]]


def test_memory_is_bounded(tmp_path):
    """A line of 20 MB and a document of 20 MB."""
    for content in (b"word " * 4_000_000, (b"A line of text. ".ljust(100, b"x") + b"\n") * 200_000):
        (tmp_path / "x").write_bytes(content)
        found = documents(DataConfig(source=(str(tmp_path / "x"),), format="sentences"))
        next(found)
        tracemalloc.start()
        size = sum(map(len, next(found)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size > 0.99 * lines.MAX_CHARACTERS
        assert peak < 8_000_000
