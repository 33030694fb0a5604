"""Parquet files and TFDS data sets give the texts of one field, and refuse what is not theirs."""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

from bertjax.config.schema import DataConfig
from bertjax.corpus import tables
from bertjax.corpus import units as corpus
from bertjax.corpus.units import documents, units
from bertjax.data import dataset
from bertjax.errors import DataError


def read(source, **fields):
    counts = Counter()
    found = list(documents(DataConfig(source=(str(source),), **fields), counts))
    assert (counts.pop("documents"), counts.pop("sentences")) == (len(found), sum(map(len, found)))
    return found, dict(counts)


def refused(source, **fields):
    """The message of the DataError that `units` raises."""
    with pytest.raises(DataError) as caught:
        units(DataConfig(source=(str(source),), **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Parquet


def write_parquet(path, column, **options):
    table = pyarrow.table({"id": pyarrow.array(range(len(column))), "body": column})
    pyarrow.parquet.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "dictionary"])
def test_parquet_texts_are_documents_of_paragraphs(tmp_path, kind):
    texts = ["One is here. Two is\nthere.\n", None, "", "Three.", "nul \0here"]
    column = pyarrow.array(texts)
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(getattr(pyarrow, kind)())
    found, counts = read(write_parquet(tmp_path / "x.parquet", column), text_field="body")
    assert found == [["One is here.", "Two is", "there."], ["Three."], ["nul here"]]
    assert counts == {"bad_rows": 1, "empty_documents": 1, "nul_lines": 1}


def test_parquet_bytes_that_are_not_utf8_are_windows_1252(tmp_path):
    path = write_parquet(tmp_path / "file", pyarrow.array([b"caf\xe9"]))
    assert read(path, text_field="body", format="parquet") == ([["café"]], {"bad_utf8_lines": 1})


def test_row_groups_are_units(tmp_path, monkeypatch):
    texts = [f"Text {i}." for i in range(1000)]
    path = write_parquet(tmp_path / "x.parquet", pyarrow.array(texts), row_group_size=100)
    data = DataConfig(source=(str(path),), text_field="body")
    assert len(units(data)) == 1
    monkeypatch.setattr(corpus, "UNIT_BYTES", 2000)
    cuts = [(part.start, part.end) for unit in units(data) for part in unit.parts]
    assert cuts == [(i, i + 1) for i in range(10)]
    assert 3 <= len(units(data)) < 10
    found = [document for unit in units(data) for document in corpus.read(unit, data, Counter())]
    assert found == [[text] for text in texts]


def test_a_parquet_file_of_another_kind_is_refused(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", pyarrow.array([1, 2]))
    message = refused(path)
    assert "data.text_field = 'text'" in message and "id, body" in message
    with pytest.raises(DataError, match="bad_rows: 2.*row 0 of row group 0: no text under 'body'"):
        read(path, text_field="body")
    (tmp_path / "y.parquet").write_bytes(b"no parquet at all")
    assert "y.parquet: not a whole Parquet file" in refused(tmp_path / "y.parquet")


def test_a_damaged_parquet_page_is_named(tmp_path):
    options = {"write_page_checksum": True, "use_dictionary": False, "compression": "none"}
    path = write_parquet(tmp_path / "x.parquet", pyarrow.array(["text " * 1000] * 9), **options)
    found = documents(DataConfig(source=(str(path),), text_field="body"))
    path.write_bytes(path.read_bytes().replace(b"text text", b"test text", 1))
    with pytest.raises(DataError, match=r"x.parquet: not a whole Parquet file.*checksum"):
        list(found)


def test_a_row_group_is_not_read_at_once(tmp_path):
    texts = [f"{i} ".ljust(10_000, "x") for i in range(4000)]
    path = write_parquet(tmp_path / "x.parquet", pyarrow.array(texts), use_dictionary=False, compression="none")
    found = documents(DataConfig(source=(str(path),), text_field="body"))
    assert next(found) == [texts[0]]
    assert pyarrow.total_allocated_bytes() < 20_000_000
    assert sum(1 for _ in found) == 3999


# TFDS

TEXTS = [f"Text {i} is here. It ends.\nWith this.".encode() for i in range(40)] + [b"", b"caf\xe9 \0here"]


class BertjaxTexts(tfds.core.GeneratorBasedBuilder):
    """A data set whose preparation can be made to fail."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("good", "bad")]

    def _info(self):
        features = {"body": tfds.features.Text(), "type": tfds.features.Scalar(dtype=np.int64)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(TEXTS), "test": self._generate_examples([b"A test."])}

    def _generate_examples(self, texts):
        if self.builder_config.name == "bad":
            raise OSError("no network\nhere")
        for key, text in enumerate(texts):
            yield key, {"body": text, "type": key}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """TFDS_DATA_DIR, in which the data set is prepared by the first use of its name."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("tfds")
        patch.setenv("TFDS_DATA_DIR", str(path))
        units(DataConfig(source=("tfds:bertjax_texts",), text_field="body"))
        yield path


@pytest.fixture(scope="module")
def prepared(data_dir):
    return data_dir / "bertjax_texts" / "good" / "1.0.0"


def test_a_named_data_set_is_prepared_and_read_without_tensorflow(data_dir, prepared):
    found, counts = read("tfds:bertjax_texts/good:1.0.0", text_field="body")
    assert (prepared / "features.json").is_file()
    assert found[:40] == [[f"Text {i} is here.", "It ends.", "With this."] for i in range(40)]
    assert found[40:] == [["café here"]]
    assert counts == {"empty_documents": 1, "bad_utf8_lines": 1, "nul_lines": 1}
    assert read("tfds:bertjax_texts[test]", text_field="body") == ([["A test."]], {})
    assert "tensorflow" not in sys.modules


def test_a_unit_names_the_directory(data_dir, prepared, monkeypatch):
    """A process that reads a unit needs neither the code of the data set nor the environment."""
    monkeypatch.setattr(corpus, "UNIT_BYTES", 300)
    data = DataConfig(source=("tfds:bertjax_texts[train[10%:50%]]",), text_field="body")
    found = units(data)
    assert {part.path for unit in found for part in unit.parts} == {f"tfds:{prepared}[train[10%:50%]]"}
    assert len(found) > 1
    first = [next(corpus.read(unit, data, Counter()))[0] for unit in found]
    assert first == [f"Text {unit.parts[0].start + 4} is here." for unit in found]
    by_path = DataConfig(source=(f"tfds:{prepared}[train[10%:50%]]",), text_field="body")
    assert units(by_path) == found


def test_wrong_names_are_refused(data_dir, prepared):
    assert "the nearest names are wiki40b" in refused("tfds:wiki40")
    assert "bertjax_texts" in refused("tfds:bertjax_text")
    assert "no name of a TFDS data set" in refused("tfds:huggingface:someone/theirs")
    assert "no name of a TFDS data set" in refused("tfds:bertjax_texts/good/file_format=riegeli")
    assert "tfds:NAME" in refused("tfds:")
    assert "other" in refused("tfds:bertjax_texts/other")
    assert "2.0.0" in refused("tfds:bertjax_texts:2.0.0")
    assert "the splits are train, test" in refused("tfds:bertjax_texts[validation]", text_field="body")
    assert "the splits are train, test" in refused("tfds:bertjax_texts[train[]", text_field="body")
    assert "it has body, type" in refused("tfds:bertjax_texts")
    assert "holds features.json" in refused(f"tfds:{data_dir}")
    with pytest.raises(DataError, match="record 0: no text under 'type'"):
        read("tfds:bertjax_texts[test]", text_field="type")


def test_a_failed_preparation_says_what_to_do(data_dir):
    message = refused("tfds:bertjax_texts/bad")
    assert "no network here" in message
    assert "tfds build bertjax_texts/bad --file_format=array_record" in message


def test_a_data_set_in_tfrecord_is_refused_with_the_fix(tmp_path, prepared):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    info = json.loads((copy / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    message = refused(f"tfds:{copy}", text_field="body")
    assert "tfrecord" in message and "--file_format=array_record" in message


@pytest.mark.parametrize("spelling", ["new", "proto", "old", "json in a string"])
def test_a_data_set_that_names_foreign_classes_is_not_opened(tmp_path, prepared, spelling, monkeypatch):
    """TFDS would import the module, which runs it."""
    module = f"foreign_{spelling[:3]}"
    (tmp_path / f"{module}.py").write_text("import tensorflow_datasets as tfds\nclass Text(tfds.features.Text): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    copy = shutil.copytree(prepared, tmp_path / "copy")
    text = (copy / "features.json").read_text()
    new = text.replace("tensorflow_datasets.core.features.text_feature.Text", f"{module}.Text")
    dictionary = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    body = {"body": {"type": f"{module}.Text", "content": {}}}
    trees = {
        "new": new,
        "proto": new.replace("pythonClassName", "python_class_name"),
        "old": json.dumps({"type": dictionary, "content": body}),
        "json in a string": json.dumps({"pythonClassName": dictionary, "jsonFeature": {"json": json.dumps(body)}}),
    }
    (copy / "features.json").write_text(trees[spelling])
    assert f"'{module}.Text', a class that is not to be imported" in refused(f"tfds:{copy}", text_field="body")
    assert module not in sys.modules
    monkeypatch.setattr(dataset, "class_names", lambda tree: [])
    units(DataConfig(source=(f"tfds:{copy}",), text_field="body"))
    assert sys.modules.pop(module)  # so the refusal is what kept it out


def test_a_damaged_data_set_is_named(tmp_path, prepared):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    data = DataConfig(source=(f"tfds:{copy}",), text_field="body")
    (unit,) = units(data)
    (shard,) = Path(copy).glob("*train.array_record*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        list(corpus.read(unit, data, Counter()))


# Values of TFDS records

FEATURES = tfds.features
RECORDS = [
    {"label": 1, "kinds": [0, 1], "words": ["a", "é"], "score": 0.5, "grid": [[1, 2]], "parts": [{"x": 3, "y": "z"}]},
    {"label": -1, "kinds": [], "words": [], "score": 2, "grid": [[3, 4]], "parts": []},
]


class BertjaxValues(tfds.core.GeneratorBasedBuilder):
    """A feature of each kind that is read, and one that is not."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        kind = FEATURES.ClassLabel(names=["no", "yes"])
        features = {"label": kind, "kinds": FEATURES.Sequence(kind), "words": FEATURES.Sequence(FEATURES.Text())}
        features |= {"score": np.float32, "grid": FEATURES.Tensor(shape=(1, 2), dtype=np.int32)}
        features |= {"parts": FEATURES.Sequence({"x": np.int64, "y": FEATURES.Text()})}
        return tfds.core.DatasetInfo(builder=self, features=FEATURES.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": enumerate(RECORDS)}

    def _generate_examples(self):
        raise NotImplementedError


def test_values_are_by_their_features(data_dir):
    path = tables.tfds_path("tfds:bertjax_values", "", setting="task.dev")
    assert sorted(tables.tfds_columns(path)) == ["kinds", "label", "parts", "score", "words"]
    found = list(tables.tfds_values(path))
    assert found == [
        (f"{path}: record 0", {"label": "yes", "kinds": ["no", "yes"], "words": ["a", "é"], "score": 0.5}
         | {"parts": {"x": [3], "y": ["z"]}}),
        (f"{path}: record 1", {"label": None, "kinds": [], "words": [], "score": 2.0, "parts": {"x": [], "y": []}}),
    ]  # fmt: skip


def test_the_field_that_names_a_data_set_is_told(data_dir):
    for entry in ("tfds:", "tfds:a/b/c/d", "tfds:bertjax_value", "tfds:bertjax_values/no", "tfds:bertjax_values[dev]"):
        with pytest.raises(DataError, match=f"^task.dev = '{re.escape(entry)}': "):
            tables.tfds_path(entry, "", setting="task.dev")


def test_a_damaged_record_is_named(data_dir):
    path = tables.tfds_path("tfds:bertjax_values", "")
    directory = Path(path.removeprefix("tfds:").removesuffix("[train]"))
    (shard,) = directory.glob("*.array_record*")
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        DataError, match=f"^{re.escape(path)}: cannot be read .record 0 is empty.; prepare the data set again"
    ):
        list(tables.tfds_values(path))
    shard.write_bytes(content)
