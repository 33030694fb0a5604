"""Long sentences and contexts become several examples, of which nothing is lost; places in a text are right."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.config.task_fields import TaskConfig
from bertjax.data import tokenizer
from bertjax.labelled.encode import encode
from bertjax.labelled.reading import read
from bertjax.labelled.records import Answer, Record
from bertjax.labelled.windows import offsets

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ODD = [
    *"ab ,7",
    " ",
    "\u00a0",
    "\t",
    "é",
    "e\u0301",
    "ﬁ",
    "中",
    "国",
    "İ",
    "ß",
    "½",
    "…",
    "🤗",
    "\u0301",
    "2020,",
    "1,000,",
]
ODD += ["¨", "Å", "ك", "ﷺ", "가", "\u200b", "\u3000", "Σ", "ς", "Dž", "\ufeff", "x\u0323\u0307"]


# Words with tags


def sentence(words, tags=None):
    return Record("f: line 1", tuple(words), tags=tags and tuple(tags))


def tagged(records, tokenizer, seq_len=32, labels=("O", "B-X", "I-X")):
    return encode(records, TaskConfig(kind="tag"), labels, tokenizer, seq_len=seq_len, token_types=True)


def test_the_first_piece_of_a_word_has_its_label(every_tokenizer):
    for name, loaded in every_tokenizer.items():
        (example,) = tagged([sentence(["the", "beautifulest", "king"], ["O", "B-X", "I-X"])], loaded)
        special = loaded.special
        assert example.tokens[0] == special.cls and example.tokens[-1] == special.sep, name
        assert example.labels[example.labels >= 0].tolist() == [0, 1, 2]
        assert example.words[example.words >= 0].tolist() == [0, 1, 2]
        assert ((example.labels >= 0) == (example.words >= 0)).all()
        whole, _ = loaded.encode_batch([" the beautifulest king"])
        assert example.tokens[1:-1].tolist() == whole.tolist(), name  # as in running text, spaces included
        assert not example.token_types.any() and example.record == 0


def test_a_word_without_pieces_is_told_all_the_same(every_tokenizer):
    for loaded in every_tokenizer.values():
        (example,) = tagged([sentence(["the", "\u200b", "\u0301", "king"], ["O"] * 4)], loaded)
        assert example.words[example.words >= 0].tolist() == [0, 1, 2, 3]


@given(st.lists(st.sampled_from(["the", "king", "beautiful" * 3, "of", "\u200b", "Café"]), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_every_word_is_told_once_and_no_example_is_too_long(every_tokenizer, words):
    for loaded in (every_tokenizer["vocab.txt uncased"], every_tokenizer["bpe.json"]):
        tags = [("O", "B-X", "I-X")[i % 3] for i in range(len(words))]
        for seq_len in (5, 12, 512):
            examples = tagged([sentence(words, tags), sentence(words)], loaded, seq_len)
            for record in (0, 1):
                own = [example for example in examples if example.record == record]
                found = np.concatenate([example.words[example.words >= 0] for example in own])
                assert found.tolist() == list(range(len(words)))
                assert max(len(example.tokens) for example in own) <= seq_len
                labels = np.concatenate([example.labels[example.words >= 0] for example in own])
                assert labels.tolist() == ([i % 3 for i in range(len(words))] if record == 0 else [-1] * len(words))
            assert seq_len < 512 or len(examples) == 2


def test_a_row_is_filled_with_whole_words(pieces):
    """seq_len 6 has room for four pieces: two words of two, or four of one."""
    two = next(word for word in ("kinge", "kings", "kingo") if len(pieces.encode_batch([word])[0]) == 2)
    examples = tagged([sentence([two, two, "the", "the", "the", "the", "the", two])], pieces, 6)
    assert [example.words[example.words >= 0].tolist() for example in examples] == [[0, 1], [2, 3, 4, 5], [6, 7]]


# Questions on contexts


def asked(context, *answers, question="why"):
    return Record("f", (question, context), answers=tuple(Answer(context.index(text), text) for text in answers))


def windows(records, loaded, seq_len=64, **fields):
    task = TaskConfig(kind="span", **fields)
    return encode(records, task, (), loaded, seq_len=seq_len, token_types=True)


def text_of(example, context):
    first, last = example.span
    return context[example.offsets[first, 0] : example.offsets[last, 1]]


def test_the_tokens_of_an_answer_are_its_text(every_tokenizer):
    context = "The Café of Zoë, E\u0301mile & 東京 in 1,000, ﬁne streets — said “the king” 🤗."
    for name, loaded in every_tokenizer.items():
        for answer in ("Café", "Zoë", "E\u0301mile", "1,000,", "ﬁne", "king", "🤗", "Café of Zoë", "東京"):
            (example,) = windows([asked(context, answer)], loaded, seq_len=256)
            found = text_of(example, context)
            assert answer in found, (name, answer, found)
            # The tiny SentencePiece and Unigram know few characters and take those they do not know together.
            if name.startswith(("vocab", "bpe", "lower")):
                assert found == answer, (name, answer, found)


def test_what_is_dropped_belongs_to_the_token_beside_it(pieces):
    context = "the \u200bking\u200b of \u0301caf\u0301e\u0301, the"
    for answer in ("\u200bking\u200b", "\u0301caf\u0301e\u0301", "of \u0301caf\u0301e\u0301,"):
        (example,) = windows([asked(context, answer)], pieces)
        assert text_of(example, context) == answer


@given(st.lists(st.sampled_from(ODD), min_size=1, max_size=14), st.data())
@settings(max_examples=150, deadline=None)
def test_places_are_those_of_the_text(every_tokenizer, parts, data):
    text = "".join(parts)
    start = data.draw(st.integers(0, len(text) - 1))
    answer = text[start : data.draw(st.integers(start + 1, len(text)))].strip()
    start = text.index(answer, start)
    for name, loaded in every_tokenizer.items():
        ids_n, lengths, places_n2 = loaded.encode_places([text, "", text])
        same_n, same = loaded.encode_batch([text, "", text])
        assert ids_n.tolist() == same_n.tolist() and lengths.tolist() == same.tolist()
        found = offsets(text, places_n2[: lengths[0]])
        starts, ends = found.T
        assert (
            (starts <= ends).all()
            and (np.diff(starts) >= 0).all()
            and (ends <= len(text)).all()
            and (starts >= 0).all()
        )
        stretches = [text[a:b] for a, b in found]
        assert all(stretch == stretch.strip() for stretch in stretches), name
        # What stands alone and is dropped as a whole, as a zero-width space, is at no token.
        edges = (answer.split() or [""])[0], (answer.split() or [""])[-1]
        if answer and all(any(c.isalnum() for c in edge) for edge in edges):
            (example,) = windows([Record("f", ("", text), answers=(Answer(start, answer),))], loaded, seq_len=512)
            first, last = example.span
            assert example.offsets[first, 0] <= start and example.offsets[last, 1] >= start + len(answer), name


def test_a_question_and_its_context_are_a_pair(pieces):
    context = "the king of the city"
    (example,) = windows([asked(context, "city")], pieces)
    special = pieces.special
    question, _ = pieces.encode_batch(["why"])
    ids, _ = pieces.encode_batch([context])
    assert example.tokens.tolist() == [special.cls, *question, special.sep, *ids, special.sep]
    assert example.token_types.tolist() == [0] * (len(question) + 2) + [1] * (len(ids) + 1)
    outside = [*range(len(question) + 2), len(example.tokens) - 1]
    assert (example.offsets[outside] == -1).all() and not example.max_context[outside].any()
    assert (np.delete(example.offsets, outside, 0) >= 0).all() and np.delete(example.max_context, outside).all()
    (flat,) = encode([asked(context)], TaskConfig(kind="span"), (), pieces, seq_len=64, token_types=False)
    assert not flat.token_types.any() and flat.span == (0, 0)
    (unknown,) = windows([Record("f", ("why", context))], pieces)
    assert unknown.span is None


def test_parts_of_a_long_context(pieces):
    """With a question of two pieces, of 16 there are 11 for the context; a part begins 4 after the one before."""
    context = " ".join(["the king of"] * 10)
    record = asked(context + " city", "city", question="the of")
    examples = windows([record], pieces, seq_len=16, stride=4)
    sizes = [len(example.tokens) - 5 for example in examples]
    starts = [int(example.offsets[4, 0]) for example in examples]
    words = [match for match, c in enumerate(context) if match == 0 or context[match - 1] == " "]
    assert starts == [words[i] for i in range(0, 4 * len(starts), 4)]
    assert sizes == [11] * (len(sizes) - 1) + [31 - 4 * (len(sizes) - 1)] and len(examples) == 6
    assert [example.span for example in examples] == [(0, 0)] * 5 + [(14, 14)]
    held = [set(map(tuple, example.offsets[example.max_context].tolist())) for example in examples]
    assert sum(map(len, held)) == len(set.union(*held)) == 31


def official_max_context(spans, index, position):
    """`_check_is_max_context` of google-research/bert, run_squad.py."""
    best_score, best_index = None, None
    for span_index, (start, length) in enumerate(spans):
        end = start + length - 1
        if position < start or position > end:
            continue
        score = min(position - start, end - position) + 0.01 * length
        if best_score is None or score > best_score:
            best_score, best_index = score, span_index
    return index == best_index


@given(st.integers(0, 60), st.integers(9, 40), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_parts_are_those_of_the_official_script(pieces, words, seq_len, stride):
    record = asked(" ".join(["the"] * words), question="of")
    examples = windows([record], pieces, seq_len=seq_len, stride=stride)
    total, size = words, seq_len - 4
    spans, start = [], 0
    while start < total:  # convert_examples_to_features
        length = min(total - start, size)
        spans.append((start, length))
        if start + length == total:
            break
        start += min(length, stride)
    assert [len(example.tokens) - 4 for example in examples] == ([length for _, length in spans] or [0])
    for index, (start, length) in enumerate(spans):
        expected = [official_max_context(spans, index, start + i) for i in range(length)]
        assert examples[index].max_context[3:-1].tolist() == expected


def test_a_long_question_is_cut(pieces):
    (example,) = windows([asked("the city", question="of " * 99)], pieces, max_question=5)
    assert example.tokens.tolist().index(pieces.special.sep) == 6


def test_an_answer_that_crosses_the_end_of_a_part_is_in_the_next(pieces):
    context = " ".join(["the king of"] * 10)
    start = [i for i, c in enumerate(context) if c == " "][9] + 1  # the words 10 and 11; the first part ends with 10
    answer = " ".join(context.split()[10:12])
    record = Record("f", ("the of", context), answers=(Answer(start, answer),))
    examples = windows([record], pieces, seq_len=16, stride=4)
    assert [example.span != (0, 0) for example in examples] == [False, True, True, False, False, False]
    assert all(text_of(example, context) == answer for example in examples if example.span != (0, 0))


ALL = ("v1/train.json", "v1/dev.json", "v2/dev.json")


@pytest.mark.parametrize(
    ("vocabulary", "files", "counted"),
    [
        pytest.param("bert_uncased.txt", ALL, (18_606, 114), marks=pytest.mark.long),
        pytest.param("bert_cased.txt", ALL, (18_606, 114), marks=pytest.mark.long),
        pytest.param("albert_30k_clean.model", ALL, (18_606, 152), marks=pytest.mark.long),
        ("bert_uncased.txt", ("v2/dev.json",), (1_768, 2)),
        ("albert_30k_clean.model", ("v2/dev.json",), (1_768, 2)),
    ],
)
def test_every_answer_of_squad_is_found_at_its_tokens(vocabulary, files, counted):
    """So many answers, of which so many are less than their tokens, as "six" in "sixth" or "24 million" behind "$"."""
    if not (SHARED / "squad").exists():
        pytest.skip("../shared/data/squad is absent")
    records = read(TaskConfig(kind="span"), [str(SHARED / "squad" / name) for name in files])
    loaded = tokenizer.load(SHARED / "vocab" / vocabulary, lower_case=None)
    found = {}
    for example in windows(records, loaded, seq_len=384):
        if example.span != (0, 0):
            found[example.record] = text_of(example, records[example.record].texts[1])
    answers = {i: record.answers[0].text for i, record in enumerate(records) if record.answers}
    assert found.keys() == answers.keys()
    assert all(answers[i] in found[i] for i in found)
    assert (len(answers), sum(answers[i] != found[i] for i in found)) == counted
