"""Preparing a small corpus, and its documents as they can be read back."""

import numpy as np

from bertjax.corpus import prepare

DOCUMENTS = 1300
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."] + [str(digit) for digit in range(10)]


def make(data, tokenizer, directory, **how):
    return prepare.prepare(data, tokenizer, directory, **{"runner": prepare.local(1)} | how)


def documents(split):
    """The tokens of each document."""
    ends = np.concatenate(([0], np.cumsum(split.sentence_lengths)))[split.document_offsets]
    return [split.tokens(int(a), int(b)).tolist() for a, b in zip(ends, ends[1:], strict=False)]


def number(tokens):
    """The number that a document of the corpus begins with."""
    return int("".join(PIECES[token] for token in tokens[: tokens.index(PIECES.index("."))]))
