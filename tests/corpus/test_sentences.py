"""Sentences end where English ends them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.corpus.sentences import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left.", "She stayed!", '"Why?" he asked.', "Nobody knew..."],
        [
            "Dr. J. R. Smith of the U.S. Army met Mrs. Jones, e.g. at No. 5 St. James St. today.",
            "No.",
            "It was I.",
            "Yes.",
        ],
        ["It was (as ever) late.)", "2020 came.", "“Well,” said Mr. Pym.”", "‘Oh!’"],
        ["version 2.0 of x.y is out. it is lower-case"],
        ["In Sept. 1900 it rose 3.5 per cent.", "In Sept.", "The end."],
        ["Élan came first.", "Überall war Ruhe.", "«Oui.»", "“Non.”", "(Maybe.)", "[Or not?]"],
        ["It was in (the U.S.)", 'She said "Dr."', "Nobody came, J!", "Why?", "Because."],
        ["It ended. über-kurz it was not. — Nor was this."],
    ],
)
def test_sentences_are_split_where_english_ends_them(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["私は行く。", "彼は来ない！", "なぜ？！", "まだわからない"],
        ["「はい。」と彼は言った。", "（終わり。）それだけ。", "円は３．１４だ。"],
        ["他说：“走吧。”然后走了。", "好。", "The end.", "Really？", "是。"],
    ],
)
def test_stops_of_japanese_and_chinese_need_no_white_space(sentences):
    assert split_sentences("".join(sentences).replace("end.R", "end. R")) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["ذهب الرجل إلى البيت.", "هل عاد؟", "نعم، عاد!", "قال: «كيف حالك؟» ثم نام.", "التقى د. محمد بالوزير."],
        ["وہ گھر گیا۔", "کیا وہ آیا؟", "ہاں۔"],
        ["वह घर गया।", "क्या वह आया?", "हाँ॥", "यह डॉ. शर्मा हैं।"],
        ["Նա գնաց։", "Ինչո՞ւ։", "Չգիտեմ։"],
        ["ሰላም ነው።", "ደህና ነህ፧", "አዎ፡፡", "እሺ።"],
        ["그는 갔다.", "왜 갔을까?", "아무도 모른다."],
        ["הוא הלך.", "למה?", "לא ידוע."],
        ["კაცი წავიდა.", "რატომ?", "არ ვიცი."],
        ["မင်္ဂလာပါ။", "နေကောင်းလား။"],
        ["Он ушёл.", "Почему?", "Это было в 3.5 км. от дома."],
    ],
)
def test_the_stops_of_other_scripts_end_sentences(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


def test_a_quotation_mark_is_no_sentence():
    assert split_sentences('他说："走吧。"') == ['他说："走吧。"']
    assert split_sentences('قال: "كيف حالك؟" ثم نام. وعاد.') == ['قال: "كيف حالك؟" ثم نام.', "وعاد."]


@given(st.text(alphabet="aB1. !?\"'()\n\u00e9。！」؟ب।", max_size=60))
def test_splitting_loses_only_white_space(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@given(st.lists(st.sampled_from(["Dr. No", "He left", "in 1900", "the U.S. Army", "No. 5", "(so it is)"]), max_size=8))
def test_a_full_stop_and_a_capital_end_a_sentence(parts):
    """A sentence that is split by itself is split in the same way between others."""
    sentences = [f"X {part} was red." for part in parts]
    assert split_sentences(" ".join(sentences)) == sentences


def test_a_long_run_of_stops_takes_linear_time():
    begin = time.process_time()
    assert split_sentences("." * 300_000 + "x") == ["." * 300_000 + "x"]
    assert time.process_time() - begin < 5  # it takes 3 ms; a minute, if each stop begins a search
