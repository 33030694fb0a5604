"""A text that does not fit the settings is told in a line, and one that fits in none."""

import pytest

from bertjax.config.schema import DataConfig
from bertjax.corpus.doubts import doubts, sample, uncased

ENGLISH = (
    "The naïve idea was told at the corner until the shop was closed, and nobody knew why it had been so. See"
    " https://example.org/a/long/address?x=1 for more of it."
)


def told(text, *, lower_case=True, **fields):
    return list(doubts(text, DataConfig(**fields), lower_case=lower_case))


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("私は学校で本を読んだ。", "で becomes て"),
        ("ذهب أحمد إلى المكتبة.", "أ becomes ا"),
        ("Tôi đang đọc sách ở trường.", "ô becomes o"),
        ("か\u3099く", "'\\u3099' is left out"),
    ],
)
def test_marks_that_an_uncased_text_would_lose_are_told(text, becomes):
    assert becomes in uncased(text * 3)
    (line,) = told(text * 3)
    assert line.startswith("data.case = auto: ") and becomes in line and line.endswith("cased if that matters here")
    assert told(text * 3, lower_case=False) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", "smiles"),
        ("MKTAYIAKQRQISFVKSHFSRQ", "protein"),
        ("ACGTACGTACGTTTGACCAGT", "dna"),
    ],
)
def test_words_of_no_language_are_told(text, kind):
    *lost, line = told(f"{text} {text}")
    assert line.startswith("data.alphabet = words: ") and line.endswith(f"configs/sequences.py:{kind}")
    assert len(lost) == (kind == "smiles") and all("C becomes c" in line for line in lost)
    assert bool(uncased(f"{text} {text}")) == (kind == "smiles")
    assert told(f"{text} {text}", alphabet=kind, lower_case=False) == []


def test_kmers_that_overlap_are_told():
    for alphabet in ("words", "dna"):
        (line,) = told("GATT ATTA TTAC TACA ACAG CAGT AGTT", alphabet=alphabet, lower_case=False)
        assert line.startswith(f"data.alphabet = {alphabet}: these are k-mers that overlap (GATT ATTA TTAC)")
    assert told("GATT ACAG TTCA GATT ACAG TTCA", lower_case=False) == []


def test_fasta_that_is_read_by_lines_is_told():
    fields = {"alphabet": "protein", "format": "lines", "lower_case": False}
    (line,) = told(">sp|P1 MKT", **fields)
    assert line.startswith("data.format = lines: ") and line.endswith("set it to fasta")
    assert told("MKT", **fields) == []


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "",
        "私は学校で本を読んだ。" * 9 + " https://example.org/a/long/address",
        "Kolmivaihekilowattituntimittari on joka talossa, ja se on kallis.",
    ],
)
def test_prose_is_not_doubted(text):
    assert told(text, lower_case=False) == []
    assert told(ENGLISH) == [] and uncased(ENGLISH) == ""


def test_a_sample_is_enough():
    def endless():
        while True:
            yield [ENGLISH, ENGLISH]

    assert sample(endless()).startswith(f"{ENGLISH} {ENGLISH} The")
