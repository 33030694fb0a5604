"""`bertjax.tasks.minimal_pairs`: which sentence is likelier, summed up, by command and during training."""

import json
import math
import types

import directories
import jax
import numpy as np
import pytest
from models import make
from small import one_device_mesh, tiny

import bertjax
from bertjax.cli.commands import COMMANDS
from bertjax.config.schema import MeshConfig
from bertjax.data import tokenizer
from bertjax.errors import CheckpointError, DataError, NumericError
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.steps import numbers
from bertjax.tasks import minimal_pairs
from bertjax.tasks.minimal_pairs import asked, evaluation, judged, plot, score, table
from bertjax.tasks.pretrain import pretrain
from bertjax.train import checkpoint, metrics
from bertjax.trained.pairs import Paradigm, read

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]) + "\n")
    return path


@pytest.fixture(scope="module")
def bert(vocabulary, tmp_path_factory):
    return directories.write(tmp_path_factory.mktemp("model") / "hf", tokenizer=vocabulary)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two paradigms of one field and one of another, of 4, 2 and 1 pairs."""
    texts = [
        "a b c",
        "c b a",
        "d e f g",
        "f e d g",
        "h i",
        "i h",
        "j k l",
        "k j l",
        "m n",
        "n m",
        "o p",
        "q p",
        "r",
        "s",
    ]
    names = ["one\tx", "one\tx", "one\tx", "one\tx", "two\tx", "two\tx", "three\ty"]
    lines = [f"{g}\t{b}\t{name}" for g, b, name in zip(texts[::2], texts[1::2], names, strict=True)]
    return write(tmp_path_factory.mktemp("sets") / "own.tsv", *lines)


def test_the_result_is_that_of_each_pair_by_itself(bert, sets):
    """By the definition, with one mask at a time, through `bertjax.load`."""
    model = bertjax.load(bert)
    special = model.tokenizer.special

    def log_likelihood(text):
        row = [special.cls, *model.tokenizer.encode_batch([text])[0].tolist(), special.sep]
        total = 0.0
        for t in range(1, len(row) - 1):
            masked = [*row[:t], special.mask, *row[t + 1 :]]
            logits = model([masked], mlm_positions=[[t]], outputs=["mlm_logits"]).mlm_logits[0, 0]
            total += float(jax.nn.log_softmax(logits)[row[t]])
        return total

    right = {p.name: [log_likelihood(g) > log_likelihood(b) for g, b in p.pairs] for p in read([sets])}
    result = score(bert, [sets], by="pll", limit=0)
    means = {name: np.mean(values) for name, values in right.items()}
    assert {name: one["accuracy"] for name, one in result["paradigms"].items()} == pytest.approx(means)
    assert result["accuracy"] == pytest.approx(np.mean(list(means.values())))
    assert result["fields"] == pytest.approx({"x": (means["one"] + means["two"]) / 2, "y": means["three"]})
    assert 0 < result["accuracy"] < 1 and (result["pairs"], result["ties"], result["skipped"]) == (7, 0, 0)
    assert score(bert, [sets], by="unmasked", limit=0)["paradigms"] != result["paradigms"]


def test_ties_are_wrong_and_sentences_are_scored_once(vocabulary):
    loaded = tokenizer.load(vocabulary, lower_case=True)
    pairs = (("a b", "a c"), ("a b", "A b"), ("a \u00e6", "a \u00f8"), ("b", "a b"))  # two that look alike to the model
    ask = asked([Paradigm("p", "", pairs)], loaded, 32)
    assert len(ask.sentence_S) == 4
    result = judged(ask, np.array([-1.0, -2.0, -3.0, -4.0]))
    assert (result["accuracy"], result["pairs"], result["ties"], result["fields"]) == (0.25, 4, 2, {})


def test_the_standard_error_is_that_of_drawing_pairs(vocabulary):
    """Against a simulation: the spread of the mean over paradigms, were each pair right by chance at its rate."""
    shares, counts = (0.5, 0.75, 1.0), (4, 100, 10)
    paradigms = [
        (str(i), "", *np.array([[0, 1]] * round(p * n) + [[1, 0]] * (n - round(p * n))).T)
        for i, (p, n) in enumerate(zip(shares, counts, strict=True))
    ]
    result = judged(minimal_pairs.Asked([(5,), (6,)], paradigms, 0), np.array([0.0, -1.0]))
    rng = np.random.default_rng(0)
    draws = np.mean([rng.binomial(n, p, size=100_000) / n for p, n in zip(shares, counts, strict=True)], axis=0)
    assert result["accuracy"] == pytest.approx(0.75)
    assert result["standard_error"] == pytest.approx(draws.std(), rel=0.02)


def test_pairs_that_are_too_long_are_left_out_and_said(bert, tmp_path, capsys):
    most = directories.ours("bert")[0].max_positions
    fits, long = " ".join("a" * (most - 2)), " ".join("b" * (most - 1))
    path = write(tmp_path / "x.tsv", f"{fits}\tc d", f"{long}\tc d", f"c d\t{long}")
    result = score(bert, [path], by="pll", limit=0)
    assert (result["pairs"], result["skipped"]) == (1, 2)
    assert "2 are longer than the positions of the model" in capsys.readouterr().err
    with pytest.raises(DataError, match=f"all are longer than the {most} positions"):
        score(bert, [write(tmp_path / "y.tsv", f"{long}\tc d")], by="pll", limit=0)


def test_what_cannot_be_scored_is_one_line(bert, vocabulary, sets, tmp_path):
    headless = directories.write(tmp_path / "headless", tokenizer=vocabulary)
    kept = {k: v for k, v in directories.stored(headless).items() if not k.startswith("cls.")}
    directories.restore(headless, kept)
    huge = directories.write(tmp_path / "huge", tokenizer=vocabulary)
    tensors = directories.stored(huge)
    directories.restore(huge, {k: v * 1e30 for k, v in tensors.items()})
    for path, pairs, error, named in (
        (headless, sets, CheckpointError, "no trained head for masked words"),
        (directories.write(tmp_path / "mute"), sets, DataError, "has no tokenizer"),
        (bert, tmp_path / "none.tsv", DataError, "not found"),
        (huge, sets, NumericError, "a score is no number"),
    ):
        with pytest.raises(error, match=named) as caught:
            score(path, [pairs], by="pll", limit=0)
        assert len(str(caught.value).splitlines()) == 1


def test_the_time_it_takes_is_told_if_it_is_long(monkeypatch, capsys):
    """Once, after some seconds, by what was done after the first batch, which compiled."""
    now = iter([100.0, 101.0, 103.0, 104.0])
    monkeypatch.setattr(minimal_pairs, "time", types.SimpleNamespace(monotonic=lambda: next(now)))
    bar = minimal_pairs._Bar(1000)
    for _ in range(4):
        bar.advance(10)
    bar.close()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "about 2 minutes to go" in line  # 970 tokens at 20 in 3 seconds


def test_table_and_picture_show_every_paradigm(bert, sets, tmp_path):
    result = score(bert, [sets], by="pll", limit=0)
    lines = table(result).splitlines()
    for name, one in result["paradigms"].items():
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert f"{100 * one['accuracy']:.1f}" in line and f"of {one['pairs']}" in line
    assert f"{100 * result['accuracy']:.1f}  +- {100 * result['standard_error']:.1f}" in lines[-1]
    for name in ("x.png", "x.svg", "x.pdf"):
        plot(result, tmp_path / name)
    drawn = (tmp_path / "x.svg").read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("one", "two", "three", "x", "y", "chance"))


def test_the_command_prints_one_object_and_draws(bert, sets, tmp_path, capsys):
    picture = tmp_path / "pairs.png"
    given = {"words": [str(bert)], "pairs": (str(sets), "builtin"), "by": "unmasked", "limit": 1, "out": picture}
    assert COMMANDS["score"].run(**given, json=True) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["paradigms"]) == 12 and result["pairs"] + result["skipped"] == 12 and result["by"] == "unmasked"
    assert picture.stat().st_size > 10_000


# During training -----------------------------------------------------------------------------------------------------


def test_a_run_evaluates_its_pairs(inputs, sets, tmp_path):
    """And keeps the checkpoint that is the best by one of their numbers."""
    saves = {"save_every": 1, "keep": 1, "keep_best": "pairs_x_accuracy"}
    config = tiny(data=inputs, run={"pairs": (str(sets),), "pairs_limit": 2, "steps": 2, "eval_every": 1} | saves)
    assert pretrain(config, tmp_path)
    lines = [x for x in metrics.read(tmp_path / metrics.METRICS) if "pairs_accuracy" in x]
    assert [line["step"] for line in lines] == [1, 2]
    names = {"pairs_accuracy", "pairs_standard_error", "pairs_x_accuracy", "pairs_y_accuracy"}
    assert all(line.keys() == names | {"step"} and all(map(math.isfinite, line.values())) for line in lines)
    best = max(lines, key=lambda line: line["pairs_x_accuracy"])["step"]
    assert checkpoint.chosen(tmp_path / "checkpoints", "best") == best
    assert numbers(tmp_path / "checkpoints") == sorted({best, 2})
    (one,) = evaluation(config, tokenizer.load(inputs["tokenizer"], lower_case=True), one_device_mesh(config))
    assert {f"pairs_{key}" for key in one.judges} == names - {"pairs_standard_error"}
    result = score(tmp_path, [sets], by="pll", limit=2)
    assert result["pairs"] == 5
    assert lines[-1]["pairs_accuracy"] == pytest.approx(result["accuracy"])
    assert lines[-1]["pairs_x_accuracy"] == pytest.approx(result["fields"]["x"])


def test_a_mesh_gives_the_numbers_of_one_device(inputs, sets):
    config = tiny(run={"pairs": (str(sets), "builtin"), "pairs_limit": 3})
    loaded = tokenizer.load(inputs["tokenizer"], lower_case=True)
    (_, _, params), results = make("bert"), []
    for mesh in (one_device_mesh(config), sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        (one,) = evaluation(config, loaded, mesh)
        results.append(one.function(jax.device_put(params, network.param_shardings(config.model, mesh))))
    assert results[0] == pytest.approx(results[1])


def test_pairs_that_cannot_be_read_end_a_run_before_it_begins(inputs, tmp_path):
    path = write(tmp_path / "x.tsv", "good\tbad", "a\tb", "only one")
    with pytest.raises(DataError, match="x.tsv:3: has 1 columns"):
        pretrain(tiny(data=inputs, run={"pairs": (str(path),)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert evaluation(tiny(), tokenizer.load(inputs["tokenizer"], lower_case=True), one_device_mesh(tiny())) == ()
