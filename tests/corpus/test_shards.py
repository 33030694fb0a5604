"""What becomes of the documents of a unit: records, splits and sentences."""

import json

import numpy as np
import tensorflow_datasets as tfds
from bpe import train_bpe
from corpus.prepared import PIECES, documents, make

from bertjax.config.schema import DataConfig
from bertjax.corpus import shards
from bertjax.data import dataset
from bertjax.data.tokenizer import load as load_tokenizer


def test_a_long_document_is_several_records(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES + [f"a{i}" for i in range(70_000)]) + "\n")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a69999 " * 20_000 + ".\n" + "The cat sat. " * 5_000}) + "\n")
    data = DataConfig(source=(str(tmp_path / "x.jsonl"),), holdout=0.0)
    make(data, tmp_path / "vocab.txt", tmp_path / "data")
    train = dataset.load(tmp_path / "data").train
    sizes = np.diff(train.record_offsets)
    assert len(train.document_offsets) == 2 and sizes[0] > 20_000 and (sizes[1:] <= shards.RECORD_TOKENS).all()
    (tokens,) = documents(train)
    assert tokens[:20_000] == [len(PIECES) + 69_999] * 20_000
    assert len(tokens) == sizes.sum() == train.sentence_lengths.sum()
    assert tfds.builder_from_directory(tmp_path / "data").as_data_source("train")[0]["tokens"].dtype == np.int32


def test_copies_of_a_document_are_on_one_side(made, tmp_path):
    (tmp_path / "x.txt").write_text("".join(f"the {i % 50}.\n\n" for i in range(500)))
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=0.3)
    make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    train, held_out = set(loaded.train.digests.tolist()), set(loaded.validation.digests.tolist())
    assert len(train) + len(held_out) == 50 and not train & held_out and held_out
    assert loaded.summary["documents"] == 500


def test_sentences_in_byte_level_bpe_keep_the_space_before_them(tmp_path):
    lines = ["The king of the north was lost. The garden of the city was quiet.", "A word. And another."]
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines) + "\n")
    tokenizer = train_bpe(tmp_path / "tokenizer.json")
    data = DataConfig(source=(str(tmp_path / "corpus.txt"),), format="paragraphs", holdout=0.0)
    summary = make(data, tokenizer, tmp_path / "data")
    assert summary["sentences"] > len(lines)
    loaded = load_tokenizer(tokenizer, lower_case=False)
    assert [loaded.decode(tokens) for tokens in documents(dataset.load(tmp_path / "data").train)] == lines
