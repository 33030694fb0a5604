"""Plans: every token once, chunks as long as the rule says, and nothing but the seed decides."""

from itertools import pairwise

import numpy as np
import pytest
from data.numbered import MODES, FakeSplit, documents, plan_split
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.data import planning
from bertjax.errors import DataError


@settings(max_examples=100, deadline=None)
@given(documents, st.integers(5, 24), st.sampled_from(["nsp", "sop"]), st.sampled_from([0.0, 0.5]), st.integers(1, 9))
def test_chunks_cover_every_token_once_and_are_greedy(lengths, seq_len, mode, short, block):
    split, longest = FakeSplit(lengths), seq_len - 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "BLOCK", block)  # so that chunks cross blocks in splits this small
        planned = plan_split(split, mode, seq_len=seq_len, short=short)
    token_P1 = planned.piece_starts_P1
    assert token_P1[0] == 0 and token_P1[-1] == split.starts_D1[-1]
    assert ((np.diff(token_P1) > 0) & (np.diff(token_P1) <= longest)).all()
    assert set(np.cumsum(split.sentence_lengths)) <= set(token_P1)
    np.testing.assert_array_equal(token_P1[planned.document_pieces_D1], split.starts_D1)
    assert planned.first_N1[0] == 0 and planned.first_N1[-1] == len(token_P1) - 1
    assert len(planned) == len(planned.first_N1) - 1
    for first, last in pairwise(planned.first_N1):
        begin, end = token_P1[first], token_P1[last]
        assert begin < end <= split.starts_D1[split.document(begin) + 1]
        assert token_P1[last - 1] - begin < longest
        if not short:
            assert end - begin >= longest or end in split.starts_D1


def test_pieces_are_sentences_cut_every_seq_len_less_3():
    planned = plan_split(FakeSplit([[3, 25, 10], [7]]), "sop", seq_len=13, short=0.0)
    assert np.diff(planned.piece_starts_P1).tolist() == [3, 10, 10, 5, 10, 7]
    assert planned.first_N1.tolist() == [0, 2, 3, 5, 6]
    assert planned.lengths_N.tolist() == [13, 12, 13, 9]


@pytest.mark.parametrize("mode", MODES)
def test_plan_of_nothing_is_empty(mode):
    assert len(plan_split(FakeSplit([]), mode, seq_len=13)) == 0


@pytest.mark.parametrize("flaws", [False, True])
def test_plan_is_a_function_of_the_seed(flaws):
    split = FakeSplit([[5] * 40] * 20)
    first, second, other = (
        plan_split(split, "nsp", seq_len=32, short=0.5, seed=s, flaws=flaws).lengths_N for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert len(first) != len(other) or (first != other).any()


def test_short_targets_are_drawn_for_each_example():
    # Sentences of one token: a chunk is as long as its target.
    planned = plan_split(FakeSplit([[1] * 50_000] * 4), "nsp", seq_len=34, short=0.1)
    size_N = planned.lengths_N - 3
    short_N = size_N < 31
    # 0.1 x 29/30, because the uniform target may also be the longest; the standard error is below 0.004.
    assert len(short_N) > 6_000 and abs(short_N.mean() - 0.1 * 29 / 30) < 0.015
    assert size_N[short_N].min() == 2 and abs(size_N[short_N].mean() - 16) < 2
    assert 0 < short_N[:1000].mean() < 0.5, "one draw for the whole document"


def test_nsp_needs_two_documents():
    with pytest.raises(DataError, match=r"^data\.examples = 'nsp'.*only 1 document.*data\.examples = 'sop'"):
        plan_split(FakeSplit([[5, 5]]), "nsp", seq_len=32)
    assert len(plan_split(FakeSplit([[5, 5]]), "nsp", seq_len=32, flaws=True)) > 0
    for mode in MODES[1:]:
        assert len(plan_split(FakeSplit([[5, 5]]), mode, seq_len=32)) == 1


def test_a_separator_counts():
    # 5 + [SEP] + 5 + [CLS] + [SEP] = 13.
    for seq_len, expected in ((13, [13]), (12, [7, 7])):
        assert plan_split(FakeSplit([[5], [5]]), "full_sentences", seq_len=seq_len).lengths_N.tolist() == expected
