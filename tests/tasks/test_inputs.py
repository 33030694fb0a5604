"""`bertjax.tasks.inputs`: made once, opened and checked; what does not fit is named."""

import json
import re
import shutil

import pytest
from corpus.prepared import documents
from small import tiny

from bertjax import storage
from bertjax.bucket import copies
from bertjax.data import trial
from bertjax.errors import ConfigError, DataError, StorageError
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


@pytest.mark.parametrize(("kind", "name"), [("sentencepiece", "spiece.model"), ("wordpiece", "vocab.txt")])
def test_the_kind_is_what_is_trained(corpus_file, tmp_path, capsys, kind, name):
    data = {"source": (str(corpus_file),), "prepare_workers": 1, "tokenizer_kind": kind}
    config = tiny(data=data, model={"vocab_size": 300})
    path = make_tokenizer(config, tmp_path)
    assert path == tmp_path / "tokenizer" / name
    assert f"{path}: 300 pieces, uncased" in capsys.readouterr().err
    make_data(config, tmp_path)
    tokenizer, prepared = open_data(config, tmp_path)
    assert tokenizer.vocab_size == 300 and tokenizer.lower_case
    assert prepared.token_counts[tokenizer.special.unk] < 9


@pytest.mark.parametrize(
    ("kind", "name", "end"), [("sentencepiece", "v.txt", ".model"), ("wordpiece", "v.model", ".txt")]
)
def test_a_file_of_another_kind_is_refused(tmp_path, kind, name, end):
    with pytest.raises(ConfigError, match=rf"{name}'.* data.tokenizer_kind = {kind} .*end it in \{end}$"):
        make_tokenizer(tiny(data={"tokenizer": str(tmp_path / name), "tokenizer_kind": kind}), tmp_path)


SEQUENCES = {"examples": "doc_sentences", "case": "cased", "holdout": 0.2, "prepare_workers": 1}


@pytest.mark.parametrize(
    ("data", "text", "size", "ids"),
    [
        ({"alphabet": "smiles", "format": "lines"}, "CCO\nc1ccccc1\n" * 5, 9, [[7, 7, 8], [5, 6, 5, 5, 5, 5, 5, 6]]),
        ({"alphabet": "dna", "kmer": 1, "format": "lines"}, "ACGT\nacgN\n" * 5, 10, [[5, 6, 7, 8], [5, 6, 7, 9]]),
        ({"format": "ids"}, "3 1\n\n2 2 0\n" * 5, 9, [[3, 1], [2, 2, 0]]),
    ],
)
def test_lists_of_pieces_are_made_and_sequences_become_their_ids(tmp_path, capsys, data, text, size, ids):
    (tmp_path / "x.txt").write_text(text)
    data = SEQUENCES | data | {"source": (str(tmp_path / "x.txt"),)}
    config = tiny(data=data, model={"vocab_size": size}, objective={"pair": 0.0})
    path = make_tokenizer(config, tmp_path)
    assert path == tmp_path / "tokenizer" / "tokenizer.json"
    assert make_data(config, tmp_path)["documents"] == 10
    tokenizer, prepared = open_data(config, tmp_path)
    assert tokenizer.vocab_size == size == prepared.vocab_size
    found = [stored for split in (prepared.train, prepared.validation) for stored in documents(split)]
    assert {tuple(one) for one in found} == {tuple(one) for one in ids}
    assert "unknown" not in capsys.readouterr().err


def test_a_text_of_another_alphabet_is_told(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("MKTAYIAKQRQ\nWWWWHHHH\n")
    data = {"alphabet": "dna", "kmer": 2, "format": "lines", "source": (str(tmp_path / "x.txt"),)}
    config = tiny(data=SEQUENCES | data, model={"vocab_size": 26}, objective={"pair": 0.0})
    make_tokenizer(config, tmp_path)
    assert "of the pieces of this text are unknown; check data.source, data.alphabet" in capsys.readouterr().err


def test_a_text_that_the_settings_would_spoil_is_told(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("".join("私は学校で本を読んだ。" * i + "彼女が来た。\n\n" for i in range(30)))
    data = {"source": (str(tmp_path / "x.txt"),), "prepare_workers": 1, "case": "uncased"}
    config = tiny(data=data, model={"vocab_size": 29})
    make_tokenizer(config, tmp_path)
    assert "bertjax" not in (told := capsys.readouterr().err) and "data.case = uncased: the text is uncased and" in told
    make_data(config, tmp_path)
    assert "loses the marks of 20% of the letters (が becomes か)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sentencepiece", "wordpiece"])
@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("私は学校で本を読んだ。彼女が来た。", "で becomes て"),
        ("ذهب أحمد إلى المكتبة. قرأ كتابا آخر.", "أ becomes ا"),
        ("Der Mann geht über die Straße. Schön war es.", "ü becomes u"),
        ("The man walks across the street. It was a house once.", ""),
    ],
)
def test_the_case_is_chosen_by_the_text_and_then_by_the_pieces(tmp_path, capsys, kind, text, lost):
    (tmp_path / "x.txt").write_text("".join(f"{text} {i}\n\n" for i in range(40)) + "A café.", "utf-8")
    data = {"source": (str(tmp_path / "x.txt"),), "prepare_workers": 1, "tokenizer_kind": kind}
    with pytest.raises(DataError, match="set it to|use at most") as caught:
        make_tokenizer(tiny(data=data, model={"vocab_size": 9999}), tmp_path)
    size = int(re.search(r"(?:set it to|use at most) (\d+)", str(caught.value))[1])
    capsys.readouterr()
    config = tiny(data=data, model={"vocab_size": size})
    path = make_tokenizer(config, tmp_path)
    told = capsys.readouterr().err
    assert ("because uncased it would lose the marks of" in told) == bool(lost) and lost in told
    assert f"{path}: {size} pieces, {'cased' if lost else 'uncased'}" in told
    make_data(config, tmp_path)
    assert "data.case" not in capsys.readouterr().err
    tokenizer, prepared = open_data(config, tmp_path)
    assert tokenizer.lower_case == (not lost)
    assert not prepared.token_counts[tokenizer.special.unk]
    decided = tiny(data=data | {"case": "cased" if lost else "uncased"}, model={"vocab_size": size})
    assert open_data(decided, tmp_path)[1].digest == prepared.digest
    other = tiny(data=data | {"case": "uncased" if lost else "cased"}, model={"vocab_size": size})
    with pytest.raises(DataError, match="data.case"):
        open_data(other, tmp_path)


def test_a_line_a_record_is_recognised_and_told(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("".join(f"One is {i}. Two follows.\n" for i in range(1200)))
    config = tiny(data={"source": (str(tmp_path / "x.txt"),), "prepare_workers": 1}, model={"vocab_size": 40})
    make_tokenizer(config, tmp_path)
    assert f"data.format = auto: each line of {tmp_path / 'x.txt'} is a document" in capsys.readouterr().err
    summary = make_data(config, tmp_path)
    assert (summary["documents"], summary["sentences"]) == (1200, 2400)
    told = capsys.readouterr().err
    assert "data.format = auto" in told and "holds" not in told and "held out" not in told


def test_what_is_held_out_is_told_if_it_is_too_little_and_a_document_if_it_is_too_much(tmp_path, capsys):
    words = "The cat sat on the mat. It was red. "
    (tmp_path / "x.txt").write_text("\n\n".join(words * (60 if i == 7 else 1) + f"It was {i}." for i in range(90)))
    data = {"source": (str(tmp_path / "x.txt"),), "prepare_workers": 1, "holdout": 0.1}
    config = tiny(data=data, model={"vocab_size": 40})
    make_tokenizer(config, tmp_path)
    make_data(config, tmp_path)
    told = capsys.readouterr().err
    assert "data.source: one document of 90 holds 34% of the text, that which begins 'the cat" in told
    assert "examples are held out, too few to measure by; raise it, to 0.5 or so" in told


def test_a_list_of_pieces_is_a_json(tmp_path):
    data = SEQUENCES | {"alphabet": "protein", "format": "lines", "tokenizer": str(tmp_path / "x.model")}
    with pytest.raises(ConfigError, match="x.model'.*end it in .json"):
        make_tokenizer(tiny(data=data, objective={"pair": 0.0}), tmp_path)


def test_a_smaller_word_table_than_the_tokenizer_is_refused(inputs, tmp_path):
    with pytest.raises(DataError, match="model.vocab_size = 399"):
        open_data(tiny(data=inputs, model={"vocab_size": 399}), tmp_path)


def test_without_a_directory_the_data_set_is_of_the_moment(corpus_file):
    data = {"source": (str(corpus_file),), "prepare_workers": 1}
    with opened(tiny(data=data, model={"vocab_size": 300}), None) as (tokenizer, prepared):
        directory = prepared.directory
        assert tokenizer.vocab_size == 300 and prepared.tokenizer_digest == tokenizer.digest and directory.exists()
    assert not directory.exists()


def test_a_tokenizer_that_changed_since_it_was_made_is_noticed(corpus_file, tmp_path):
    """Before there is a data set, by the SHA-256 beside it; then by that of the data set."""
    config = tiny(data={"source": (str(corpus_file),), "prepare_workers": 1}, model={"vocab_size": 300})
    path = make_tokenizer(config, tmp_path)
    content = path.read_bytes()
    assert sorted(file.name for file in path.parent.iterdir()) == ["SHA256SUMS", "spiece.model"]
    flipped = content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]
    path.write_bytes(flipped)
    with pytest.raises(DataError, match="spiece.model.*not the file that SHA256SUMS"):
        make_data(config, tmp_path)
    path.write_bytes(content)
    make_data(config, tmp_path)
    (path.parent / "SHA256SUMS").unlink()
    path.write_bytes(content + b"\n")
    with pytest.raises(DataError):
        open_data(config, tmp_path)


def test_a_directory_of_the_user_is_not_written_into(corpus_file, tmp_path):
    """`data.tokenizer` names a file in it, and that is all that is made there."""
    mine = tmp_path / "mine"
    data = {"source": (str(corpus_file),), "tokenizer": str(mine / "x.model")}
    make_tokenizer(tiny(data=data, model={"vocab_size": 300}), tmp_path / "run")
    assert [file.name for file in mine.iterdir()] == ["x.model"]


def test_a_tokenizer_is_tried_once_and_then_known_from_the_data_set(inputs, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(trial, "_tried", set())
    monkeypatch.setattr(trial, "_tried_out", lambda path, *_: tried.append(path) or "")
    open_data(tiny(data=inputs), tmp_path)
    assert tried == []
    make_data(tiny(data=inputs), tmp_path)
    assert [str(path) for path in tried] == [inputs["tokenizer"]]
    monkeypatch.setattr(trial, "_tried", set())
    monkeypatch.setattr(trial, "_tried_out", lambda *_: "is no good")
    with pytest.raises(DataError, match="is no good"):
        make_data(tiny(data=inputs), tmp_path)


def test_what_is_no_data_set_is_not_prepared_over(inputs, tmp_path):
    """And the way out is not the command that has just been given."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError) as error:
        make_data(tiny(data=inputs | {"prepared": ""}), tmp_path)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'data'}: holds something else than a data set; move it")
    assert "run `" not in text
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"


def test_in_a_bucket_they_are_whole_before_they_are_there(tmp_path, bucket, capsys):
    """Made on one host and read on another; of a data set whose making was cut short, nothing is there."""
    (tmp_path / "x.txt").write_text("CCO\nc1ccccc1\n" * 5)
    data = SEQUENCES | {"alphabet": "smiles", "format": "lines", "source": (str(tmp_path / "x.txt"),)}
    config = tiny(data=data, model={"vocab_size": 9}, objective={"pair": 0.0})
    run = storage.place("gs://bkt/run")
    for missing in ("gs://bkt/run/tokenizer/tokenizer.json: no tokenizer", "gs://bkt/run/data: no prepared data set"):
        with pytest.raises(DataError, match=missing):
            open_data(config, run)
        make_tokenizer(config, run)
    assert "gs://bkt/run/tokenizer/tokenizer.json: exists, and stays" in capsys.readouterr().err
    summary = make_data(config, run)
    index = list(bucket.objects)
    assert index.index("run/tokenizer/tokenizer.json") < index.index("run/tokenizer/SHA256SUMS")
    assert index[-1] == "run/data/bertjax.json" and not any("lock" in name for name in index)
    bucket.delete("run/data/bertjax.json")
    with pytest.raises(DataError, match="no prepared data set"):
        open_data(config, run)
    assert make_data(config, run) == summary and "run/data/bertjax.json" in bucket.objects
    shutil.rmtree(copies.local(run))
    tokenizer, prepared = open_data(config, run)
    assert prepared.directory == copies.local(run) / "data" and prepared.summary == summary
    named = tiny(
        data=data | {"tokenizer": f"{run}/tokenizer/tokenizer.json", "prepared": f"{run}/data"},
        model={"vocab_size": 9},
        objective={"pair": 0.0},
    )
    assert open_data(named, tmp_path)[1].digest == prepared.digest
