"""A text that does not fit the settings is told in a line, and one that fits in none."""

import pytest

from bertjax.config.schema import DataConfig
from bertjax.corpus.doubts import doubts

ENGLISH = (
    "The naïve idea was told at the corner until the shop was closed, and nobody knew why it had been so. See"
    " https://example.org/a/long/address?x=1 for more of it."
)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("私は学校で本を読んだ。", "で becomes て"),
        ("Tôi đang đọc sách ở trường.", "ô becomes o"),
        ("か\u3099く", "'\\u3099' is left out"),
    ],
)
def test_marks_that_lower_case_would_remove_are_told(text, becomes):
    (line,) = doubts([[text] * 3], DataConfig())
    assert (
        line.startswith("data.lower_case = True: ") and becomes in line and line.endswith("False if marks matter here")
    )
    assert list(doubts([[text] * 3], DataConfig(lower_case=False))) == []


@pytest.mark.parametrize("text", ["CC(=O)Oc1ccccc1C(=O)O", "MKTAYIAKQRQISFVKSHFSRQ", "ACGTACGTACGTTTGACCAGT"])
def test_words_of_no_language_are_told(text):
    (line,) = doubts([[text], [text]], DataConfig())
    assert line.startswith("data.alphabet = words: ") and "smiles, protein or dna" in line
    assert list(doubts([[text]], DataConfig(alphabet="smiles", lower_case=False))) == []


def test_fasta_that_is_read_by_lines_is_told():
    fields = {"alphabet": "protein", "lower_case": False}
    (line,) = doubts([[">sp|P1"], ["MKT"]], DataConfig(format="lines", **fields))
    assert line.startswith("data.format = lines: ") and line.endswith("set it to fasta")
    assert list(doubts([["MKT"]], DataConfig(format="lines", **fields))) == []


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
    assert list(doubts([[text]], DataConfig(lower_case=False))) == []
    assert list(doubts([[ENGLISH]], DataConfig())) == []


def test_a_sample_is_enough():
    def endless():
        while True:
            yield [ENGLISH, ENGLISH]

    assert list(doubts(endless(), DataConfig())) == []
