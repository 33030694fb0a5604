"""The whole data set: its index describes its shards, nothing of the corpus is lost, and TFDS reads it."""

import numpy as np
import tensorflow_datasets as tfds
from corpus.prepared import DOCUMENTS, PIECES, documents, make, number

from bertjax.config.schema import DataConfig
from bertjax.data import dataset


def test_tfds_reads_what_the_index_describes(made):
    loaded = dataset.load(made[2])
    builder = tfds.builder_from_directory(made[2])
    for split in (loaded.train, loaded.validation):
        source = builder.as_data_source(split.name)
        assert len(source) == len(split.source) == len(split.document_offsets) - 1 == len(split.digests)
        for document, (record, tokens) in enumerate(zip(source, documents(split), strict=True)):
            start, end = split.document_offsets[document : document + 2]
            np.testing.assert_array_equal(record["sentence_lengths"], split.sentence_lengths[start:end])
            assert record["tokens"].tolist() == tokens == split.source[document]["tokens"].tolist()
    assert record["tokens"].dtype == np.uint16
    assert loaded.train.tokens(0, 5).dtype == loaded.train.tokens(3, 3).dtype == np.int32


def test_tokens_may_cross_documents_and_shards(made):
    split = dataset.load(made[2]).train
    stream = [token for tokens in documents(split) for token in tokens]
    assert split.tokens(0, len(stream)).tolist() == stream
    for start, end in ((0, 1), (5, 90), (len(stream) - 7, len(stream)), (1234, 2345)):
        assert split.tokens(start, end).tolist() == stream[start:end]


def test_every_document_is_in_one_split_in_the_order_of_the_corpus(made):
    loaded = dataset.load(made[2])
    numbers = [[number(tokens) for tokens in documents(split)] for split in (loaded.train, loaded.validation)]
    assert sorted(numbers[0] + numbers[1]) == list(range(DOCUMENTS))
    assert all(part == sorted(part) for part in numbers)
    assert 0.07 * DOCUMENTS < len(numbers[1]) < 0.13 * DOCUMENTS


def test_counts_and_summary(made):
    loaded = dataset.load(made[2])
    tokens = loaded.train.tokens(0, int(loaded.train.record_offsets[-1]))
    np.testing.assert_array_equal(loaded.token_counts, np.bincount(tokens, minlength=len(PIECES)))
    train = loaded.summary["splits"]["train"]
    assert train["tokens"] == tokens.size == loaded.train.sentence_lengths.sum()
    assert train["unknown"] == (tokens == 1).sum() and loaded.summary["skipped"] == {}
    assert loaded.summary["documents"] == DOCUMENTS
    (source,) = loaded.summary["sources"]
    assert source["documents"]["train"] == loaded.train.source_documents[0] == train["documents"]


def test_sources_are_stretches_of_a_split(made, tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} the {i}.\n\n" for i in range(40)))
    data = DataConfig(source=(str(tmp_path / "b.txt"), str(tmp_path / "a*.txt")), holdout=0.2)
    make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    sizes = [split.source_documents for split in (loaded.train, loaded.validation)]
    assert [sum(parts) for parts in zip(*sizes, strict=True)] == [40, 40]
