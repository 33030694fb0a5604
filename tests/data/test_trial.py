"""A tokenizer file is tried in a process of its own, once, and not where it is known."""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from bpe import train_bpe

from bertjax.data import tokenizer, trial
from bertjax.errors import DataError

TEXTS = ["the king", "東京 of the x\u0301"]


@pytest.fixture
def bpe(tmp_path, monkeypatch):
    """A tokenizer.json, and which files went into a child."""
    monkeypatch.setattr(trial, "_tried", set())
    tried, run = [], subprocess.run

    def counted(*arguments, **settings):
        tried.append(settings["input"])
        return run(*arguments, **settings)

    monkeypatch.setattr(subprocess, "run", counted)
    return train_bpe(tmp_path / "tokenizer.json"), tried


def test_what_comes_through_is_what_is_read_without_trial_and_is_tried_once(bpe):
    path, tried = bpe
    found, plain = trial.load(path, lower_case=True), tokenizer.load(path, lower_case=True)
    for ours, theirs in zip(found.encode_batch(TEXTS), plain.encode_batch(TEXTS), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.digest == plain.digest and tried == [path.read_bytes()]
    trial.load(path, lower_case=True)
    assert len(tried) == 1


def test_what_is_known_is_not_tried(bpe):
    path, tried = bpe
    trial.load(path, lower_case=True, known=hashlib.sha256(path.read_bytes()).hexdigest())
    assert tried == []
    trial.load(path, lower_case=True, known="0" * 64)
    assert len(tried) == 1


def test_the_child_needs_no_jax():
    """It is paid for in each command that meets a new file."""
    code = f"import sys, {trial.__name__}; print(sorted({{'jax', 'grain', 'tensorflow_datasets'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_what_lies_in_the_current_directory_is_not_run(bpe, tmp_path, monkeypatch):
    """A foreign model directory may hold numpy.py."""
    path, tried = bpe
    (tmp_path / "numpy.py").write_text("import sys; sys.exit(9)")
    (tmp_path / "json.py").write_text("import sys; sys.exit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    trial.load(path, lower_case=True)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("child", "problem"),
    [
        ("import os; os.abort()", "it ends the process that reads it: SIGABRT"),
        ("import sys; sys.exit(3)", "it ends the process that reads it: exit code 3"),
        ("print('[1, 2]')", "it ends the process that reads it: exit code 0"),
        ("while True: pass", "not done in 1 s"),
        ("import time; time.sleep(60)", "not done in 1 s"),
        ("print(['x'][1])", "IndexError: list index out of range"),
    ],
)
def test_a_child_that_does_not_answer_is_one_line(bpe, monkeypatch, child, problem):
    path, _ = bpe
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))"
    monkeypatch.setattr(trial, "_CHILD", f"{limit}\n{child}")
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "DEADLINE", 1 if "sleep" in child else 20)
    with pytest.raises(DataError) as error:
        trial.load(path, lower_case=True)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"data.tokenizer = {str(path)!r}: cannot be used (") and problem in line, line


def test_where_no_process_can_be_started_is_one_line(bpe, monkeypatch):
    path, _ = bpe
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(DataError, match="no process can be started to try it: No such file"):
        trial.load(path, lower_case=True)


def test_ids_that_are_no_pieces_are_refused(monkeypatch, capsys, bpe):
    """On a device such an id reads another row, and raises nothing."""
    path, _ = bpe
    found = tokenizer.load(path, lower_case=True)
    found.vocab_size -= 200
    monkeypatch.setattr(tokenizer, "parse", lambda *_, **__: found)
    monkeypatch.setattr(trial.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": io.BytesIO(path.read_bytes())}))
    trial.main(str(path), True, 9)
    (problem,) = json.loads(capsys.readouterr().out)
    assert "ids from" in problem and "has 157 pieces" in problem


def test_every_character_is_tried():
    texts = list(trial._texts())
    tried = set("".join(texts))
    assert {"é", "東", "ﬁ", "😀", "\u0301", "\u200d", "한", "ǅ"} <= tried and len(tried) > 140_000
    assert "" in texts and max(map(len, texts)) >= 1000
