"""`bertjax.trained.load`: a model is the same from a Hugging Face directory and from a work directory."""

from pathlib import Path

import finetuned
import pytest
from directories import KINDS, assert_same, model_of, ours, write

from bertjax.config.recipe import override
from bertjax.config.schema import ComputeConfig, TaskConfig
from bertjax.data import tokenizer, trial
from bertjax.errors import CheckpointError, ConfigError, DataError
from bertjax.model.network import abstract_params
from bertjax.train import checkpoint, workdir
from bertjax.trained.exchange import export_directory, import_directory
from bertjax.trained.load import check_restored, load


def vocabulary(path, *more):
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", *more]) + "\n")
    return path


@pytest.fixture
def run(tmp_path):
    """A work directory, and its config."""
    source = write(tmp_path / "hf", tokenizer=vocabulary(tmp_path / "vocab.txt"))
    return import_directory(source, tmp_path / "run"), tmp_path / "run"


LABELLED = ("bert_classify", "albert_regress", "bert_choice", "distilbert_tag", "modernbert_span", "modernbert_mean")


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if not kind.startswith("roberta")), *LABELLED])
def test_both_kinds_of_directory_give_the_same_model(kind, tmp_path):
    directory = write(tmp_path / "hf", kind, tokenizer=vocabulary(tmp_path / "vocab.txt"))
    import_directory(directory, tmp_path / "run")
    both = [load(path) for path in (directory, tmp_path / "run")]
    for found in both:
        assert found.config == model_of(kind) and found.compute == ComputeConfig()
        assert found.heads == set(found.config.heads)
        assert_same(found.params, ours(kind)[1])
        assert found.tokenizer.pieces[-2:] == ["a", "b"]


def test_a_model_without_a_tokenizer_is_still_a_model(tmp_path):
    found = load(write(tmp_path / "hf"))
    assert found.tokenizer is None and found.heads


def test_another_directory_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a work directory with checkpoints nor a Hugging Face"):
        load(tmp_path)


def test_of_what_training_computed_with_only_the_dtype_is_kept(run):
    """The attention of another platform, remat and unrolled layers are no part of a model."""
    config, directory = run
    compute = {"dtype": "bfloat16", "attention": "splash", "remat": "full", "scan": False}
    workdir.save_config(directory, override(config, compute=compute))
    assert load(directory).compute == ComputeConfig(dtype="bfloat16")


def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(run, tmp_path):
    config, directory = run
    restored = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model))
    its_own = tokenizer.load(config.data.tokenizer, lower_case=True)
    other = tokenizer.load(vocabulary(tmp_path / "other.txt", "c"), lower_case=True)
    check_restored(config, directory, restored, its_own)
    with pytest.raises(DataError, match=rf"data\.tokenizer: {other.digest[:8]} is not {its_own.digest[:8]}"):
        check_restored(config, directory, restored, other)
    relu = override(config, model={"activation": "relu"})
    with pytest.raises(ConfigError, match=r"model\.activation = 'relu'"):
        check_restored(relu, directory, restored, its_own)
    workdir.save_config(directory, relu)
    with pytest.raises(ConfigError, match=r"model\.activation = 'relu'"):
        load(directory)
    workdir.save_config(directory, override(config, data={"tokenizer": str(tmp_path / "other.txt")}))
    with pytest.raises(DataError, match=r"data\.tokenizer"):
        load(directory)


@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased"])
def test_the_name_of_a_model_of_the_hub_is_no_directory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (load, lambda path: import_directory(Path(path), tmp_path / "run")):
        with pytest.raises(CheckpointError) as error:
            use(name)
        (line,) = str(error.value).splitlines()
        assert line.startswith(f"{name}: there is no such directory here, and nothing is downloaded")
        assert line.endswith(f"`hf download {name} --local-dir=bert-base-uncased`, and name bert-base-uncased")
    with pytest.raises(CheckpointError, match="there is no such directory here.*name a directory with a model$"):
        load(tmp_path / "none")


def test_an_imported_tokenizer_that_changes_is_noticed(run):
    _, directory = run
    vocabulary(directory / "tokenizer" / "vocab.txt", "c")
    with pytest.raises(DataError, match="vocab.txt.*not the file that SHA256SUMS"):
        load(directory)


def test_a_tokenizer_that_was_trained_with_is_not_tried_again(run, tmp_path, monkeypatch):
    _, directory = run
    tried = []
    monkeypatch.setattr(trial, "_tried", set())
    monkeypatch.setattr(trial, "_tried_out", lambda path, *_: tried.append(path) or "")
    assert load(directory).tokenizer
    export_directory(workdir.load_config(directory), directory, tmp_path / "out")
    assert tried == []
    assert load(tmp_path / "hf").tokenizer and tried == [tmp_path / "hf" / "vocab.txt"]


def test_a_fine_tuned_run_brings_its_task_and_its_rows(tmp_path):
    """One of which nobody knows what it was trained on takes all positions."""
    for train, length in (("train",), 24), ((), 0):
        config = finetuned.config_of("span", task={"train": train, "stride": 7}, data={"seq_len": 24})
        found = load(finetuned.write(tmp_path / str(length), config))
        assert (found.task, found.seq_len, found.heads) == (config.task, length, frozenset({"span_head"}))
    directory = write(tmp_path / "hf")
    assert load(directory).task == TaskConfig() and load(directory).seq_len == 0
