"""The rules of the released example builders, in plain Python: BERT's for NSP and ALBERT's for SOP.

A second, independent statement of what `data.original_flaws` promises, as slow and as literal as the rules are told.
Tokens may be anything; the tests give each its place in the corpus, so that a pair tells where it came from.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Two segments without special tokens, and how they came about."""

    a: list[int]
    b: list[int]
    label: int  # 1: b is random (NSP), swapped or random (SOP)
    segments: int  # sentences in the chunk; with 1 there is nothing to follow a
    put_back: int  # sentences of the chunk that the next one begins with
    random_b: bool
    cut_front: int  # tokens taken from the front of the longer segment
    cut_back: int


def build(
    documents: list[list[list[int]]], *, kind: str, seq_len: int, short_seq_prob: float, rng: random.Random
) -> list[Pair]:
    """One pass over documents of sentences of tokens; `kind` is nsp or sop.

    The shuffling of documents and of the result is left out: it changes no pair.
    """
    documents = [document for document in documents if document]
    pairs = []
    for index in range(len(documents)):
        pairs += _document(documents, index, kind, seq_len - 3, short_seq_prob, rng)
    return pairs


def _document(
    documents: list[list[list[int]]], index: int, kind: str, longest: int, short_seq_prob: float, rng: random.Random
) -> list[Pair]:
    # Once for the whole document, not for each example.
    target = rng.randint(2, longest) if rng.random() < short_seq_prob else longest
    document, pairs = documents[index], []
    chunk: list[list[int]] = []
    i = 0
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(map(len, chunk)) >= target:
            a_end = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a, b = sum(chunk[:a_end], []), sum(chunk[a_end:], [])
            label, put_back = 0, 0
            random_b = len(chunk) == 1 or (kind == "nsp" and rng.random() < 0.5)
            if random_b:
                label, put_back = 1, len(chunk) - a_end
                b = _random_segment(documents, index, target - len(a), rng)
            elif kind == "sop" and rng.random() < 0.5:
                label, a, b = 1, b, a
            a, b, front, back = _truncate(a, b, longest, rng)
            pairs.append(Pair(a, b, label, len(chunk), put_back, random_b, front, back))
            chunk = []
            i -= put_back
        i += 1
    return pairs


def _random_segment(documents: list[list[list[int]]], index: int, target: int, rng: random.Random) -> list[int]:
    """Sentences of a random document from a random one on, until there are `target` tokens; at least one sentence."""
    for _ in range(10):  # after ten failures it is the own document
        other = rng.randint(0, len(documents) - 1)
        if other != index:
            break
    tokens: list[int] = []
    for sentence in documents[other][rng.randint(0, len(documents[other]) - 1) :]:
        tokens += sentence
        if len(tokens) >= target:
            break
    return tokens


def _truncate(a: list[int], b: list[int], longest: int, rng: random.Random) -> tuple[list[int], list[int], int, int]:
    """Take one token at a time from the longer (b if equal), at the front or the back by the toss of a coin."""
    a, b, front, back = list(a), list(b), 0, 0
    while len(a) + len(b) > longest:
        longer = a if len(a) > len(b) else b
        if rng.random() < 0.5:
            del longer[0]
            front += 1
        else:
            longer.pop()
            back += 1
    return a, b, front, back
