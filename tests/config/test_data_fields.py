"""`bertjax.config.data_fields`: what follows from the fields of the section `data`."""

import pytest

from bertjax.config.data_fields import DataConfig


@pytest.mark.parametrize(("case", "lower_case"), [("auto", None), ("uncased", True), ("cased", False)])
def test_case_says_whether_text_is_lowered(case, lower_case):
    assert DataConfig(case=case).lower_case is lower_case


def test_what_follows_from_other_fields():
    assert DataConfig(seq_len=64).row_lengths == (64,) and DataConfig(buckets=(32, 64)).row_lengths == (32, 64)
    assert DataConfig(mask_rate=0.3).last_mask_rate == 0.3
    assert DataConfig(mask_rate=0.3, final_mask_rate=0.15).last_mask_rate == 0.15
    assert [DataConfig(examples=kind).pairs for kind in ("nsp", "sop", "full_sentences")] == [True, True, False]
    rules = [DataConfig(), DataConfig(alphabet="dna"), DataConfig(format="ids")]
    assert [data.by_rule for data in rules] == [False, True, True]
