"""`bertjax.tasks.inputs`: made once, opened and checked; what does not fit is named."""

import json

import pytest
from small import tiny

from bertjax.errors import ConfigError, DataError
from bertjax.tasks.inputs import make_data, make_tokenizer, open_data, opened


def test_made_once_and_then_left_alone(corpus_file, tmp_path, capsys):
    config = tiny(data={"source": (str(corpus_file),), "prepare_workers": 1}, model={"vocab_size": 300})
    path = make_tokenizer(config, tmp_path)
    content = path.read_bytes()
    summary = make_data(config, tmp_path)
    assert summary["documents"] == 40
    capsys.readouterr()
    assert make_tokenizer(config, tmp_path) == path and path.read_bytes() == content
    assert "exists, and stays" in capsys.readouterr().err
    assert make_data(config, tmp_path) == summary
    assert "already prepared with these settings" in capsys.readouterr().err
    other = tiny(data={"source": (str(corpus_file),), "holdout": 0.3}, model={"vocab_size": 300})
    with pytest.raises(ConfigError, match="was prepared with other settings"):
        make_data(other, tmp_path)
    assert json.loads((tmp_path / "data" / "bertjax.json").read_text())["summary"] == summary


def test_only_sentencepiece_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="vocab.txt"):
        make_tokenizer(tiny(data={"tokenizer": str(tmp_path / "vocab.txt")}), tmp_path)


def test_a_smaller_word_table_than_the_tokenizer_is_refused(inputs, tmp_path):
    with pytest.raises(DataError, match="model.vocab_size = 399"):
        open_data(tiny(data=inputs, model={"vocab_size": 399}), tmp_path)


def test_without_a_directory_the_data_set_is_of_the_moment(corpus_file):
    data = {"source": (str(corpus_file),), "prepare_workers": 1}
    with opened(tiny(data=data, model={"vocab_size": 300}), None) as (tokenizer, prepared):
        directory = prepared.directory
        assert tokenizer.vocab_size == 300 and prepared.tokenizer_digest == tokenizer.digest and directory.exists()
    assert not directory.exists()
