"""`bertjax.labelled.entities`: seqeval finds the same, whatever the tags."""

import random

import pytest

from bertjax.labelled.entities import Entity, entities, parse

TAGS = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B", "B", "I", "E", "S", "B-", "I-x-y"]


def test_seqeval_finds_the_same():
    """By the rules of conlleval: sequences that no scheme allows too."""
    theirs = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    rng = random.Random(0)
    sentences = [rng.choices(TAGS, k=rng.randint(0, 8)) for _ in range(5000)]
    found = [[] for _ in sentences]
    for one in entities(sentences):
        found[one.sentence].append((one.type, one.start, one.end - 1))
    assert found == [theirs(tags) for tags in sentences]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A O", [(0, 2, "A")]),
        ("I-A I-A B-A", [(0, 2, "A"), (2, 3, "A")]),  # begins without a B
        ("B-A I-B", [(0, 1, "A"), (1, 2, "B")]),  # its type changes
        ("B-A E-A I-A S-A", [(0, 2, "A"), (2, 3, "A"), (3, 4, "A")]),
        ("NOUN NOUN VERB", [(0, 2, "NOUN"), (2, 3, "VERB")]),  # no tags of entities: a type each
        ("OTHER Big", [(0, 1, "OTHER"), (1, 2, "Big")]),
    ],
)  # fmt: skip
def test_entities_of_a_sentence(tags, found):
    assert entities([tags.split()]) == [Entity(0, *one) for one in found]


def test_nothing_goes_on_in_the_next_sentence():
    found = entities([["B-A", "I-A"], [], ["I-A"], ["I-A", "O", "B-B"]])
    assert found == [(0, 0, 2, "A"), (2, 0, 1, "A"), (3, 0, 1, "A"), (3, 2, 3, "B")]
    assert entities([]) == []


def test_parts_of_a_tag():
    assert [parse(tag) for tag in ("O", "B-PER", "I-a-b", "S", "", "B.")] == [
        ("O", ""), ("B", "PER"), ("I", "a-b"), ("S", "_"), ("I", ""), ("I", "B."),
    ]  # fmt: skip
