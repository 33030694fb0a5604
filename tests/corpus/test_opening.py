"""Files are unpacked and recoded, and what is no text is refused by its name before anything is made of it."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import zipfile

import numpy as np
import pyarrow
import pytest
from corpus.reading import read
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config.schema import DataConfig
from bertjax.corpus import opening
from bertjax.corpus import units as corpus
from bertjax.errors import DataError

TEXT = "Der Mann geht.\nEs war schön.\n\nZweites Dokument, mit Ω und 漢字.\r\n" * 50
PACKED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]


def encoded(text, encoding):
    mark = {"utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    return mark + text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("packed", ["", *PACKED])
def test_text_reads_the_same_however_it_is_packed_and_encoded(tmp_path, monkeypatch, encoding, packed):
    monkeypatch.setattr(opening, "BUFFER", 37)
    monkeypatch.setattr(corpus, "UNIT_BYTES", 500)  # what cannot be cut is not
    expected, _ = read(tmp_path / "plain.txt", TEXT.encode())
    content = encoded(TEXT, encoding)
    path = tmp_path / f"x.txt{'.' * bool(packed)}{packed}"
    found, counts = read(path, PACKED[packed](content) if packed else content)
    assert (found, counts) == (expected, {})


@given(st.text(max_size=50), st.sampled_from(ENCODINGS[2:]))
def test_recoding_loses_nothing(text, encoding):
    recoded = opening._Recoded(io.BufferedReader(io.BytesIO(encoded(text, encoding))), encoding.removesuffix("-be"))
    assert io.BufferedReader(recoded, 7).read().decode() == text


def test_utf16_that_is_cut_within_a_character_is_read(tmp_path):
    assert read(tmp_path / "x", "Ein Satz.".encode("utf-16")[:-1])[0] == [["Ein Satz\ufffd"]]


def tar(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("x.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.txt", content)
    return file.getvalue()


PROSE = ("The man walks across the street. " * 9 + "\n\n") * 40
RUSSIAN = "Он вошёл в дом и сел за стол. Было темно.\n" * 40
FOREIGN = {
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(500), "a PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(500), "a JPEG picture"),
    "pdf": (b"%PDF-1.7\n" + PROSE.encode(), "PDF; .*pdftotext"),
    "tar": (tar(PROSE.encode()), "a tar archive; unpack it"),
    "zip": (zipped(PROSE), "a zip archive"),
    "rtf": (b"{\\rtf1\\ansi " + PROSE.encode(), "RTF"),
    "gzip by another name": (gzip.compress(PROSE.encode()), "compressed by gzip; .* ends in .gz"),
    "bzip2 by another name": (bz2.compress(PROSE.encode()), "compressed by bzip2"),
    "xz by another name": (lzma.compress(PROSE.encode()), "compressed by xz"),
    "parquet by another name": (b"PAR1" + bytes(50), "Parquet; end its name in .parquet"),
    "array": (np.arange(500, dtype=np.int64).tobytes(), "NUL is"),
    "utf-16 without its mark": (PROSE.encode("utf-16-le"), "UTF-16 without a byte order mark.* convert it to UTF-8"),
    "cp1251": (RUSSIAN.encode("cp1251"), "another encoding .*iconv -f ENCODING -t UTF-8"),
    "koi8-r": (RUSSIAN.encode("koi8-r"), "another encoding"),
    "shift_jis": ("私は学校で本を読んだ。彼女が来た。\n".encode("shift_jis") * 40, "another encoding"),
    "gb18030": ("他来了。好。\n".encode("gb18030") * 40, "another encoding"),
    "cp1256": ("ذهب أحمد إلى المكتبة.\n".encode("cp1256") * 40, "another encoding"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("form", ["auto", "lines", "jsonl", "ids"])
def test_what_is_no_text_is_refused_by_name(tmp_path, kind, form):
    content, named = FOREIGN[kind]
    (tmp_path / "good.txt").write_text(PROSE)
    (tmp_path / "odd.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"odd.txt: is no text.*{named}") as caught:
        corpus.units(DataConfig(source=(f"{tmp_path}/*.txt",), format=form))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [200, 5000, 200_000])
def test_random_bytes_are_refused(tmp_path, seed, size):
    (tmp_path / "x.txt").write_bytes(random.Random(seed).randbytes(size))
    with pytest.raises(DataError, match=r"x.txt: is no text"):
        corpus.units(DataConfig(source=(str(tmp_path / "x.txt"),)))


def test_what_is_packed_is_looked_at_too(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar(b"Text.\n")))
    with pytest.raises(DataError, match=r"x.tar.gz: is no text but a tar archive"):
        corpus.units(DataConfig(source=(str(tmp_path / "x.tar.gz"),)))


@pytest.mark.parametrize("text", [PROSE, '<doc id="1" title="A">\nA\n\n' + PROSE + "</doc>\n"])
def test_lines_of_an_old_mac_are_refused(tmp_path, text):
    """Of the second, all would be the line `<doc ...>`, of which nothing is text."""
    (tmp_path / "x.txt").write_bytes(text.replace("\n", "\r").encode())
    with pytest.raises(DataError, match=r"x.txt: its lines end in a carriage return alone.*convert it with `tr "):
        corpus.units(DataConfig(source=(str(tmp_path / "x.txt"),)))


@pytest.mark.parametrize(
    "content",
    [
        PROSE.encode(),
        PROSE.replace("\n", "\r\n").encode(),
        b"A.\r" * 20 + b"\n",
        RUSSIAN.encode() * 60,  # the head that is looked at ends within a character
        ("Élan. Où est-il allé? Là-bas, près de la forêt.\r\n" * 40).encode("latin1"),
        ("Poszedł do domu i usiadł przy stole. Było już późno.\n" * 40).encode("cp1250"),
        "他来了。\n".encode() * 300 + b"\xff\xfe\xfd\n",
        b"A\0 b.\n\0\nC.\n",
        b"\x93Quoted\x94 \x81.\n",
    ],
)
def test_text_is_not_refused(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    assert corpus.units(DataConfig(source=(str(tmp_path / "x.txt"),)))


def test_the_field_that_names_a_file_is_told(tmp_path):
    (tmp_path / "x").write_bytes(b"\x89PNG")
    (tmp_path / "y").write_bytes("привет и пока\n".encode("cp1251"))
    for name in "xy":
        for setting in ("data.source", "task.train"):
            with pytest.raises(DataError, match=f"leave it out of {setting}$"):
                opening.check_text(str(tmp_path / name), setting=setting)
