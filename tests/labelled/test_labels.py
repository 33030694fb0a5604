"""Labels in their order; those that are unknown are named; all spellings of tags tell the same names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import DataError
from bertjax.labelled.labels import bio, check, found, is_chunks
from bertjax.labelled.records import Record


def labelled(*names):
    return [Record(f"f: line {i}", ("text",), label=name) for i, name in enumerate(names, 1)]


def tagged(*sentences):
    return [Record(f"f: line {i}", ("w",) * len(tags), tags=tags) for i, tags in enumerate(sentences, 1)]


def test_labels_are_sorted_and_numbers_as_numbers():
    assert found(labelled("b", "a", "b")) == ("a", "b")
    assert found(labelled("10", "2", "-1", "1.5", "x", "2", "inf")) == ("-1", "1.5", "2", "10", "inf", "x")
    assert found([*labelled("b", "a"), Record("f: line 9", ("unlabelled",))]) == ("a", "b")


def test_tags_begin_with_o_and_keep_their_pairs():
    assert found(tagged(("B-PER", "I-PER"), ("B-LOC",))) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert found(tagged(("NOUN", "VERB"), ("DET",))) == ("DET", "NOUN", "VERB")
    assert found(tagged(("O", "I-creative-work"))) == ("O", "B-creative-work", "I-creative-work")


def test_one_label_is_nothing_to_tell_apart():
    with pytest.raises(DataError, match="^f: all have the label 'a'; .*check task.label"):
        found(labelled("a", "a"))
    with pytest.raises(DataError, match="none has a label"):
        found([Record("f: line 1", ("text",))])


def test_an_unknown_label_is_named_with_the_nearest():
    check(labelled("good", "bad"), ("bad", "good", "other"), "the model")
    check([Record("f: line 1", ("text",))], ("a", "b"), "the model")
    with pytest.raises(DataError, match="^f: line 2: the label 'goood' is none of train .bad, good.; .*'good'$"):
        check(labelled("bad", "goood"), ("bad", "good"), "train")
    with pytest.raises(DataError, match="'B-ORG' is none of the model .O, B-PER, I-PER."):
        check(tagged(("O", "B-ORG")), ("O", "B-PER", "I-PER"), "the model")
    with pytest.raises(DataError, match=r"0, 1, .*, 11, … \(99 in all\)"):
        check(labelled("x"), tuple(map(str, range(99))), "the model")


NAMES = ["O", "B-X", "I-X", "B-X", "B-Y", "I-Y", "I-Y", "O", "B-X"]  # as IOB2


@pytest.mark.parametrize(
    "spelled",
    [
        "O B-X I-X B-X B-Y I-Y I-Y O B-X",
        "O I-X I-X B-X I-Y I-Y I-Y O I-X",
        "O B-X E-X S-X B-Y I-Y E-Y O S-X",
        "O B-X L-X U-X B-Y I-Y L-Y O U-X",
        "O B-X E-X S-X B-Y M-Y E-Y O S-X",
    ],
    ids=["IOB2", "IOB1", "BIOES", "BILOU", "BMES"],
)
def test_all_spellings_tell_the_same_names(spelled):
    assert bio(spelled.split()) == tuple(NAMES)


def test_a_name_ends_where_its_last_word_says():
    assert bio(["B-X", "E-X", "I-X", "U-X", "L-X", "S-X", "I-X"]) == ("B-X", "I-X", "B-X", "B-X", "B-X", "B-X", "B-X")


@given(st.lists(st.sampled_from(["O", *(f"{place}-{kind}" for place in "BIESLUM" for kind in "XY")])))
def test_iob2_is_what_comes_out(tags):
    result = bio(tags)
    assert bio(result) == result and len(result) == len(tags)
    for before, tag in zip(("O", *result), result, strict=False):
        assert tag[0] != "I" or before in (f"B-{tag[2:]}", tag)


def test_a_tag_of_no_scheme_is_told():
    for tag in ("PER", "B-", "o", "", "X-PER"):
        with pytest.raises(ValueError, match=f"^{tag}$"):
            bio(["O", "B-PER", tag])
    assert is_chunks(["O", "I-X"]) and not is_chunks(["O", "NOUN", "B-"])
