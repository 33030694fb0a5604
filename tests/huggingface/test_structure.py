"""Which family holds a model: its structure decides, and a structure that none has is named."""

import dataclasses

import pytest
from directories import FINETUNED, KINDS, UNSHARED, model_of
from models import KINDS as OTHERS
from small import tiny

from bertjax.errors import ConfigError
from bertjax.huggingface import structure


@pytest.mark.parametrize("kind", KINDS | UNSHARED)
def test_the_structure_decides(kind):
    assert structure.choose(model_of(kind)) == (KINDS | UNSHARED)[kind][1]


@pytest.mark.parametrize(
    "changes", [{"heads": ("mlm_head", "pooler")}, {"embedding_size": 16}, {"layer_norm_eps": 1e-5}]
)
def test_what_no_family_holds_is_named(changes):
    (field,) = changes
    with pytest.raises(ConfigError, match=rf"^model\.{field} = .*cannot be exported$"):
        structure.choose(dataclasses.replace(model_of("distilbert"), **changes))


@pytest.mark.parametrize(
    ("kind", "changes", "nearest"),
    [
        ("bert", {"positions": "rotary"}, "Bert"),
        ("bert", {"norm": "rms"}, "Bert"),
        ("modernbert", {"norm": "rms"}, "ModernBert"),
        ("modernbert", {"biases": "none"}, "ModernBert"),
        ("modernbert", {"embedding_size": 16}, "ModernBert"),
        ("nomic", {"rotary_pairs": "neighbours"}, "NomicBert"),
        ("nomic", {"window": 4}, "NomicBert"),
        ("nomic", {"token_types": 0}, "NomicBert"),
    ],
)
def test_a_structure_between_the_families_is_refused(kind, changes, nearest):
    """By the fields in which it differs from the nearest."""
    ((field, value),) = changes.items()
    with pytest.raises(
        ConfigError, match=rf"^model\.{field} = {value}: .*'s? {nearest}, .*cannot be exported$".replace("'s?", "'")
    ):
        structure.choose(dataclasses.replace(model_of(kind), **changes))


@pytest.mark.parametrize(
    ("kind", "family"), [("neobert", "modernbert"), ("rotary", "albert"), ("albert_modern", "modernbert")]
)
def test_a_structure_of_no_family_is_like_one(kind, family):
    model = dataclasses.replace(tiny().model, **OTHERS[kind])
    assert structure.nearest(model) == family
    with pytest.raises(ConfigError, match="cannot be exported"):
        structure.choose(model)


def test_a_head_for_labels_changes_no_family():
    for kind, (base, _) in FINETUNED.items():
        assert structure.choose(model_of(kind)) == KINDS[base][1]


def test_what_only_an_mlm_head_has_does_not_matter_without_one():
    model = dataclasses.replace(model_of("bert_tag"), mlm_transform=False, tie_words=False)
    assert structure.choose(model) == "bert"


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("bert_span", {"classifier_dropout": 0.25}, "dropout before the last layer is 0, and here it was 0.25"),
        ("distilbert_tag", {"dropout": 0.0}, "dropout before the last layer is 0, and here it was 0.1"),
        ("roberta_classify", {}, "RoBERTa also drops the input of the first layer of the classifier"),
        ("albert_classify", {}, "ALBERT drops no feed-forward output"),
        ("bert_tag", {"labels": tuple(f"L{i}" for i in range(22))}, "`L19` and 2 more."),
    ],
)
def test_the_card_says_what_differs_in_training(kind, changes, told, tmp_path):
    config = dataclasses.replace(model_of(kind), **changes)
    assert any(told in note for note in structure.notes(KINDS[kind.split("_")[0]][1], config, config))
    assert not structure.notes("bert", dataclasses.replace(model_of("bert_choice")), model_of("bert_choice"))
