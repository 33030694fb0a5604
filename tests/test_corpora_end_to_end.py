"""Corpora of eight kinds go from file to filled masks by the README's commands, and no default spoils them.

What is asked of each is that its documents, sentences and letters come out as they went in, that what is odd about it
is told in a line, and that nothing is told where nothing is.
"""

import itertools
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from corpus.prepared import documents
from sequences import arabic, articles, dna, japanese, letters, smiles
from test_docs import blocks, lines

from bertjax.cli import main as cli
from bertjax.tasks.inputs import open_data
from bertjax.train.workdir import load_config

ROOT = Path(__file__).parents[1]
SMALL = {
    "model": {"num_layers": 1, "hidden_size": 32, "embedding_size": 32, "num_heads": 2, "ffn_size": 32},
    "data": {"seq_len": 32, "packing": 1, "batch_size": 8, "max_predictions": 5, "holdout": 0.4, "prepare_workers": 1},
    "run": {"steps": 1, "eval_rows": 8},
    "optim": {"warmup_steps": 1},
}


def readme(recipe, vocab_size):
    """The commands that the README has for a corpus in my_text, made small: at most four."""
    (section,) = re.findall(r"^## Your own text\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    (block, *_) = re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)
    found = [shlex.split(line)[1:] for line in lines(block.replace("\\\n", " "))]
    found = [words for words in found if words[0] in ("tokenizer", "prepare", "pretrain")]
    (fill,) = (
        shlex.split(line)[1:]
        for kind, text in blocks(ROOT / "README.md")
        for line in (lines(text) if kind == "bash" else [])
        if line.startswith("bertjax fill-mask")
    )
    assert 1 <= len(found) <= 3
    small = [f"--config.{name}.{field}={value}" for name, values in SMALL.items() for field, value in values.items()]
    for words in found:
        words[:] = [word.replace("my_text/*.txt", "my_text/*") for word in words]
        if recipe:
            words[:] = [f"--config={recipe}" if word.startswith("--config=") else word for word in words]
    found[0] += [*small, f"--config.model.vocab_size={4106 if recipe else vocab_size}"]  # the others remember it
    return found, fill[:-1]


def run(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    out, err = capsys.readouterr()
    assert end.value.code == 0, (words, err)
    return out, err


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """Of a corpus: its tokenizer, its documents as they were read, what was told, and what fills a mask."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")

    def train(name, content, masked, recipe="", vocab_size=100):
        (tmp_path / "my_text").mkdir()
        (tmp_path / "my_text" / name).write_bytes(content)
        commands, fill = readme(recipe, vocab_size)
        told = "".join(run(words, capsys)[1] for words in commands)
        out, _ = run([*fill, masked], capsys)
        filled = out.splitlines()[1].split()[0]
        tokenizer, prepared = open_data(load_config(tmp_path / "runs" / "mine"), tmp_path / "runs" / "mine")
        splits = (prepared.train, prepared.validation)
        assert all(len(split.document_offsets) > 1 for split in splits)
        assert sum(split.digests.size for split in splits) == prepared.summary["documents"]
        assert not prepared.token_counts[tokenizer.special.unk]
        texts = {tokenizer.decode(ids) for split in splits for ids in documents(split)}
        sentences = np.concatenate([np.diff(split.document_offsets) for split in splits])
        assert filled
        return texts, sentences, re.sub(r"\r|\x1b\[K", "\n", told), prepared.summary

    return train


def doubts(told):
    """The lines that speak against a setting."""
    return [line for line in told.splitlines() if line.startswith("data.")]


def test_articles(trained):
    texts = list(articles(300))
    found, sentences, told, _ = trained("wiki.txt", "\n\n".join(texts).encode(), "The mill [MASK] built in 1300.")
    assert found == {" ".join(text.lower().split()) for text in texts}
    assert set(sentences) == {11}  # the title is one, and "No. 7" ends none
    assert doubts(told) == []


def test_molecules(trained):
    texts = [length * "C" + text for length in range(3) for text in smiles()]
    content = ("\n".join(texts) + "\n").encode()
    found, _, told, _ = trained("x.smi", content, "Oc1ccc([MASK])cc1", "configs/sequences.py:smiles")
    assert found == {text.split()[0] for text in texts}
    assert doubts(told) == []


def test_dna(trained):
    texts = list(dna(300))
    content = ("\n".join(texts) + "\n").encode()
    found, _, told, _ = trained("x.txt", content, "GATTACAGCCGT[MASK]AACTGA", "configs/sequences.py:dna")
    assert found == set(texts)
    assert doubts(told) == []


def test_kmers_that_overlap(trained):
    """As for DNABERT: a line each, no blank line."""
    texts = [" ".join(text[i : i + 6] for i in range(len(text) - 5)) for text in dna(1200, length=30)]
    found, _, told, summary = trained("x.txt", ("\n".join(texts) + "\n").encode(), "GATTAC [MASK] TTACAG")
    assert found == {text.lower() for text in texts} and summary["documents"] == 1200
    lines_, overlap, *rest = dict.fromkeys(doubts(told))
    assert lines_.startswith("data.format = auto: each line of my_text/x.txt is a document")
    assert overlap.startswith("data.alphabet = words: these are k-mers that overlap (") and "set it to dna" in overlap
    assert all(line.startswith("data.examples = ") for line in rest)


def test_japanese(trained):
    texts = [one + other for one in japanese() for other in itertools.islice(japanese(), 8)]
    found, sentences, told, _ = trained(
        "x.txt", "\n\n".join(texts).encode(), "私は学校で[MASK]を読んだ。", vocab_size=75
    )
    assert {text.replace(" ", "") for text in found} == {text.replace("！", "!") for text in texts}
    assert set(sentences) == {6}
    (line,) = dict.fromkeys(doubts(told))
    assert line.startswith("data.case = auto: the text is taken as it is, ") and "で becomes て" in line


def test_arabic(trained):
    texts = [f"{one} {other}" for one in arabic() for other in itertools.islice(arabic(), 8)]
    found, sentences, told, _ = trained("x.txt", "\n\n".join(texts).encode(), "ذهب أحمد إلى [MASK].", vocab_size=50)
    assert found == set(texts)
    assert set(sentences) == {6}  # the stop of "د." ends none
    (line,) = dict.fromkeys(doubts(told))
    assert line.startswith("data.case = auto: the text is taken as it is, ") and "أ becomes ا" in line


def test_old_letters(trained):
    texts = list(letters(300))
    content = "\r\n\r\n".join(text.replace("\n", "\r\n") for text in texts).encode("latin1")
    found, sentences, told, summary = trained("x.txt", content, "L'[MASK] fut très beau.", vocab_size=100)
    assert found == {" ".join(text.split()) for text in texts}
    assert set(sentences) == {6}
    count = sum(not line.isascii() for text in texts for line in text.split("\n"))
    assert summary["skipped"] == {"bad_utf8_lines": count}
    assert f"bad utf8 lines: {count}, read as Windows-1252; convert the files with `iconv" in told
    assert [line.split(":")[0] for line in dict.fromkeys(doubts(told))] == ["data.case = auto"]


def test_lines_of_json_some_of_them_bad(trained):
    texts = list(articles(300))
    good = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
    bad = [good[0][:40], '{"body": "Not here."}', "null", '{"text": 7}', '{"text": ""}']
    content = "\n".join([*good[:100], *bad, *good[100:]]) + "\n"
    found, sentences, told, summary = trained("x.jsonl", content.encode(), "The mill [MASK] built in 1300.")
    assert found == {" ".join(text.lower().split()) for text in texts} and set(sentences) == {11}
    assert summary["skipped"] == {"bad_json_lines": 4, "empty_documents": 1}
    assert "bad json lines: 4, left out; check data.text_field" in told and doubts(told) == []
