"""Records are read only from shards whose bytes are those that were written; each is checked once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data.damage import DAMAGE

from bertjax import storage
from bertjax.data import dataset, records
from bertjax.errors import DataError


def test_a_record_is_what_was_encoded():
    tokens, lengths = np.arange(7, dtype=np.uint16), np.array([3, 4], np.int32)
    found = records.decode(records.encode(tokens, lengths), np.uint16)
    np.testing.assert_array_equal(found["tokens"], tokens)
    np.testing.assert_array_equal(found["sentence_lengths"], lengths)
    assert found["tokens"].dtype == np.uint16
    assert (records.token_dtype(2**16), records.token_dtype(2**16 + 1)) == (np.uint16, np.int32)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_gives_no_record(copy, damage):
    """Not one, also where the record that is asked for is whole; those of other shards are there."""
    first, second = sorted(copy.glob("bertjax-train*"))
    split = dataset.load(copy).train
    DAMAGE[damage](second)
    ends = split.source.ends
    assert len(ends) == 2 and ends[1] - ends[0] > 1000
    for record in range(0, ends[0], 100):
        assert split.source[record]["tokens"].size
    for record in (ends[0], ends[1] - 1, (ends[0] + ends[1]) // 2):
        with pytest.raises(
            DataError, match=f"^{second}: missing or damaged .*; delete {copy} and run `bertjax prepare`"
        ):
            split.source[record]


def test_a_shard_in_the_place_of_another_is_noticed(copy):
    """Each is whole by itself, and of the same size."""
    first, second = sorted(copy.glob("bertjax-train*"))
    assert first.stat().st_size == second.stat().st_size
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match=first.name):
        dataset.load(copy).train.source[0]


def test_a_shard_is_checked_once_for_all_threads(made, monkeypatch):
    checked, count = [], threading.Lock()

    def counted(path):
        with count:
            checked.append(path.name)
        time.sleep(0.05)  # so that the other threads come meanwhile
        return storage.checksum(path)

    monkeypatch.setattr(records, "checksum", counted)
    split = dataset.load(made).train
    checked.clear()  # of the index
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(split.source.__getitem__, np.random.default_rng(0).integers(0, len(split.source), 400)))
    assert sorted(checked) == sorted(path.name for path in made.glob("bertjax-train*"))
    for outside in (-1, len(split.source)):
        with pytest.raises(IndexError):
            split.source[outside]
