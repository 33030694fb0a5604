"""A prepared data set is the same for any number of workers, goes on after a stop, and is what TFDS reads."""

import errno
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from corpus.prepared import make

from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare, shards
from bertjax.corpus import units as corpus
from bertjax.data import dataset
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError, StorageError


@pytest.fixture
def small_units(made, monkeypatch):
    monkeypatch.setattr(corpus, "UNIT_BYTES", (made[2].parent / "corpus.txt").stat().st_size // 4)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("workers", [2, 5])
def test_files_are_the_same_for_any_number_of_workers(made, small_units, tmp_path, workers):
    data, tokenizer, directory = made
    make(data, tokenizer, tmp_path / "data", runner=prepare.local(workers))
    assert contents(tmp_path / "data") == contents(directory)
    assert sum("train.array_record-" in path.name for path in directory.iterdir()) == 4
    assert not (tmp_path / "data.partial").exists()


@pytest.mark.parametrize(("count", "holdout", "expected"), [(2, 0.001, (1, 1)), (1, 0.0, (1, 0)), (3, 0.0, (3, 0))])
def test_small_corpora_and_documents_without_tokens(made, tmp_path, count, holdout, expected):
    (tmp_path / "x.txt").write_text("".join(f"The cat {i}.\n\n" for i in range(count)) + "\u0001\n")  # cleaned away
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=holdout)
    summary = make(data, made[1], tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    assert tuple(len(split.source) for split in (loaded.train, loaded.validation)) == expected
    assert summary == loaded.summary
    assert len(list((tmp_path / "data").glob("*-0*"))) == sum(n > 0 for n in expected)
    assert summary["documents"] == count and summary["skipped"] == {"documents_without_tokens": 1}


def test_a_corpus_that_is_all_held_out_is_refused(made, tmp_path):
    (tmp_path / "x.txt").write_text("The cat.\n\nThe cat sat.\n")
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=1 - 2**-52)
    with pytest.raises(DataError, match=r"data\.holdout = .*leaves no document to train on"):
        make(data, made[1], tmp_path / "data")


@pytest.mark.parametrize("holdout", [0.01, 0.5, 1 - 2**-52])
def test_a_single_document_is_refused_for_what_it_is(made, tmp_path, holdout):
    """And not sent from "raise data.holdout" to "lower it" and back."""
    (tmp_path / "x.txt").write_text("The cat.\nThe cat sat.\n" * 9)
    data = DataConfig(source=(str(tmp_path / "x.txt"),), holdout=holdout)
    with pytest.raises(
        DataError, match="is a single document, .* blank lines between documents, .* to lines"
    ) as caught:
        make(data, made[1], tmp_path / "data")
    assert "holdout" not in str(caught.value) and "\n" not in str(caught.value)
    make(replace(data, format="lines", holdout=0.5), made[1], tmp_path / "data")  # the fix works


def test_a_stopped_run_goes_on_with_what_is_missing(made, small_units, tmp_path):
    data, tokenizer, directory = made
    numbers, done = [], []

    def stops(folder, missing):
        numbers.append(list(missing))
        for unit in missing[:2]:
            prepare.work(folder, unit)
            yield unit
        raise StorageError("stopped")

    for _ in range(2):
        with pytest.raises(StorageError, match="stopped"):
            make(data, tokenizer, tmp_path / "data", runner=stops)
        assert not (tmp_path / "data").exists()
        (tmp_path / "data.partial" / "stray.tmp").mkdir(exist_ok=True)  # as a killed worker leaves
    assert numbers == [[0, 1, 2, 3], [2, 3]]
    make(data, tokenizer, tmp_path / "data", progress=lambda *counts: done.append(counts))
    assert done == [(4, 4)]
    assert contents(tmp_path / "data") == contents(directory)


def test_a_full_disk_keeps_the_finished_units(made, small_units, tmp_path, monkeypatch):
    data, tokenizer, directory = made
    write = shards.write_unit

    def full(folder, *rest):
        if any(folder.parent.glob("unit-*1")):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return write(folder, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_unit", full)
        with pytest.raises(StorageError, match="No space left on device.*the same command continues") as caught:
            make(data, tokenizer, tmp_path / "data")
    assert "\n" not in str(caught.value)
    left = sorted(path.name for path in (tmp_path / "data.partial").iterdir())
    assert left == ["job.json", "unit-0000000", "unit-0000001"]
    make(data, tokenizer, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(directory)


def test_other_text_or_settings_begin_anew(made, small_units, tmp_path):
    data, tokenizer, _ = made
    started = []

    def stops(folder, missing):
        started.append(len(missing))
        prepare.work(folder, missing[0])
        raise StorageError("stopped")

    copy = tmp_path / "corpus.txt"
    copy.write_bytes(Path(*data.source).read_bytes())
    data = replace(data, source=(str(copy),))
    for change in (
        lambda data: data,
        lambda data: data,
        lambda data: replace(data, holdout=0.2),
        lambda data: copy.write_text(copy.read_text().replace("9", "8")) and replace(data, holdout=0.2),
    ):
        with pytest.raises(StorageError, match="stopped"):
            make(change(data), tokenizer, tmp_path / "data", runner=stops)
    assert started == [4, 3, 4, 4]


def test_a_directory_that_cannot_be_used_is_named(made, tmp_path):
    data, tokenizer, directory = made
    with pytest.raises(StorageError, match="is not empty; delete it"):
        make(data, tokenizer, directory)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        make(data, tokenizer, tmp_path / "file" / "data")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="empty.txt"):
        make(replace(data, source=(str(tmp_path / "empty.txt"),)), tokenizer, tmp_path / "data")


def test_a_partial_directory_of_somebody_else_is_left_alone(made, tmp_path):
    data, tokenizer, directory = made
    partial = tmp_path / "data.partial"
    partial.mkdir()
    for name, content in (("notes.txt", "mine"), ("job.json", '{"name": "mine"}')):
        (partial / name).write_text(content)
        with pytest.raises(StorageError, match=r"data\.partial: .*move it away"):
            make(data, tokenizer, tmp_path / "data")
        assert (partial / name).read_text() == content
        (partial / name).unlink()
    (partial / ".job.json").write_text('{"settin')  # as a killed `prepare` leaves it
    make(data, tokenizer, tmp_path / "data")
    assert dataset.load(tmp_path / "data").summary == dataset.load(directory).summary


def test_a_killed_worker_is_told_and_the_rest_is_kept(made, tmp_path, monkeypatch):
    data, tokenizer, directory = made
    # So many units that most of them are still to be made when the first is done.
    monkeypatch.setattr(corpus, "UNIT_BYTES", Path(*data.source).stat().st_size // 40)

    def kill(done, total):
        for process in multiprocessing.active_children() if done else []:
            process.kill()

    with pytest.raises(StorageError, match="data.prepare_workers = 2: a worker was killed, .* lower it"):
        make(data, tokenizer, tmp_path / "data", runner=prepare.local(2), progress=kill)
    kept = len(list((tmp_path / "data.partial").glob("unit-*")))
    counts = []
    summary = make(data, tokenizer, tmp_path / "data", progress=lambda done, total: counts.append(done))
    assert 0 < kept == counts[0] and summary == dataset.load(directory).summary


def test_matches_compares_settings_and_tokenizer(made, tmp_path):
    data, tokenizer, directory = made
    loaded, same = dataset.load(directory), load_tokenizer(tokenizer, lower_case=True)
    assert dataset.matches(loaded, replace(data, batch_size=3, prepare_workers=9, case="uncased"), same)
    (tmp_path / "vocab.txt").write_text(tokenizer.read_text() + "dog\n")
    assert not dataset.matches(loaded, data, load_tokenizer(tmp_path / "vocab.txt", lower_case=True))
    assert not dataset.matches(loaded, data, load_tokenizer(tokenizer, lower_case=False))
    changes = {"source": ("builtin",), "format": "auto", "text_field": "x", "holdout": 0.2}
    assert not any(dataset.matches(loaded, replace(data, **{name: value}), same) for name, value in changes.items())


def test_prepare_needs_only_what_beams_environment_has(made, tmp_path):
    """`launch/beam.sh` makes one without JAX, grain and the others."""
    data, tokenizer, _ = made
    code = f"""
import sys
for name in ("jax", "flax", "optax", "orbax", "grain", "safetensors", "matplotlib"):
    sys.modules[name] = None
from pathlib import Path
from bertjax.cli.main import main
main(["prepare", "--config=bert:tiny", "--workdir={tmp_path}", "--config.data.source={",".join(data.source)}",
      "--config.data.tokenizer={tokenizer}", "--config.data.holdout=0.4", "--config.data.prepare_workers=1"])
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    dataset.load(tmp_path / "data").train.tokens(0, 9)
