"""Names of tensors: none twice, and every spelling of one is the same."""

from collections import Counter

import pytest

from bertjax.huggingface import names


@pytest.mark.parametrize("family", names.FAMILIES)
def test_only_fused_kernels_share_a_name(family):
    counts = Counter(names.tensor_names(family).values())
    several = {names.FAMILIES[family].layer + names.FAMILIES[family].layers[paths[0]] for paths in fused(family)}
    assert {name for name, count in counts.items() if count > 1} == several
    assert all(counts[names.tensor_names(family)[f"encoder/groups/{p[0]}"]] == len(p) for p in fused(family))


def fused(family):
    return names.FAMILIES[family].fused


@pytest.mark.parametrize("family", names.FAMILIES)
def test_a_name_is_plain_without_prefix_and_tie(family):
    word, decoder = names.FAMILIES[family].others[names.WORD], names.FAMILIES[family].decoder
    for spelled in (word, names.FAMILIES[family].prefix + word, f"{decoder}.weight"):
        assert names.plain_name(family, spelled) == word
    assert names.plain_name(family, f"{decoder}.bias") == names.FAMILIES[family].others["mlm_head/bias"]


def test_positions_of_roberta_stand_behind_its_padding():
    assert names.first_position("roberta", 1) == 2 and names.first_position("bert", 1) == 0


@pytest.mark.parametrize(
    ("family", "told", "stored", "ending"),
    [
        ("bert", ["BertForTokenClassification"], ("classifier.weight", "pooler.dense.weight"), names.TAGS),
        ("bert", ["BertForMultipleChoice"], ("classifier.weight", "pooler.dense.weight"), names.CHOOSES),
        ("bert", None, ("classifier.weight", "pooler.dense.weight"), names.CLASSIFIES),
        ("bert", None, ("classifier.weight",), names.TAGS),
        ("bert", ["BertForSequenceClassification"], ("qa_outputs.bias",), names.ANSWERS),
        ("bert", ["BertForSequenceClassification"], ("pooler.dense.weight",), ""),
        ("roberta", None, ("classifier.out_proj.weight",), names.CLASSIFIES),
        ("roberta", None, ("classifier.weight",), names.TAGS),
        ("distilbert", None, ("pre_classifier.weight",), names.CLASSIFIES),
        ("modernbert", None, ("head.dense.weight", "decoder.bias"), ""),
        ("modernbert", ["ModernBertForQuestionAnswering"], ("head.dense.weight", "classifier.bias"), names.ANSWERS),
        ("distilbert", None, ("classifier.weight",), names.CLASSIFIES),
        ("nomic_bert", ["NomicBertForQuestionAnswering"], ("qa_outputs.bias",), ""),
    ],
)
def test_the_class_is_told_by_its_name_and_its_tensors(family, told, stored, ending):
    assert names.found_ending(family, told, stored) == ending


@pytest.mark.parametrize("told", [None, "x", [], [3], ["ModernBertForMaskedLM"]])
def test_a_class_that_neither_its_name_nor_its_tensors_tell_is_refused(told):
    with pytest.raises(ValueError, match="ModernBertForSequenceClassification, .*ModernBertForTokenClassification"):
        names.found_ending("modernbert", told, ("head.dense.weight", "classifier.bias"))


@pytest.mark.parametrize("family", names.FAMILIES)
def test_the_tensors_of_a_class_are_those_of_its_heads(family):
    """No two of its parts have a name in common, and only those of the encoder, and its pooler, a prefix."""
    for ending, own in names.FAMILIES[family].labelled.items():
        table = names.tensor_names(family, ending)
        heads = {name: path for path, name in table.items() if not path.startswith("encoder")}
        assert len(heads) == sum(not path.startswith("encoder") for path in table) and own.items() <= table.items()
        parts = {path.partition("/")[0] for path in own}
        assert parts <= set(names.heads_of(family, ending))
        assert not any(names.prefix(family, ending, part) for part in parts)
        assert names.prefix(family, ending, "encoder") == names.FAMILIES[family].prefix
    assert names.prefix("roberta", names.CHOOSES, "pooler") == "roberta."
