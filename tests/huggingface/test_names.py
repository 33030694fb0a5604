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
