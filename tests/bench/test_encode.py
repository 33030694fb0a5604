"""`bertjax.bench.encode`: both sides take the same texts and rows, and each is timed."""

import json

import directories
import pytest

from bertjax.bench import encode
from bertjax.cli import main as cli
from bertjax.errors import ConfigError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return directories.write(tmp_path / "hf", tokenizer=tmp_path / "vocab.txt")


def test_texts_and_rows_are_timed(directory, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", iter(["a b c\n", "\n", "d e\n"]))
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "encode", str(directory), "--repeats=2", "--json"])
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    for name, count in (("texts", 2), ("rows", encode.ROWS)):
        assert set(result[name]) == {"first_seconds", "seconds", "per_second"}
        assert result[name]["per_second"] == pytest.approx(count / result[name]["seconds"]["bertjax"])


def test_in_turn_with_torch(directory):
    directories.hf()
    result = encode.bench(directory, ["a b", "c"], vs="hf", repeats=1)
    for values in result.values():
        assert values["ratio"] == pytest.approx(values["seconds"]["hf"] / values["seconds"]["bertjax"])


def test_both_sides_get_the_same_and_the_ratio_is_of_pairs(directory, monkeypatch):
    """With a peer that only notes what it is given."""
    given = []
    monkeypatch.setattr(encode.torch_peer, "encoder", lambda path: (given.append, given.append))
    result = encode.bench(directory, ["a b", "c"], vs="hf", repeats=1)
    texts, first_texts, rows, first_rows = given  # the first of each is not counted
    assert texts == first_texts == ["a b", "c"] and rows.shape == first_rows.shape == (32, 32)
    for values in result.values():
        assert values["ratio"] == pytest.approx(values["seconds"]["hf"] / values["seconds"]["bertjax"])


def test_nothing_to_time_is_refused(directory):
    with pytest.raises(ConfigError, match="no texts; give them on standard input"):
        encode.bench(directory, [], vs="", repeats=1)
