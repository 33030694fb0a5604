"""Each data set is read by what its recipe says, whole; a file is read by its name; TFDS gives the same."""

import gzip
import importlib.util
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import ConfigError, DataError
from bertjax.labelled import labels
from bertjax.labelled.reading import digest, read
from bertjax.labelled.records import Answer, Record

RECIPES = Path(__file__).parents[2] / "configs" / "finetune"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_a_file_is_read_by_its_kind_and_name(tmp_path, capsys):
    rows = {"text": "a", "label": "b"}
    (tmp_path / "x.jsonl").write_text(json.dumps(rows))
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "x.tsv").write_text("text\tlabel\na\tb\n")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b'text,label\n"a",b\n'))
    (tmp_path / "named.txt").write_text(json.dumps(rows))
    task = TaskConfig(kind="classify")
    for name in ("x.jsonl", "x.json", "x.tsv", "x.csv.gz"):
        assert [(r.texts, r.label) for r in read(task, (str(tmp_path / name),))] == [(("a",), "b")]
    assert read(replace(task, format="jsonl"), (str(tmp_path / "named.txt"),))[0].label == "b"
    both = read(task, (str(tmp_path / "x.tsv"), str(tmp_path / "x.json")))
    assert [record.place for record in both] == [f"{tmp_path}/x.tsv: line 2", f"{tmp_path}/x.json: line 1"]
    assert capsys.readouterr().err == ""


def test_tags_and_questions_are_read_from_lines_of_json_too(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": ["a", "b"], "label": ["I-X", "O"]}\n')
    assert read(TaskConfig(kind="tag"), (str(path),))[0].tags == ("B-X", "O")
    assert "not IOB2" in capsys.readouterr().err
    path.write_text('{"question": "Who?", "context": "Me.", "answers": [{"text": "Me", "answer_start": 0}]}\n')
    assert read(TaskConfig(kind="span"), (str(path),))[0].answers == (Answer(0, "Me"),)
    (tmp_path / "x.json").write_text(
        '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": []}]}]}]}'
    )
    assert read(TaskConfig(kind="span"), (str(tmp_path / "x.json"),))[0].answers == ()
    (tmp_path / "x").write_text("a O\n")
    assert read(TaskConfig(kind="tag"), (str(tmp_path / "x"),))[0].tags == ("O",)


def test_a_format_that_a_kind_does_not_have(tmp_path):
    for kind, form in (("tag", "table"), ("span", "conll"), ("classify", "squad")):
        with pytest.raises(ConfigError, match=f"^task.format = '{form}': {kind} is read from"):
            read(TaskConfig(kind=kind, format=form), (str(tmp_path),))


def test_no_examples_and_no_file(tmp_path):
    with pytest.raises(DataError, match=r"^task.dev = \(\): has no examples"):
        read(TaskConfig(kind="classify", train=("x",)), ())
    with pytest.raises(DataError, match="x.tsv: cannot be read"):
        read(TaskConfig(kind="classify"), (str(tmp_path / "x.tsv"),))


def test_empty_texts_are_said(tmp_path, capsys):
    (tmp_path / "x.tsv").write_text("text\tlabel\na\t1\n\t1\n \t0\n")
    assert len(read(TaskConfig(kind="classify"), (str(tmp_path / "x.tsv"),))) == 3
    assert capsys.readouterr().err == f"{tmp_path}/x.tsv: line 3 and 1 more: an empty text\n"


def test_the_digest_is_of_all_but_the_place():
    record = Record("a", ("x", "y"), "1", ("O",), (Answer(0, "x"),), "id")
    assert digest([record]) == digest([replace(record, place="b")])
    others = [
        replace(record, texts=("xy",)),
        replace(record, label="2"),
        replace(record, label=None),
        replace(record, tags=("B-X",)),
        replace(record, answers=(Answer(1, "x"),)),
        replace(record, answers=()),
        replace(record, name="id2"),
    ]
    assert len({digest(records) for records in ([record], [record, record], [], *([r] for r in others))}) == 10


# The data sets

CASES = [
    ("glue:cola", "glue/cola", {"train.tsv": 8_551, "dev.tsv": 1_043}, {"0", "1"}),
    ("glue:sst2", "glue/sst2", {"train.tsv": 60_614, "dev.tsv": 6_735, "test.tsv": 872}, {"0", "1"}),
    ("glue:stsb", "glue/stsb", {"train.tsv": 5_749, "dev.tsv": 1_500}, None),
    ("glue:rte", "glue/rte", {"train.tsv": 1_244, "dev.tsv": 139}, {"entailment", "not_entailment"}),
    ("glue:qnli", "glue/qnli", {"dev.tsv": 2_461}, {"entailment", "not_entailment"}),
    (
        "classify:agnews",
        "text/agnews",
        {"dev.tsv": 10_001, "test.tsv": 7_600},
        {"World", "Sports", "Business", "Sci/Tech"},
    ),
    (
        "classify:trec",
        "text/trec",
        {"train.txt": 5_452, "test.txt": 500},
        {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"},
    ),
    ("squad:v1", "squad/v1", {"train.json": 11_877, "dev.json": 4_961}, None),
    ("squad:v2", "squad/v2", {"dev.json": 3_782}, None),
    ("ner", "ner/wnut17", {"train.conll": 3_394, "dev.conll": 1_009, "test.conll": 1_287}, None),
    ("ner", "ner/wikiann", {"train": 20_000, "dev": 10_000, "test": 10_000}, None),
]


def shared(path):
    if not (SHARED / path).exists():
        pytest.skip(f"../shared/data/{path} is absent")
    return SHARED / path


def recipe(name):
    """The section `task` of a recipe, "FILE:ARGUMENT"."""
    file, _, argument = name.partition(":")
    spec = importlib.util.spec_from_file_location(file, RECIPES / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return TaskConfig(**module.get_config(*filter(None, [argument])).task)


@pytest.mark.parametrize(("name", "folder", "counts", "known"), CASES, ids=[case[1] for case in CASES])
def test_data_sets_are_read_whole_by_their_recipes(name, folder, counts, known):
    for file, count in counts.items():
        records = read(recipe(name), (str(shared(f"{folder}/{file}")),))
        assert len(records) == count and all(record.labelled for record in records)
        if known:
            assert {record.label for record in records} == known
            assert set(labels.found(records)) == known


def test_the_quirks_of_the_data_sets(capsys):
    stsb = read(recipe("glue:stsb"), (str(shared("glue/stsb/train.tsv")),))
    assert all(0 <= float(record.label) <= 5 for record in stsb)
    assert "line 5553 and 196 more: has 9 columns where line 1 has 7" in capsys.readouterr().err
    trec = read(recipe("classify:trec"), (str(shared("text/trec/train.txt")),))
    assert trec[0].texts == ("How did serfdom develop in and then leave Russia ?",) and trec[0].label == "DESC"
    assert "Latin-1" in capsys.readouterr().err
    assert not any("\ufffd" in record.texts[0] for record in trec)
    news = read(recipe("classify:agnews"), (str(shared("text/agnews/dev.tsv")),))
    assert not any(record.texts[0].startswith('"') and record.texts[0].endswith('"') for record in news[:1000])
    assert '<A HREF="http' not in news[14].texts[0] and '&lt;A HREF="http' in news[14].texts[0]  # as it is written
    squad = read(recipe("squad:v2"), (str(shared("squad/v2/dev.json")),))
    assert sum(record.answers == () for record in squad) == 2_014
    capsys.readouterr()
    wikiann = read(recipe("ner"), (str(shared("ner/wikiann/train")),))
    assert wikiann[0].texts[:2] == ("R.H.", "Saunders")
    assert sum(":" in word for record in wikiann for word in record.texts) == 1_467
    assert capsys.readouterr().err.count("\n") == 1  # the language; the tags are IOB2
    assert Counter(labels.found(wikiann)) == Counter(["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"])


# TFDS

FEATURES = tfds.features
SPLITS = {
    "pairs": (
        {"question": FEATURES.Text(), "sentence": FEATURES.Text(), "idx": np.int32}
        | {"label": FEATURES.ClassLabel(names=["entailment", "not_entailment"])},
        {"question": "Where?", "sentence": "Hére.", "idx": 7, "label": 1},
        {"question": "When?", "sentence": "Now.", "idx": 8, "label": -1},
    ),
    "numbers": (
        {"sentence1": FEATURES.Text(), "sentence2": FEATURES.Text(), "label": np.float32},
        {"sentence1": "a", "sentence2": "b", "label": 2.5},
        {"sentence1": "a", "sentence2": "b", "label": 0.0},
    ),
    "tags": (
        {"tokens": FEATURES.Sequence(FEATURES.Text())}
        | {"ner": FEATURES.Sequence(FEATURES.ClassLabel(names=["O", "B-PER", "I-PER"]))},
        {"tokens": ["I", "am", "Zoë"], "ner": [0, 0, 1]},
        {"tokens": ["No"], "ner": [0]},
    ),
    "questions": (
        {"id": np.str_, "title": FEATURES.Text(), "context": FEATURES.Text(), "question": FEATURES.Text()}
        | {"is_impossible": np.bool_}
        | {"answers": FEATURES.Sequence({"text": FEATURES.Text(), "answer_start": np.int32})},
        {"id": "q1", "title": "", "context": "The café is Zoë's.", "question": "Whose?", "is_impossible": False}
        | {"answers": [{"text": "Zoë", "answer_start": 12}, {"text": "Zoë's", "answer_start": 12}]},
        {"id": "q2", "title": "", "context": "No.", "question": "Whose?", "is_impossible": True, "answers": []},
    ),
}


class BertjaxLabelled(tfds.core.GeneratorBasedBuilder):
    """Features as those of glue, conll2003 and squad."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in SPLITS]

    def _info(self):
        features = FEATURES.FeaturesDict(SPLITS[self.builder_config.name][0])
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from enumerate(SPLITS[self.builder_config.name][1:])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(path))
        yield path


def test_features_as_of_glue(data_dir):
    task = TaskConfig(kind="classify", text="question", pair="sentence")
    with pytest.raises(DataError, match="record 1: has no label in column 'label'"):
        read(task, ("tfds:bertjax_labelled/pairs[train]",))
    records = read(task, ("tfds:bertjax_labelled/pairs[train]",), labelled=False)
    assert [(r.texts, r.label) for r in records] == [
        (("Where?", "Hére."), "not_entailment"),
        (("When?", "Now."), None),
    ]
    assert records[1].place == f"tfds:{data_dir}/bertjax_labelled/pairs/1.0.0[train]: record 1"
    task = TaskConfig(kind="regress", text="sentence1", pair="sentence2")
    assert [r.label for r in read(task, ("tfds:bertjax_labelled/numbers[train]",))] == ["2.5", "0.0"]


def test_features_as_of_conll2003_and_squad(data_dir):
    task = TaskConfig(kind="tag", text="tokens", label="ner")
    records = read(task, ("tfds:bertjax_labelled/tags",))
    assert [(r.texts, r.tags) for r in records] == [(("I", "am", "Zoë"), ("O", "O", "B-PER")), (("No",), ("O",))]
    records = read(TaskConfig(kind="span"), ("tfds:bertjax_labelled/questions[train]",))
    assert [(r.name, r.answers) for r in records] == [("q1", (Answer(12, "Zoë"), Answer(12, "Zoë's"))), ("q2", ())]


def test_wrong_columns_and_splits_of_tfds_are_named_by_their_field(data_dir):
    task = TaskConfig(kind="classify", text="question", dev=("tfds:bertjax_labelled/pairs[dev]",))
    with pytest.raises(DataError, match=r"^task.dev = 'tfds:.*\[dev\]': no split 'dev'"):
        read(task, task.dev)
    with pytest.raises(DataError, match="^task.train = 'tfds:bertjax_labelle': TFDS has no data set"):
        read(task, ("tfds:bertjax_labelle",))
    with pytest.raises(ConfigError, match="^task.text = 'sentense': .* no such column; .* nearest is 'sentence'"):
        read(replace(task, text="sentense"), ("tfds:bertjax_labelled/pairs",))
