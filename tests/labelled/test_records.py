"""A record knows whether it has what is to be learnt."""

from bertjax.labelled.records import Answer, Record


def test_a_record_without_a_label_is_not_labelled():
    assert not Record("f", ("a",)).labelled
    assert Record("f", ("a",), label="x").labelled
    assert Record("f", ("a",), tags=("O",)).labelled
    assert Record("f", ("q", "c"), answers=()).labelled  # known to have no answer
    assert Record("f", ("q", "c"), answers=(Answer(0, "c"),)).labelled
