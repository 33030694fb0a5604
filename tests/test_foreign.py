"""A model directory that somebody else made, whatever is in it: it loads, or an error in lines, and never a traceback,
a hang or an end of the process.

The short form tries some damages of each kind of file; the whole form, marked `long`, tries all.
"""

import copy
import itertools
import json
import os
import time
from dataclasses import replace

import foreign
import pytest
import second_reading
from attack import Tally

from bertjax.data import trial
from bertjax.errors import UserError
from bertjax.huggingface.directory import read
from bertjax.huggingface.safetensors import WEIGHTS
from bertjax.trained.load import load

KINDS = ("bert", "albert", "roberta", "nomic", "modernbert", "bert_classify", "distilbert_span", "modernbert_tag")
SLOWEST = 30.0  # seconds


@pytest.fixture(scope="module")
def directories(inputs, tmp_path_factory):
    return foreign.directories(tmp_path_factory.mktemp("foreign"), inputs["tokenizer"])


@pytest.fixture(scope="module")
def tally(pytestconfig):
    """Of all tests together; the long form prints it when they are done."""
    tally = Tally()
    yield tally
    if "not long" not in pytestconfig.getoption("markexpr"):
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{tally.table()}")


def try_all(directory, file, damages, tally=None):
    """The names of those with which it still loads: the model that was there, or what the file now says."""
    path, loads, wrong, tally = directory / file, [], [], tally or Tally()
    before, whole = path.read_bytes(), load(directory)
    try:
        for name, content in damages:
            path.write_bytes(content)
            start = time.monotonic()
            found = foreign.outcome(directory)
            assert time.monotonic() - start < SLOWEST, name
            if isinstance(found, list):
                tally.add(file, name, "refused")
                continue
            loads.append(name)
            verdict = second_reading.verdict(found, whole, file, before, content)
            tally.add(file, name, verdict)
            if verdict == second_reading.WRONG:
                wrong.append((name, second_reading.changed(found, whole)))
    finally:
        path.write_bytes(before)
    assert not wrong
    return loads


def test_what_is_whole_loads(directories):
    for kind in KINDS:
        assert not isinstance(foreign.outcome(directories[kind]), list)


def test_what_a_second_reading_finds(directories):
    """Another value that the file says, one that it does not say, and one that it says in vain."""
    whole = load(directories["bert"])
    contents = {file: (directories["bert"] / file).read_bytes() for file in ("config.json", "vocab.txt", WEIGHTS)}

    def verdict(file, found, after=b""):
        return second_reading.verdict(found, whole, file, contents[file], after or contents[file])

    other = {
        "config.json": replace(whole, config=replace(whole.config, layer_norm_eps=0.5)),
        "vocab.txt": replace(whole, tokenizer=copy.copy(whole.tokenizer)),
        WEIGHTS: replace(whole, params=copy.deepcopy(whole.params)),
    }
    other["vocab.txt"].tokenizer.pieces = [piece.replace("b", "B") for piece in whole.tokenizer.pieces]
    next(foreign.leaves(other[WEIGHTS].params)).flat[0] *= -1
    damaged = {
        "config.json": contents["config.json"].replace(b'"layer_norm_eps": 1e-12', b'"layer_norm_eps": 0.5'),
        "vocab.txt": contents["vocab.txt"].replace(b"b", b"B"),
        WEIGHTS: contents[WEIGHTS][:-1] + bytes([contents[WEIGHTS][-1] ^ 128]),
    }
    for file, found in other.items():
        assert verdict(file, whole) == second_reading.SAME
        assert verdict(file, found, damaged[file]) == second_reading.ANOTHER
        assert verdict(file, found) == verdict(file, whole, damaged[file]) == second_reading.WRONG
    for file, found in itertools.permutations(other, 2):
        assert verdict(file, other[found], damaged[file]) == second_reading.WRONG


@pytest.mark.parametrize("kind", KINDS)
def test_some_damages_of_config_json(directories, kind):
    path = directories[kind] / "config.json"
    damages = dict(foreign.of_json(path.read_bytes(), most=12))
    assert not {"null", "list", "deep", "huge number"} & set(try_all(directories[kind], path.name, damages.items()))


def test_some_damages_of_weights(directories):
    path = directories["bert"] / "model.safetensors"
    content = path.read_bytes()
    of_bytes = {name: text for name, text in foreign.of_bytes(content) if not name.startswith("flip")}
    assert try_all(path.parent, path.name, of_bytes.items()) == []
    damages = list(foreign.of_header(content, most=8))
    assert {name for name, _ in damages} - set(try_all(path.parent, path.name, damages)) > {"header: null"}


def test_some_damages_of_tokenizers(directories):
    """Without the trial of what parses: the long form has that too."""
    for kind, file in (("bert", "vocab.txt"), ("albert", "spiece.model"), ("roberta", "tokenizer.json")):
        path = directories[kind] / file
        damages = {name: text for name, text in foreign.of_bytes(path.read_bytes()) if name in ("noise", "zeros")}
        assert try_all(path.parent, file, damages.items()) == []
    content = (directories["bert"] / "tokenizer_config.json").read_bytes()
    harmless = try_all(directories["bert"], "tokenizer_config.json", foreign.of_json(content, most=9))
    assert not {"null", "list", "number"} & set(harmless)


@pytest.mark.parametrize("name", foreign.FATAL)
def test_a_tokenizer_that_would_take_the_process_along(directories, name, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 2)
    path = directories["roberta"] / "tokenizer.json"
    content = json.dumps(json.loads(path.read_bytes()) | foreign.FATAL[name]).encode()
    assert try_all(path.parent, path.name, [(name, content)]) == []


def test_a_tokenizer_without_a_piece_for_what_it_does_not_know(directories):
    assert try_all(directories["roberta"], "tokenizer.json", foreign.without_unknown().items()) == []


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"])
def test_what_is_no_regular_file_is_refused_by_name(directories, file):
    """A pipe would wait for ever, a device never end."""
    path = directories["bert"] / file
    content = path.read_bytes()
    path.unlink()
    try:
        for make in foreign.special_files(path).values():
            make()
            start = time.monotonic()
            lines = foreign.outcome(path.parent)
            assert (
                isinstance(lines, list) and all(str(path) in line for line in lines) and time.monotonic() - start < 5.0
            )
            (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
    finally:
        path.write_bytes(content)


def test_a_shard_or_an_index_that_is_a_pipe_is_refused(directories, tmp_path):
    source = directories["bert"]
    for file in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((source / file).read_bytes())
    os.mkfifo(tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(UserError, match="a.safetensors: cannot be read .*no regular file"):
        read(tmp_path)
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(UserError, match="index.json: cannot be read .*no regular file"):
        read(tmp_path)


def test_each_file_of_an_export_that_changes_is_noticed(inputs, tmp_path):
    """One bit in any place: a foreign file may hide it, ours has its SHA-256 beside it."""
    out = foreign.write_whole(tmp_path / "out", inputs["tokenizer"])
    assert load(out).tokenizer
    recorded = [line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()]
    files = ("config.json", "model.safetensors", "spiece.model", "tokenizer_config.json")
    assert {*files, "tokenizer.json"} <= {*recorded}
    assert "README.md" not in recorded and all((out / name).is_file() for name in recorded)
    for file in files:
        content = (out / file).read_bytes()
        for share in (0.0, 0.5, 0.999):
            at = int(share * len(content))
            (out / file).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(UserError, match=rf"{file}.* cannot be read .*not the file that SHA256SUMS"):
                load(out)
        (out / file).write_bytes(content)
    assert load(out).tokenizer


# The whole form ------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_of_config_json(directories, kind, tally):
    content = (directories[kind] / "config.json").read_bytes()
    try_all(directories[kind], "config.json", foreign.of_json(content, most=10_000), tally)
    try_all(directories[kind], "config.json", foreign.of_bytes(content), tally)


@pytest.mark.long
def test_every_damage_of_weights(directories, tally):
    content = (directories["albert"] / "model.safetensors").read_bytes()
    try_all(directories["albert"], "model.safetensors", foreign.of_header(content, most=400), tally)
    try_all(directories["albert"], "model.safetensors", foreign.of_bytes(content, flips=100), tally)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "file"),
    [("bert", "vocab.txt"), ("albert", "spiece.model"), ("roberta", "tokenizer.json"), ("nomic", "tokenizer.json")],
)
def test_every_damage_of_a_tokenizer(directories, kind, file, tally):
    content = (directories[kind] / file).read_bytes()
    try_all(directories[kind], file, foreign.of_bytes(content, flips=40), tally)
    if file == "tokenizer.json":
        try_all(directories[kind], file, foreign.of_json(content, most=60), tally)
    content = (directories[kind] / "tokenizer_config.json").read_bytes()
    try_all(directories[kind], "tokenizer_config.json", foreign.of_json(content, most=400), tally)
