"""The table of commands, and each command run from its command line to what it prints and leaves behind."""

import inspect
import io
import json
import os
import re

import directories
import light
import pytest

from bertjax.cli import main as cli
from bertjax.cli.commands import COMMANDS

RECIPE = "--config=configs/bert.py:tiny"
PHASES = "--config=bert:tiny,phases"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def run(*arguments):
    """Exit code of a command in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return end.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gets_what_it_takes(name):
    """By the names of its function's parameters; and one that keeps the config must be told where."""
    command = COMMANDS[name]
    takes = {flag.name for flag in command.takes.flags} | ({"words"} if command.takes.words else set())
    takes |= {"read": {"config"}, "kept": {"config", "origin"}, "shown": {"resolved"}, "none": set()}[
        command.takes.config
    ]
    assert takes == set(inspect.signature(command.run).parameters)
    assert command.takes.config != "kept" or command.takes.named["workdir"].required


MISTAKES = [
    (["info"], 2, "--config: is missing"),
    (["info", "--config=configs/none.py"], 2, "configs/none.py"),
    (["info", "--config=configs/bert.py:huge"], 2, "size 'huge' is not one of tiny"),
    (["info", RECIPE, "extra"], 2, "extra: unexpected argument"),
    (["pretrain", RECIPE], 2, "--workdir: is missing"),
    (
        ["pretrain", RECIPE, "--workdir={tmp}", "--top=3"],
        2,
        "--top: is not for this command, but for `bertjax fill-mask`",
    ),
    (["pretrain", RECIPE, "--workdir=~nosuchuser/x"], 2, "~nosuchuser/x: there is no user nosuchuser"),
    (["info", "--config=~nosuchuser/x.py"], 2, "~nosuchuser/x.py: there is no user nosuchuser"),
    (["import", "~nosuchuser/x", "--workdir={tmp}/new"], 2, "~nosuchuser/x: there is no user nosuchuser"),
    (["score", "{tmp}", "--pairs=~nosuchuser/x"], 2, "~nosuchuser/x: there is no user nosuchuser"),
    (["evaluate", "--workdir=/nonexistent"], 2, "/nonexistent/config.json: not found"),
    (["fill-mask", "a [MASK]"], 2, "--workdir: is missing"),
    (["fill-mask", "a [MASK]", "--workdir={tmp}", RECIPE], 2, "--config: is not for this command"),
    (["pretrain", RECIPE, "--workdir=/proc/x"], 7, "/proc/x: cannot be written"),
    (["pretrain", RECIPE, "--workdir={tmp}"], 3, "vocab.txt"),
    (["prepare", "--workdir={tmp}"], 2, "config.json: not found; name a recipe with --config"),
    (["data", "report"], 2, "--config: is missing"),
    (["config", "model.hiden_size"], 2, "did you mean model.hidden_size?"),
    (["config", "xyz"], 2, "xyz: there is no such section or field; the sections are model, compute"),
    (["finetune", RECIPE, "--workdir=gs://bucket/run"], 2, "must be a local"),
    (["pretrain", RECIPE, "--workdir=gs://bucket"], 2, "is no path in a bucket; name one as gs://BUCKET/PATH"),
    (["tokenizer", RECIPE, "--workdir={tmp}", "--config.data.tokenizer=spiece.model"], 2, "end it in .txt"),
    (["tokenizer", RECIPE, "--workdir", "/proc/x"], 7, "/proc/x: cannot be written"),
    (["tokenizer", RECIPE, "--workdir={tmp}", "--config.data.source=none/*.txt"], 3, "none/*.txt"),
    (["prepare", RECIPE, "--workdir={tmp}", "--runner=spark"], 2, "--runner=spark: must be local or beam"),
    (["prepare", RECIPE, "--workdir={tmp}", "--config.data.holdout=0"], 2, "data.holdout = 0.0: pretrain and evaluate"),
    (["prepare", RECIPE, "--workdir={tmp}", "--config.run.learning_rate=1"], 2, "run.learning_rate: there is no such"),
    (["evaluate", "--worcdir={tmp}"], 2, "--worcdir: there is no such flag; did you mean --workdir?"),
    (["data", "verify", RECIPE], 2, "--config.data.prepared=DIR"),
    (["data", "report", RECIPE, "--html=none/x.html"], 2, "the folder none does not exist"),
    (["compile", RECIPE], 2, "--topology: is missing"),
    (["compile", RECIPE, "--topology=v9:2x4"], 2, "--topology=v9:2x4: is no known machine; give v5e:2x4"),
    (["compile", RECIPE, "--topology=v5e:8"], 2, "--topology=v5e:8: is no known machine"),
    (["compile", RECIPE, "--topology=v5e:2x4", "--config.task.kind=classify"], 2, "task.kind = classify"),
    (["profile", RECIPE, "--topology=v9:2x4"], 2, "--topology=v9:2x4: is no known machine"),
    (["profile", RECIPE, "--topology=v5e:2x4", "--steps=3"], 2, "--steps=3: nothing is run with --topology=v5e:2x4"),
    (["profile", RECIPE, "--steps=0"], 2, "--steps=0: must be a whole number of at least 1"),
    (["profile", RECIPE, "--out=/proc/x"], 7, "/proc/x: cannot be written"),
    (["profile", RECIPE, "--config.mesh.tensor=3"], 2, "mesh = data 0, fsdp 1, tensor 3: must multiply to"),
    (["profile", PHASES], 2, "phases.steps = (900000, 100000): are several; say which is meant"),
    (["bench", "train", RECIPE, "--vs=jax"], 2, "--vs=jax: must be hf or hf:eager or hf:sdpa or hf:compile"),
    (
        ["bench", "train", PHASES],
        2,
        "phases.steps = (900000, 100000): are several; say which is meant, --phase=1 to --phase=2",
    ),
    (["bench", "data", PHASES], 2, "phases.steps = (900000, 100000): are several"),
    (["data", "report", PHASES], 2, "phases.steps = (900000, 100000): are several"),
    (["compile", PHASES, "--topology=v5e:2x4", "--phase=3"], 2, "--phase=3: there is none; say which is meant"),
    (["info", PHASES, "--config.phases.seed=1,2"], 2, "phases.seed: there is no such field; the fields are steps"),
    (["bench", "train", RECIPE, "--windows=0"], 2, "--windows=0: must be a whole number of at least 1"),
    (["compare"], 2, "DIR ...: is missing"),
    (["compare", "a", "--out=none/x.png"], 2, "the folder none does not exist"),
    (["compare", "a", "--out=x.txt"], 2, "--out=x.txt: must end in .png"),
    (["score", "--pairs=builtin"], 2, "DIR: is missing"),
    (["score", "{tmp}"], 2, "--pairs: is missing"),
    (["score", "{tmp}", "--pairs=builtin"], 4, "neither a work directory"),
    (["score", "{tmp}", "--pairs=builtin,{tmp}/none.txt"], 3, "none.txt: not found"),
    (["score", "{tmp}", "--pairs=builtin", "--by=mean"], 2, "--by=mean: must be pll or unmasked"),
    (["score", "{tmp}", "--pairs=builtin", "--out=x.txt"], 2, "--out=x.txt: must end in .png"),
    (["import", "--workdir={tmp}"], 2, "HF_DIR: is missing"),
    (["export", "--workdir={tmp}"], 2, "--out: is missing"),
    (["import", "no-such-bert", "--workdir={tmp}/new"], 4, "`hf download no-such-bert"),
    (["fill-mask", "a [MASK]", "--workdir=no-such-bert"], 4, "`hf download no-such-bert"),
    (["bench", "encode"], 2, "DIR: is missing"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_mistakes_are_one_line(arguments, code, named, capsys, tmp_path):
    assert run(*(a.format(tmp=tmp_path) for a in arguments)) == code
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()
    assert line.startswith("bertjax: ") and named in line and not out


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_of_another_command_is_ignored(name, capsys):
    every = {flag for command in COMMANDS.values() for flag in command.takes.named}
    for flag in every - set(COMMANDS[name].takes.named):
        assert run(*name.split(), f"--{flag}=3") == 2
        assert f"--{flag}: is not for this command, but for `bertjax " in capsys.readouterr().err


@pytest.mark.parametrize("text", ["null", "[]", "3", "", "[" * 100_000, '{"run": null}', "\xff"])
def test_a_config_of_a_run_that_is_no_config_is_one_line(text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert run("evaluate", f"--workdir={tmp_path}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"bertjax: {tmp_path / 'config.json'}: ") and "NoneType" not in line


def test_a_config_of_a_run_that_is_a_pipe_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "config.json")
    assert run("evaluate", f"--workdir={tmp_path}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot be read (it is no regular file)" in line


def test_what_a_terminal_would_obey_is_not_in_a_message(tmp_path, capsys):
    name = "x\x1b[31m\u202ey"
    assert run("fill-mask", "a [MASK]", f"--workdir={tmp_path / name}") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable() and r"x\x1b[31m\u202ey" in line


def test_bytes_that_are_no_utf8_are_refused_where_they_are_typed(tmp_path, capsys):
    """As the shell hands over the bytes of Latin-1."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncaf\n")
    directory = directories.write(tmp_path / "hf", tokenizer=vocabulary)
    assert run("fill-mask", "caf\udce9 [MASK]", f"--workdir={directory}") == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "half a character" in line


def test_input_that_is_no_text_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a \xff"), encoding="utf-8"))
    assert run("bench", "encode", str(tmp_path)) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "standard input: is not UTF-8" in line


def test_info_prints_one_object(capsys):
    assert run("info", RECIPE, "--json", "--config.model.num_layers=4") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["parameters"]["total"] == 4_433_468 + 2 * 198_272
    assert set(values["parameters"]) == {"encoder", "pooler", "mlm_head", "pair_head", "total"}
    assert values["flops_per_token"]["total"] > 0
    assert values["memory_bytes"]["optimizer"] == 8 * values["parameters"]["total"]


def test_profile_prints_one_object_and_leaves_trace_and_picture(tmp_path, monkeypatch, capsys):
    from bertjax.bench import memory

    monkeypatch.setattr(memory, "pretraining", light.task)
    flags = ["--config.model.vocab_size=400", "--config.data.batch_size=8", "--config.data.seq_len=32"]
    flags += ["--config.data.max_predictions=5"]
    assert run("profile", RECIPE, *flags, "--steps=1", f"--out={tmp_path / 'new'}", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["steps"] == 1 and json.loads(line)["kinds"]["matrix products"]["seconds"] > 0
    assert len(list(tmp_path.glob("new/plugins/profile/*/*.xplane.pb"))) == 1
    assert (tmp_path / "new" / "operations.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    assert run("profile", "--config=bert:tiny", *flags, "--steps=1") == 0
    assert "matrix products" in capsys.readouterr().out and (tmp_path / "profile" / "operations.png").exists()


def test_a_source_without_text_is_named(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "lines.jsonl").write_text('{"txt": "a"}\n' * 3)
    for name, problem in (("empty.txt", "no document with text"), ("lines.jsonl", "bad_json_lines: 3")):
        source = f"--config.data.source={tmp_path / name}"
        assert run("tokenizer", RECIPE, f"--workdir={tmp_path / 'run'}", source) == 3
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert name in line and problem in line


def test_a_recipe_that_is_fitted_to_a_text_names_one_that_is_not_there(tmp_path, capsys):
    """With the exit code of data, before anything is written."""
    flags = ["--config=configs/small.py", f"--workdir={tmp_path / 'run'}"]
    for command in ("tokenizer", "prepare", "pretrain"):
        assert run(command, *flags, f"--config.data.source={tmp_path / 'none.txt'}") == 3
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "none.txt" in line and line.endswith("no such file; check the path")
    assert not (tmp_path / "run").exists()


def test_data_commands(tmp_path, corpus_file, capsys):
    """report, verify and bench on a data set made for the moment, and on a damaged one of a work directory."""
    flags = ["--config=configs/quickstart.py", f"--config.data.source={corpus_file}", "--config.model.vocab_size=300"]
    flags += ["--config.data.holdout=0.2", "--config.data.prepare_workers=1"]
    keys = {"documents", "sentences", "tokens", "unknown_rate", "duplicate_documents", "skipped", "label_balance"}
    keys |= {"one_segment_share", "mask_rate", "packing_density", "length_histogram"}
    assert run("data", "report", *flags, "--json", f"--html={tmp_path / 'report.html'}") == 0
    out = capsys.readouterr().out
    assert keys <= json.loads(out).keys() and json.loads(out)["documents"] == 40
    assert "<html" in (tmp_path / "report.html").read_text()
    assert run("tokenizer", *flags, f"--workdir={tmp_path}") == run("prepare", *flags, f"--workdir={tmp_path}") == 0
    capsys.readouterr()
    assert run("bench", "data", f"--workdir={tmp_path}", "--seconds=0.1", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"real_tokens_per_second_per_core", "packing_density", "rows", "bound_by"} <= result.keys()
    assert result["rows"] > 0 and 0 < result["packing_density"] <= 1
    assert run("data", "verify", f"--workdir={tmp_path}") == 0
    (shard,) = (tmp_path / "data").glob("bertjax-train*")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    assert run("data", "verify", f"--workdir={tmp_path}") == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert shard.name in line


def test_a_run_of_pretraining_knows_no_labels(trained, capsys):
    _, directory = trained
    assert run("evaluate", f"--workdir={directory}", "--data=x.tsv") == 2
    assert f"--data=x.tsv: {directory} knows no task with labels" in capsys.readouterr().err


def test_the_step_that_is_named_is_evaluated(trained, capsys):
    _, directory = trained
    assert run("evaluate", f"--workdir={directory}", "--step=3") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
    for step, told in (
        ("5", "checkpoints/5: there is no such step"),
        ("best", "no best is kept, as run.keep_best = ''"),
    ):
        assert run("evaluate", f"--workdir={directory}", f"--step={step}") == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line and line.endswith("--step=3|6")


def test_fine_tuning_is_not_taken_for_pretraining(tmp_path, capsys):
    recipe = "--config=finetune/classify"
    for command, named in (
        (["info", recipe], "what fine-tuning costs follows from its files"),
        (["info", recipe, "--probe"], "what fine-tuning costs follows from its files"),
        (["pretrain", recipe, f"--workdir={tmp_path / 'run'}"], "is fine-tuning; run `bertjax finetune`"),
        (["finetune", RECIPE, f"--workdir={tmp_path / 'run'}"], "task.kind = '': is pretraining"),
    ):
        assert run(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line
    assert not (tmp_path / "run").exists()


def test_prepare_makes_the_tokenizer_that_is_missing(tmp_path, corpus_file, capsys):
    """The same as `bertjax tokenizer` makes; one that is there, or is named, is left as it is."""
    own = ["--config=quickstart", f"--config.data.source={corpus_file}", "--config.data.prepare_workers=1"]
    own += ["--config.model.vocab_size=300", "--config.data.holdout=0.2"]
    first, second, third = (f"--workdir={tmp_path / name}" for name in "abc")
    assert run("prepare", first, *own) == 0
    assert run("tokenizer", second, *own) == 0
    made, alike = (tmp_path / name / "tokenizer" / "spiece.model" for name in "ab")
    assert made.read_bytes() == alike.read_bytes()
    capsys.readouterr()
    assert run("prepare", second) == 0
    assert "pieces" not in capsys.readouterr().err
    assert run("prepare", third, *own, f"--config.data.tokenizer={tmp_path / 'd' / 'spiece.model'}") == 3
    assert "d/spiece.model" in capsys.readouterr().err and not (tmp_path / "c" / "tokenizer").exists()


def test_the_whole_path_by_commands(tmp_path, corpus_file, capsys):
    """tokenizer, prepare, pretrain, evaluate, fill-mask: the first names the recipe, the others the directory alone.

    The second time each says that it is done.
    """
    workdir = f"--workdir={tmp_path}"
    first = ["--config=quickstart", f"--config.data.source={corpus_file}"]
    first += ["--config.model.vocab_size=300", "--config.data.batch_size=8", "--config.data.holdout=0.2"]
    first += ["--config.run.eval_rows=16", "--config.optim.warmup_steps=2", "--config.data.prepare_workers=1"]
    first += ["--config.model.hidden_size=32", "--config.model.embedding_size=32", "--config.model.ffn_size=32"]
    for again in (False, True):
        assert run("tokenizer", workdir, *first) == 0
        assert ("exists, and stays" in capsys.readouterr().err) == again
        assert run("prepare", workdir) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["documents"] == 40 and ("already prepared" in err) == again
        assert run("pretrain", workdir, *([] if again else ["--config.run.steps=4"])) == 0
        assert ("is done" in capsys.readouterr().err) == again
    before = (tmp_path / "config.json").read_bytes()
    for field in ("data.holdout=0.3", "model.vocab_size=200", "optim.lr=0.5"):
        for command in ("tokenizer", "prepare", "pretrain"):
            assert run(command, workdir, f"--config.{field}") == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"bertjax: {field.replace('=', ' = ')}: ")
    assert (tmp_path / "config.json").read_bytes() == before
    assert run("config", workdir, "--json", "run.steps", "model.hidden_size", "model.share", "run.keep") == 0
    sources = {name: field["from"] for name, field in json.loads(capsys.readouterr().out).items()}
    assert sources == {
        "model.hidden_size": "remembered",
        "model.share": "recipe quickstart",
        "run.steps": "remembered",
        "run.keep": "default",
    }
    assert run("evaluate", f"--workdir={tmp_path}") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"steps", "mlm_loss", "mlm_accuracy", "pair_accuracy", "unigram_loss", "tokens_per_second", "workdir"}
    assert keys <= set(result) and result["steps"] == 4
    assert run("fill-mask", f"--workdir={tmp_path}", "--top=2", "The [MASK] is.", "A [MASK] or [MASK]?") == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and all(re.search(r"\d\.\d{3}", line) for i, line in enumerate(shown) if i not in (0, 2))
    assert run("fill-mask", f"--workdir={tmp_path}", "--json", "The [MASK] is.") == 0
    assert len(json.loads(capsys.readouterr().out)["choices"][0]) == 5
