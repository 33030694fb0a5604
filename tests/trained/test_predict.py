"""What a fine-tuned model says of texts: its own logits on each alone, read by plain rules; mistakes in one line."""

import threading
from dataclasses import replace

import jax
import numpy as np
import pytest
from finetuned import LABELS, LETTERS, PIECES, config_of, params_of, write_pieces

from bertjax.config.schema import ComputeConfig, TaskConfig
from bertjax.errors import DataError, NumericError
from bertjax.labelled.encode import encode
from bertjax.labelled.records import Record
from bertjax.trained import inference
from bertjax.trained.inference import Loaded
from bertjax.trained.predict import Chosen, Entity, Scored, Tagged, kind_of

TAGS = LABELS["tag"]
TEXTS = ["ab c", "c", "Ab  cd ef", "", "x y z " * 30, "é ü", "c"] * 6  # more than run at once


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_pieces(tmp_path_factory.mktemp("words") / "vocab.txt")


def model_of(words, kind, labels=None, task=TaskConfig(), seq_len=0, **model):  # noqa: B008
    labels = LABELS[kind] if labels is None else labels
    config = config_of(kind, model={"labels": labels, **model}).model
    return Loaded(config, ComputeConfig(), params_of(config), words, frozenset(config.heads), task, seq_len)


def ids(words, text):
    return words.encode_batch([text])[0].tolist()


def logits(model, output, first, second=None):
    """Of [CLS] first [SEP], or [CLS] first [SEP] second [SEP], by the model on these tokens alone."""
    tokens, types = [2, *first, 3], [0] * (len(first) + 2)
    if second is not None:
        tokens, types = [*tokens, *second, 3], types + [1] * (len(second) + 1)
    return getattr(model([tokens], [types], outputs=[output]), output)[0]


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


# Labels and numbers -------------------------------------------------------------------------------------------------


def test_a_text_has_the_label_of_its_largest_logit(words):
    model = model_of(words, "classify")
    labels = model.config.labels
    found = model.classify(text for text in TEXTS)
    assert len(found) == len(TEXTS) and kind_of(model) == "classify"
    for text, one in list(zip(TEXTS, found, strict=True))[:7]:
        expected = softmax(logits(model, "class_logits", ids(words, text)[:30]))  # as long as the model takes
        assert list(one.scores) == list(labels) and sum(one.scores.values()) == pytest.approx(1.0)
        np.testing.assert_allclose(list(one.scores.values()), expected, atol=1e-5)
        assert one.label == labels[expected.argmax()]
    assert len({one.label for one in found}) > 1  # else this would say little
    for i, one in enumerate(found):
        assert one.label == found[i % 7].label
    assert model.classify([]) == []


def test_a_pair_is_read_as_one_row_of_two_texts(words):
    model = model_of(words, "classify", ("no", "yes"))
    firsts, seconds = ["ab", "c d", ""], ["c", "ab ef", "x"]
    for first, second, one in zip(firsts, seconds, model.classify(firsts, seconds), strict=True):
        expected = softmax(logits(model, "class_logits", ids(words, first), ids(words, second)))
        np.testing.assert_allclose(list(one.scores.values()), expected, atol=1e-5)
    other = model_of(words, "classify", ("no", "yes"), token_types=0)  # as DistilBERT
    assert other.classify(firsts, seconds)[0] != other.classify(seconds, firsts)[0]


def test_a_model_of_regression_gives_its_number(words):
    model = model_of(words, "regress")
    found = model.classify(TEXTS[:3], TEXTS[1:4])
    assert kind_of(model) == "regress"
    for first, second, one in zip(TEXTS, TEXTS[1:], found, strict=False):
        expected = logits(model, "class_logits", ids(words, first), ids(words, second))
        assert one == Scored(pytest.approx(float(expected[0]), abs=1e-5))


def test_rows_are_as_long_as_those_of_the_training(words):
    model = model_of(words, "classify", ("no", "yes"), TaskConfig(kind="classify"), seq_len=8)
    cut, whole = (model.classify([" ".join(LETTERS[:n])]) for n in (6, 20))
    assert [one.label for one in cut] == [one.label for one in whole]
    np.testing.assert_allclose(*(list(found[0].scores.values()) for found in (cut, whole)), atol=1e-6)


def test_a_known_task_has_pairs_or_not(words):
    single, paired = (
        model_of(words, "classify", ("no", "yes"), TaskConfig(kind="classify", train=("x",), pair=pair))
        for pair in ("", "second")
    )
    assert single.classify(["a"]) and paired.classify(["a"], ["b"])
    with pytest.raises(DataError, match="trained on single texts .task.pair = ''.; give no second ones"):
        single.classify(["a"], ["b"])
    with pytest.raises(DataError, match="trained on pairs .task.pair = 'second'.; give the second texts"):
        paired.classify(["a"])


# Endings ------------------------------------------------------------------------------------------------------------


def test_the_ending_with_the_largest_logit_is_chosen(words):
    """Each has the room that it had in training, whatever other questions are asked, and however many endings."""
    task = TaskConfig(kind="choice", train=("x",), endings=("a", "b"))
    model = model_of(words, "choice", task=task, seq_len=32)
    texts = ["a b", "c", "", "a b"]
    endings = [["d", "e f", "g" * 20], ["h", "i"], ["j k", "l", "m"], ["d", "e f", "g" * 20]]
    found = model.choose(texts, endings)
    assert kind_of(model) == "choice" and found[0].ending == found[3].ending
    for text, its, one in zip(texts, endings, found, strict=True):
        rows = [(ids(words, text), ids(words, ending)) for ending in its]
        rows = [(first, second[: 16 - 3 - len(first)]) for first, second in rows]
        expected = softmax(np.array([logits(model, "class_logits", *row)[0] for row in rows]))
        np.testing.assert_allclose(one.scores, expected, atol=1e-5)
        assert one.ending == expected.argmax()
    assert len({one.ending for one in found}) > 1 and isinstance(found[0], Chosen)
    assert model.choose([], []) == []


# Tags ---------------------------------------------------------------------------------------------------------------


def tags_by_hand(model, words, sentence):
    """Of each word, the largest logit of its first piece; in as many rows as hold the sentence."""
    rows, row = [], []
    for word in sentence:
        pieces = ids(words, word) or [1]
        if row and sum(map(len, row)) + len(pieces) > model.seq_len - 2:
            rows.append(row)
            row = []
        row.append(pieces[: model.seq_len - 2])
    tags = []
    for pieces in [*rows, row]:
        found = logits(model, "tag_logits", sum(pieces, []))
        at = 1 + np.cumsum([0, *map(len, pieces)])[:-1]
        tags += [model.config.labels[i] for i in found[at].argmax(axis=-1)]
    return tags


def test_every_word_has_a_tag_in_its_place(words):
    model = model_of(words, "tag", task=TaskConfig(kind="tag"), seq_len=12)
    sentences = ["Anna  lebt\tin rom.", "x", "", " \n", "abcdefghijklmnopqrstuvwxyz ab " * 5, "a\u200b \u200b \ufeff b"]
    sentences += [["new york", "is", "big"], [], ["\u200b"]]
    found = model.tag(sentences * 5)
    assert kind_of(model) == "tag" and len(found) == 45
    for sentence, one in zip(sentences, found, strict=False):
        split = sentence.split() if isinstance(sentence, str) else sentence
        assert one.words == split and len(one.tags) == len(split)
        if split:
            assert one.tags == tags_by_hand(model, words, split)
    assert [one.tags for one in found[9:18]] == [one.tags for one in found[:9]]
    assert len({tag for one in found for tag in one.tags}) > 2
    assert model.tag([]) == []


def test_logits_are_those_of_the_tokens_of_an_example_however_long_the_others_are(words):
    model = model_of(words, "tag")
    records = [Record("", tuple("abc"[:n])) for n in (3, 1, 2)]
    examples = encode(records, TaskConfig(kind="tag"), TAGS, words, seq_len=32, token_types=True)
    assert [len(found) for found in model.logits("tag_logits", examples)] == [5, 3, 4]


def test_entities_are_runs_of_tags_with_their_characters(words, monkeypatch):
    """By tags and probabilities that are given: each word says which."""
    model = model_of(words, "tag")

    def said(self, output, examples):
        assert output == "tag_logits"
        found = []
        for example in examples:
            rows = np.zeros((len(example.tokens), len(TAGS)), np.float32)
            for i, word in enumerate(example.words):
                if word >= 0:
                    rows[i, PIECES.index(words.pieces[example.tokens[i]]) - 5] = np.log(4.0)  # a = O, b = B-LOC, ...
            found.append(rows)
        return found

    monkeypatch.setattr(Loaded, "logits", said)
    text = "ax  bx\u00a0cx a d e\tc\ncz b"
    (one, listed) = model.tag([text, ["bx y", "c", "a", "e"]])
    assert one.tags == ["O", "B-LOC", "I-LOC", "O", "B-PER", "I-PER", "I-LOC", "I-LOC", "B-LOC"]
    probability = pytest.approx(0.5)
    assert one.entities == [
        Entity("LOC", "bx\u00a0cx", 4, 9, probability),
        Entity("PER", "d e", 12, 15, probability),
        Entity("LOC", "c\ncz", 16, 20, probability),
        Entity("LOC", "b", 21, 22, probability),
    ]
    assert all(text[each.start : each.end] == each.text for each in one.entities)
    assert listed == Tagged(
        ["bx y", "c", "a", "e"],
        ["B-LOC", "I-LOC", "O", "I-PER"],
        [Entity("LOC", "bx y c", 0, 6, probability), Entity("PER", "e", 9, 10, probability)],
    )


# Answers ------------------------------------------------------------------------------------------------------------

QUESTION = "who?"
CONTEXT = "Ab cdéf. gh ij kl mn op."


def spans_by_hand(model, words, question, context, most):
    """Text -> start and score, of every span of tokens of a context that fits into a row."""
    first, (tokens, _, places) = ids(words, question), words.encode_places([context])
    found = logits(model, "span_logits", first, tokens.tolist()).astype(np.float64)
    at, spans = len(first) + 2, {}
    for i in range(len(tokens)):
        for j in range(i, min(i + most, len(tokens))):
            text, score = context[places[i, 0] : places[j, 1]], found[at + i, 0] + found[at + j, 1]
            if text not in spans or spans[text][1] < score:
                spans[text] = int(places[i, 0]), score
    return spans, found[0].sum()


def test_the_answer_is_the_best_span_of_the_context(words):
    model = model_of(words, "span", task=TaskConfig(kind="span", max_answer=3, best_answers=100), seq_len=32)
    spans, null = spans_by_hand(model, words, QUESTION, CONTEXT, most=3)
    ((text, (start, score)),) = sorted(spans.items(), key=lambda item: -item[1][1])[:1]
    (found,) = model.answer([QUESTION], [CONTEXT])
    assert kind_of(model) == "span"
    assert (found.text, found.start, found.end) == (text, start, start + len(text))
    assert CONTEXT[found.start : found.end] == text
    scores = np.array([one for _, one in spans.values()])
    assert found.score == pytest.approx(np.exp(score - score) / np.exp(scores - score).sum(), rel=1e-4)
    (none,) = model.answer([QUESTION], [CONTEXT], null_threshold=null - score - 0.1)
    assert (none.text, none.start, none.end) == ("", -1, -1)
    with_none = np.exp(null - score) / (np.exp(scores - score).sum() + np.exp(null - score))
    assert none.score == pytest.approx(with_none, rel=1e-4)
    assert model.answer([QUESTION], [CONTEXT], null_threshold=null - score + 0.1)[0].text == text


@pytest.mark.parametrize(("unanswerable", "lacks"), [("auto", False), ("no", False), ("yes", True)])
def test_a_model_that_learnt_it_may_find_no_answer(words, unanswerable, lacks):
    task = TaskConfig(kind="span", unanswerable=unanswerable, null_threshold=-1e6)
    model = model_of(words, "span", task=task, seq_len=32)
    (found,) = model.answer([QUESTION], [CONTEXT])
    assert (found.text == "") == lacks


def test_a_long_context_is_read_in_windows(words, monkeypatch):
    """The one token that is the answer is found wherever it stands, and at its characters."""
    task = TaskConfig(kind="span", stride=5, max_question=4)
    model = model_of(words, "span", task=task, seq_len=20)
    q = PIECES.index("q")

    def said(self, output, examples):
        return [np.stack([5.0 * (one.tokens == q) * (one.offsets[:, 0] >= 0)] * 2, axis=-1) for one in examples]

    monkeypatch.setattr(Loaded, "logits", said)
    contexts = [" ".join(["ab"] * n + ["q"] + ["cd"] * (40 - n)) for n in range(41)]
    found = model.answer(["q q q q q q q"] * 41, contexts)
    assert [(one.text, one.start) for one in found] == [("q", 3 * n) for n in range(41)]
    assert model.answer(["a", ""], ["", "q"])[0].text == "" and model.answer([], []) == []


def test_a_question_leaves_room_for_the_context(words):
    """In a model whose positions are fewer than `task.max_question` supposes."""
    model = model_of(words, "span")
    found = model.answer(["a b c d e f g h i j k l m n o p q r s t u v w x y z a b c"], ["ab cd " * 20])
    assert found[0].text


# Any model ----------------------------------------------------------------------------------------------------------


def test_threads_get_their_own_answers(words):
    model = model_of(words, "classify")
    texts = [[LETTERS[i] * (i + 1)] * (i % 2 + 1) for i in range(6)]
    expected, found = [model.classify(each) for each in texts], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: model.classify(texts[i])})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(6)] == expected


def test_few_shapes_are_compiled(words, monkeypatch):
    """No batch has another shape than those of which `Loaded` tells."""
    model, shapes, run = model_of(words, "classify", ("no", "yes")), set(), Loaded._run

    def counted(self, wanted, tokens_BL, *rest):
        shapes.add(tokens_BL.shape[0])
        return run(self, wanted, tokens_BL, *rest)

    monkeypatch.setattr(Loaded, "_run", counted)
    model.classify(TEXTS)
    assert max(shapes) == inference.ROWS


def test_a_question_that_a_model_cannot_answer_is_one_line(words):
    classes, regress, choice = (model_of(words, kind) for kind in ("classify", "regress", "choice"))
    tagger, span = model_of(words, "tag"), model_of(words, "span")
    bare = replace(tagger, heads=frozenset({"mlm_head", "pooler"}))
    for ask, named in (
        (
            lambda: classes.tag(["a"]),
            "tag: this model has no tagger; its heads are classifier, pooler; fine-tune one with",
        ),
        (lambda: classes.answer(["a"], ["b"]), "answer: this model has no span_head"),
        (lambda: classes.choose(["a"], [["b", "c"]]), "choose: .*task.kind = classify.; ask it by .classify"),
        (lambda: regress.choose(["a"], [["b", "c"]]), "choose: .*task.kind = regress.; ask it by .classify"),
        (lambda: choice.classify(["a"]), "classify: .*task.kind = choice.; ask it by .choose"),
        (lambda: tagger.classify(["a"]), "classify: this model has no classifier"),
        (lambda: kind_of(bare), "answers nothing: its heads are mlm_head, pooler; fine-tune one"),
        (lambda: kind_of(replace(bare, heads=frozenset())), "answers nothing: its heads are none"),
        (lambda: replace(classes, tokenizer=None).classify(["a"]), "classify: .*without a tokenizer"),
        (lambda: classes.classify("a text"), "classify: takes a list of str"),
        (lambda: classes.classify(["a"], "b"), "classify: takes a list of str"),
        (lambda: classes.classify(["a"], ["b", "c"]), "classify: 1 texts and 2 pairs; give one for each"),
        (lambda: classes.classify(["a\ud800"]), "classify: .*half a character"),
        (lambda: choice.choose(["a"], "b"), "choose: takes a list; put a single text into one"),
        (lambda: choice.choose(["a"], ["bc"]), "choose: takes a list of str"),
        (lambda: choice.choose(["a"], [["b"]]), "choose: text 0 has 1 endings; give two or more"),
        (lambda: choice.choose(["a"], []), "choose: 1 texts and 0 lists of endings"),
        (lambda: tagger.tag("a text"), "tag: takes a list; put a single text into one"),
        (lambda: tagger.tag([["a", 3]]), "tag: takes a list of str"),
        (lambda: tagger.tag(["a \ud800"]), "tag: .*half a character"),
        (lambda: span.answer(["a"], ["b", "c"]), "answer: 1 questions and 2 contexts"),
    ):
        with pytest.raises(DataError, match=named) as error:
            ask()
        assert len(str(error.value).splitlines()) == 1


def test_what_is_no_number_is_an_error(words):
    model = model_of(words, "classify", ("no", "yes"))
    broken = replace(model, params=jax.tree.map(lambda x: x * np.nan, model.params))
    with pytest.raises(NumericError, match="text 0: what the model says of it is no number"):
        broken.classify(["a"])
