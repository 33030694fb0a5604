"""Texts, pairs and endings become tokens, cut as BERT cuts them, quickly and with nothing heavy imported."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config.task_fields import TaskConfig
from bertjax.data import tokenizer
from bertjax.labelled import encode as module
from bertjax.labelled.encode import _fitted, encode
from bertjax.labelled.reading import read
from bertjax.labelled.records import Record

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PAIR = TaskConfig(kind="classify", pair="pair")


def record(*texts, label=None):
    return Record("f: line 1", texts, label=label)


def ids(loaded, text):
    return loaded.encode_batch([text])[0].tolist()


def test_texts_and_pairs(every_tokenizer):
    for loaded in every_tokenizer.values():
        cls, sep = loaded.special.cls, loaded.special.sep
        the, king = ids(loaded, "the"), ids(loaded, "king of")
        (one,) = encode(
            [record("the", label="b")], TaskConfig(kind="classify"), "ab", loaded, seq_len=64, token_types=True
        )
        assert one.tokens.tolist() == [cls, *the, sep] and not one.token_types.any()
        assert (one.label, one.record, one.tokens.dtype, one.token_types.dtype) == (1, 0, np.int32, np.int32)
        for token_types in (True, False):
            (two,) = encode([record("the", "king of")], PAIR, "ab", loaded, seq_len=64, token_types=token_types)
            assert two.tokens.tolist() == [cls, *the, sep, *king, sep]
            second = len(king) + 1
            assert two.token_types.tolist() == [0] * (len(the) + 2) + [int(token_types)] * second
            assert two.label == -1


def test_numbers(pieces):
    records = [record("the", label="3.80"), record("the")]
    labelled, unlabelled = encode(records, TaskConfig(kind="regress"), (), pieces, seq_len=64, token_types=True)
    assert labelled.label == 3.8 and np.isnan(unlabelled.label) and unlabelled.record == 1


def test_endings(pieces, capsys):
    task = TaskConfig(kind="choice", endings=("a", "b"))
    records = [record("the king", "of", "in", label="1"), record("the", "city", "house " * 99)]
    examples = encode(records, task, (), pieces, seq_len=32, token_types=True)
    assert [(example.record, example.label) for example in examples] == [(0, 1), (0, 1), (1, -1), (1, -1)]
    expected = [
        pieces.special.cls,
        *ids(pieces, "the king"),
        pieces.special.sep,
        *ids(pieces, "in"),
        pieces.special.sep,
    ]
    assert examples[1].tokens.tolist() == expected
    assert len(examples[3].tokens) == 16
    assert "1 of 4 examples are longer than data.seq_len = 32 / 2 endings, and are cut" in capsys.readouterr().err


def test_what_is_too_long_is_cut_and_said(pieces, capsys, monkeypatch):
    records = [record("the " * 20), record("the " * 6), record("the " * 7), record("")]
    examples = encode(records, TaskConfig(kind="classify"), "ab", pieces, seq_len=8, token_types=True)
    assert [len(example.tokens) for example in examples] == [8, 8, 8, 2]
    assert all(example.tokens[-1] == pieces.special.sep for example in examples)
    assert capsys.readouterr().err == "2 of 4 examples are longer than data.seq_len = 8, and are cut\n"
    monkeypatch.setattr(module, "BLOCK", 1)
    encode(records, TaskConfig(kind="classify"), "ab", pieces, seq_len=8, token_types=True)
    assert capsys.readouterr().err == "2 of 4 examples are longer than data.seq_len = 8, and are cut\n"
    encode(records[1:2], TaskConfig(kind="classify"), "ab", pieces, seq_len=8, token_types=True)
    assert capsys.readouterr().err == ""


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_pairs_are_cut_as_bert_cuts_them(a, b, room):
    """`_truncate_seq_pair` of google-research/bert, run_classifier.py."""
    left, right = list(range(a)), list(range(b))
    while len(left) + len(right) > room:
        (left if len(left) > len(right) else right).pop()
    first, second = _fitted(np.arange(a), np.arange(b), room)
    assert (first.tolist(), second.tolist()) == (left, right)


@pytest.mark.parametrize("kind", ["classify", "tag", "span", "choice"])
def test_blocks_change_nothing(pieces, monkeypatch, kind):
    words = ["the", "king", "of", "the", "north", "was", "lost", "in", "the", "house"]
    if kind == "tag":
        records = [Record("f", tuple(words[i:]), tags=("O",) * len(words[i:])) for i in range(9)]
    else:
        second = {"classify": (), "span": ("the king of",), "choice": ("of", "in")}[kind]
        records = [Record("f", (" ".join(words[i:]), *second), label=str(i % 2)) for i in range(9)]
    task = TaskConfig(kind=kind, endings=("a", "b") if kind == "choice" else (), stride=2)
    labels = ("O",) if kind == "tag" else ("0", "1")
    whole = encode(records, task, labels, pieces, seq_len=16, token_types=True)
    monkeypatch.setattr(module, "BLOCK", 2)
    parts = encode(records, task, labels, pieces, seq_len=16, token_types=True)
    assert len(whole) == len(parts) >= 9
    for a, b in zip(whole, parts, strict=True):
        assert (a.record, a.label, a.span) == (b.record, b.label, b.span)
        for field in ("tokens", "token_types", "labels", "words", "offsets", "max_context"):
            assert getattr(a, field).tolist() == getattr(b, field).tolist()
    assert encode([], task, labels, pieces, seq_len=16, token_types=True) == []


def test_nothing_heavy_is_imported():
    code = "import sys, bertjax.labelled.encode; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["grain", "array_record", "tensorflow_datasets", "jax", "pyarrow"]
    assert subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("vocabulary", ["bert_uncased.txt", "albert_30k_clean.model"])
def test_a_hundred_thousand_sentences_take_seconds(vocabulary):
    if not (SHARED / "glue" / "sst2").exists():
        pytest.skip("../shared/data/glue/sst2 is absent")
    task = TaskConfig(kind="classify", text="sentence")
    records = read(task, (str(SHARED / "glue" / "sst2" / "train.tsv"),))
    records = (records * 2)[:100_000]
    loaded = tokenizer.load(SHARED / "vocab" / vocabulary, lower_case=None)
    begin = time.process_time()  # of all threads, so of as much as one core does
    examples = encode(records, task, ("0", "1"), loaded, seq_len=64, token_types=True)
    assert time.process_time() - begin < 30
    assert len(examples) == 100_000
