"""The counts of a text are what plain loops find, and a tokenizer of the size that follows from them can be trained."""

import math
import unicodedata

import numpy as np
import pytest
from sequences import japanese

from bertjax.config.schema import DataConfig
from bertjax.corpus import units
from bertjax.data.tokenizer import load, normalise
from bertjax.errors import DataError
from bertjax.report.survey import counted, survey
from bertjax.vocabulary.unigram import train_sentencepiece

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def made(seed, *, documents, words, different, alphabet=LETTERS):
    """Documents of one sentence, of so many words, which are so many different ones, common and rare."""
    rng = np.random.default_rng(seed)
    known = ["".join(rng.choice(list(alphabet), rng.integers(1, 20))) for _ in range(different)]
    ranks = (rng.pareto(1.0, (documents, words)) * 3).astype(int) % different
    return [[" ".join(known[i] for i in row)] for row in ranks]


@pytest.mark.parametrize("lower_case", [True, False])
def test_counts_are_those_of_plain_loops(corpus_file, lower_case):
    documents = list(units.documents(DataConfig(source=(str(corpus_file),))))
    found = counted(iter(documents), lower_case=lower_case)
    texts = [normalise(" ".join(sentences), lower_case) for sentences in documents]
    everything = "".join(texts)
    assert (found.documents, found.characters, found.whole) == (40, len(everything), True)
    assert found.distinct_words == len({word[:16] for text in texts for word in text.split()})
    # Half of the text, and not half of the documents.
    longest = sorted(map(len, texts), reverse=True)
    before = sum(length for length in longest if length > found.typical)
    assert before < len(everything) / 2 <= before + longest.count(found.typical) * found.typical
    composed = [c for c in unicodedata.normalize("NFKC", everything) if c not in '()"-.–£€']
    common = sorted(map(composed.count, set(composed)), reverse=True)
    assert sum(common[: found.alphabet - 1]) < 0.99995 * len(composed) <= sum(common[: found.alphabet])


def test_the_rest_of_a_large_text_is_not_read():
    def endless():
        while True:
            yield ["Nobody knew.", "Nobody asked."]

    found = counted(endless(), lower_case=True, most=1_000)
    assert not found.whole and 1_000 <= found.characters < 1_100


def test_a_text_without_words_is_told_as_everywhere(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="no document with text"):
        survey(DataConfig(source=(str(tmp_path / "empty.txt"),)))


TEXTS = {
    "the same sentence": [["Nobody knew what to say."]] * 2_000,
    "twenty words": made(0, documents=500, words=9, different=20),
    "many rare words": made(1, documents=2_000, words=20, different=20_000),
    "one word": [["word"]],
    "a thousand characters": made(
        2, documents=2_000, words=20, different=3_000, alphabet=[chr(0x4E00 + i) for i in range(1_000)]
    ),
    "no spaces": [[sentence] for sentence in japanese()],
    "digits": [[str(number)] for number in range(5_000)],
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_tokenizer_of_this_size_can_be_trained(name, tmp_path):
    found = counted(TEXTS[name], lower_case=False)
    texts = (sentence for document in TEXTS[name] for sentence in document)
    train_sentencepiece(texts, tmp_path / "spiece.model", vocab_size=found.pieces, lower_case=False)
    assert len(load(tmp_path / "spiece.model", lower_case=False).pieces) == found.pieces


def test_tokens_are_estimated_within_a_third(corpus_file, tmp_path):
    data = DataConfig(source=(str(corpus_file),))
    found = survey(data)
    texts = [sentence for document in units.documents(data) for sentence in document]
    train_sentencepiece(texts, tmp_path / "m.model", vocab_size=found.pieces, lower_case=True)
    tokens = len(load(tmp_path / "m.model", lower_case=True).encode_batch(texts)[0])
    assert abs(math.log(found.tokens / tokens)) < math.log(4 / 3), (found.tokens, tokens)
