"""`bertjax.finetuning.inputs`: the parts of a run, dev apart from train, the same each time."""

import pytest
from finetuned import config_of, write_pieces

from bertjax.errors import DataError
from bertjax.finetuning.inputs import apart, encoded, part
from bertjax.labelled.records import Record


def table(path, rows):
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return (str(path),)


def test_dev_is_a_share_of_train_unless_it_is_named(tmp_path):
    train = table(tmp_path / "train.tsv", [(f"text {i}", "good") for i in range(50)])
    other = table(tmp_path / "other.tsv", [("other", "bad")])
    task = config_of("classify", task={"train": train, "dev_share": 0.2}).task
    kept, aside = part(task, "train"), part(task, "dev")
    assert len(aside) == 10 and len(kept) == 40 and part(task, "test") == []
    assert sorted(one.texts for one in kept + aside) == sorted((f"text {i}",) for i in range(50))
    assert [one.texts for one in kept] == sorted((one.texts for one in kept), key=lambda t: int(t[0].split()[1]))
    assert part(task, "dev") == aside
    task = config_of("classify", task={"train": train, "dev": other, "test": other}).task
    assert len(part(task, "train")) == 50
    assert [one.texts for name in ("dev", "test") for one in part(task, name)] == [("other",)] * 2


def records(labels):
    return [Record(f"FILE: line {i}", ("a",), label) for i, label in enumerate(labels)]


def test_some_are_left_on_both_sides():
    assert [len(side) for side in apart(records("ab"), 0.01)] == [1, 1]
    for count, share in ((1, 0.5), (0, 0.5), (2, 0.9)):
        with pytest.raises(DataError, match=f"task.dev = ..: of {count} examples not . can be kept apart; name a file"):
            apart(records("ab"[:count]), share)


def test_a_label_that_the_model_lacks_is_named(tmp_path):
    words, config = write_pieces(tmp_path / "vocab.txt"), config_of("classify")
    assert [one.label for one in encoded(config, words, records(["good", None, "bad"]))] == [1, -1, 0]
    with pytest.raises(DataError, match="FILE: line 1: the label 'god' is none of those of the model"):
        encoded(config, words, records(["good", "god"]))
    assert encoded(config_of("regress"), words, records(["2.5"]))[0].label == 2.5
