"""`data.original_flaws`: the examples of the released builders, held against a plain transcription of their rules.

Both sides make one epoch of the same real text for several seeds. Each token is its own place in the text, so that a
pair tells which sentences it is made of and what was cut. Every statistic must agree within 5 standard errors, taken
from its spread over the seeds of both sides; what is certain must hold for every example.

Shape letters: D documents, S sentences, T tokens of the text, N examples.
"""

import random
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
from data import original_rules

from bertjax.config.schema import DataConfig
from bertjax.data.examples import build
from bertjax.data.planning import plan
from bertjax.data.tokenizer import Special

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "corpus"
SPECIAL = Special(pad=0, unk=1, cls=2, sep=3, mask=4)
FIRST_ID = 5
ERRORS = 5.0


@dataclass(frozen=True)
class Text:
    """A split of which token t is the number t, after the special ones."""

    document_offsets: np.ndarray  # int64 [D + 1] in sentences
    sentence_lengths: np.ndarray  # int32 [S]

    def tokens(self, start, end):
        return np.arange(start + FIRST_ID, end + FIRST_ID, dtype=np.int32)

    @cached_property
    def sentence_starts(self):
        return np.concatenate([[0], np.cumsum(self.sentence_lengths)])

    @cached_property
    def documents(self):
        """Lists of sentences of tokens, as the rules take them; a token is its place in the text."""
        starts = self.sentence_starts.tolist()
        sentences = [list(range(*ends)) for ends in zip(starts[:-1], starts[1:], strict=True)]
        offsets = self.document_offsets.tolist()
        return [sentences[low:high] for low, high in zip(offsets[:-1], offsets[1:], strict=True)]


def text_of(documents):
    """From lists of sentences: a word is a token."""
    lengths = [[len(sentence.split()) for sentence in document if sentence.split()] for document in documents]
    lengths = [document for document in lengths if document]
    offsets = np.cumsum([0, *map(len, lengths)])
    return Text(offsets.astype(np.int64), np.array(sum(lengths, []), np.int32))


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/data/corpus/{name} is absent")
    return path.read_text()


@cache
def sample():
    """Three documents, a sentence a line."""
    return text_of([document.split("\n") for document in shared("bert_sample_text.txt").split("\n\n")])


@cache
def wiki():
    """100 articles; a sentence ends at a full stop, as far as these counts need to know."""
    articles = re.findall(r"<doc [^>]*>\n(.*?)</doc>", shared("wiki/wiki_00"), re.DOTALL)
    return text_of([re.split(r"\n|(?<=[.!?]) ", article) for article in articles[:100]])


def ours(text, seed, **data):
    """The (a, b, label) of an epoch, [N] each: places of tokens."""
    config = DataConfig(original_flaws=True, **data)
    examples = plan(text.document_offsets, text.sentence_lengths, config, seed=seed)
    rng, pairs = np.random.default_rng(seed), []
    for index in range(len(examples)):
        example = build(examples, index, text, rng, special=SPECIAL)
        tokens, types = example.tokens_L, example.token_types_L
        middle = len(tokens) - int(types.sum())
        assert len(tokens) <= config.seq_len and types[middle:].all()
        assert [tokens[0], tokens[middle - 1], tokens[-1]] == [SPECIAL.cls, SPECIAL.sep, SPECIAL.sep]
        assert example.pair_weight == 1.0
        pairs.append((tokens[1 : middle - 1] - FIRST_ID, tokens[middle:-1] - FIRST_ID, int(example.pair_label)))
    return pairs


def theirs(text, seed, *, examples, seq_len, short_seq_prob):
    pairs = original_rules.build(
        text.documents, kind=examples, seq_len=seq_len, short_seq_prob=short_seq_prob, rng=random.Random(seed)
    )
    return [(np.array(pair.a), np.array(pair.b), pair.label) for pair in pairs]


def measured(text, pairs, *, examples, seq_len):
    """The statistics of one epoch, and what holds for each of its examples."""
    starts, longest = text.sentence_starts, seq_len - 3
    sentence_T = np.repeat(np.arange(len(starts) - 1), text.sentence_lengths)
    document_T = np.repeat(np.arange(len(text.document_offsets) - 1), np.diff(starts[text.document_offsets]))
    last_S = np.isin(np.arange(len(starts) - 1) + 1, text.document_offsets)
    a_N, b_N = (np.array([[pair[i][0], pair[i][-1]] for pair in pairs]) for i in (0, 1))  # first and last token
    label_N = np.array([label for _, _, label in pairs])
    length_a, length_b = a_N[:, 1] - a_N[:, 0] + 1, b_N[:, 1] - b_N[:, 0] + 1
    steps = np.diff(np.concatenate([segment for a, b, _ in pairs for segment in (a, b)]))
    ends = np.cumsum(np.stack([length_a, length_b], axis=1).ravel())
    assert (np.delete(steps, ends[:-1] - 1) == 1).all()  # consecutive tokens, of one document
    assert all((document_T[x[:, 0]] == document_T[x[:, 1]]).all() for x in (a_N, b_N))
    front_a, front_b = (x[:, 0] - starts[sentence_T[x[:, 0]]] for x in (a_N, b_N))
    back_a, back_b = (starts[sentence_T[x[:, 1]] + 1] - 1 - x[:, 1] for x in (a_N, b_N))
    cut_a, cut_b = front_a + back_a, front_b + back_b
    cut = (cut_a > 0) | (cut_b > 0)

    # Truncation fills the row, and takes from the longer.
    assert (length_a + length_b <= longest).all() and (length_a + length_b == longest)[cut].all()
    assert (length_a >= length_b)[(cut_a > 0) & (cut_b == 0)].all()
    assert (length_b >= length_a - 1)[(cut_b > 0) & (cut_a == 0)].all()
    assert (abs(length_a - length_b) <= 1)[(cut_a > 0) & (cut_b > 0)].all()

    # A chunk has one segment for certain if A begins with the last sentence of a document or fills the row alone.
    strange = document_T[a_N[:, 0]] != document_T[b_N[:, 0]]
    sentence_a = sentence_T[a_N[:, 0]]
    alone = last_S[sentence_a] | (text.sentence_lengths[sentence_a] >= longest)
    random_b = label_N == 1 if examples == "nsp" else strange
    if examples == "nsp":
        assert label_N[alone].all() and label_N[strange].all()
    else:
        assert (label_N == (strange | (b_N[:, 0] < a_N[:, 0]))).all()

    random_T = _covered(b_N[random_b], len(sentence_T))
    own_T = _covered(a_N, len(sentence_T)) + _covered(b_N[~random_b], len(sentence_T))
    assert own_T.max() == 1  # what is put back was not used
    all_S = np.maximum.reduceat(own_T + random_T, starts[:-1])
    document_N = document_T[a_N[:, 0]]
    means = [(length_a + length_b)[document_N == d].mean() for d in np.unique(document_N)]
    other = document_T[b_N[random_b, 0]]

    found = {
        "examples": len(pairs),
        "label 1": label_N.mean(),
        "chunks of one segment, certain": alone.mean(),
        "label 1 without those": label_N[~alone].mean(),
        "B from another document": strange.mean(),
        "tokens used as own text": own_T.mean(),
        "pair at full length": (length_a + length_b == longest).mean(),
        "spread of mean lengths over documents": np.std(means),
        "A cut": (cut_a > 0).mean(),
        "B cut": (cut_b > 0).mean(),
        "both cut": ((cut_a > 0) & (cut_b > 0)).mean(),
        "tokens cut": (cut_a + cut_b).mean(),
        "share of A's cut at the front": front_a.sum() / max(cut_a.sum(), 1),
        "share of B's cut at the front": front_b.sum() / max(cut_b.sum(), 1),
        "document of a random B": np.log(np.diff(starts[text.document_offsets])[other]).mean(),
        "place of a random B": (
            (sentence_T[b_N[random_b, 0]] - text.document_offsets[other]) / np.diff(text.document_offsets)[other]
        ).mean(),
        "length of a random B": length_b[random_b].mean(),
    }
    found |= {f"sentences used {n} times": (all_S == n).mean() for n in range(4)}
    for name, length in (("A", length_a), ("B", length_b), ("pair", length_a + length_b)):
        found |= {f"mean length of {name}": length.mean(), f"spread of the length of {name}": length.std()}
        found |= {f"{name} of at most {s}/5": (length <= longest * s / 5).mean() for s in range(1, 5)}
    return found


def _covered(ends, size):
    """How often each of so many tokens lies between a first and a last one."""
    return np.cumsum(np.bincount(ends[:, 0], minlength=size + 1) - np.bincount(ends[:, 1] + 1, minlength=size + 1))[:-1]


def differences(text, seeds, **data):
    """Statistics that disagree, with both means and how many standard errors lie between."""
    values = {"examples": data["examples"], "seq_len": data["seq_len"]}
    runs = [[measured(text, side(text, seed, **data), **values) for seed in seeds] for side in (ours, theirs)]
    wrong = []
    for name in runs[0][0]:
        mine, rules = (np.array([found[name] for found in side]) for side in runs)
        gap = abs(mine.mean() - rules.mean())
        error = np.sqrt((mine.var(ddof=1) + rules.var(ddof=1)) / len(seeds))
        if gap > ERRORS * error + 1e-9:
            wrong.append(f"{name}: {mine.mean():.5g} instead of {rules.mean():.5g}, standard error {error:.2g}")
    return wrong


@pytest.mark.parametrize("examples", ["nsp", "sop"])
@pytest.mark.parametrize(("seq_len", "short_seq_prob"), [(128, 0.1), (64, 0.5)])
def test_articles_become_the_examples_of_the_released_code(examples, seq_len, short_seq_prob):
    data = {"examples": examples, "seq_len": seq_len, "short_seq_prob": short_seq_prob}
    wrong = differences(wiki(), range(24), **data)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("examples", ["nsp", "sop"])
def test_berts_sample_text_becomes_the_examples_of_the_released_code(examples):
    wrong = differences(sample(), range(200), examples=examples, seq_len=128, short_seq_prob=0.1)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("examples", ["nsp", "sop"])
def test_a_sentence_without_a_neighbour_is_always_labelled_1(examples):
    """A blank line after every sentence: the released builders learn nothing from it, and say so nowhere."""
    text = text_of([["so it goes"]] * 20)
    for side in (ours, theirs):
        pairs = side(text, 0, examples=examples, seq_len=32, short_seq_prob=0.0)
        assert len(pairs) == 20 and all(label == 1 for _, _, label in pairs)
        assert all(len(a) == len(b) == 3 for a, b, _ in pairs)


def test_truncation_takes_turns_at_the_longer_and_tosses_a_coin_for_the_side():
    """Two sentences of 40 into 61: 10 tokens of B and 9 of A, half of them at the front, within 5 standard errors."""
    text = text_of([["word " * 40] * 2] * 300)
    for side in (ours, theirs):
        pairs = side(text, 0, examples="sop", seq_len=64, short_seq_prob=0.0)
        assert len(pairs) == 300 and all((len(a), len(b)) == (31, 30) for a, b, _ in pairs)
        front = sum(int(segment[0]) % 40 for a, b, _ in pairs for segment in (a, b))
        assert abs(front - 2_850) <= 5 * np.sqrt(5_700 / 4)
