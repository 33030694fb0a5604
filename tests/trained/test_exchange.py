"""`import` and `export`: a model survives the way in and out, and nothing is left of what fails."""

import os
import shutil
from dataclasses import replace

import directories
import numpy as np
import pytest

import bertjax
from bertjax import steps
from bertjax.cli import main as cli
from bertjax.config.recipe import override
from bertjax.config.task_fields import TaskConfig
from bertjax.data import tokenizer
from bertjax.errors import CheckpointError, DataError, NumericError, StorageError
from bertjax.steps import numbers
from bertjax.train import checkpoint, metrics, workdir
from bertjax.train.state import TrainState
from bertjax.trained.exchange import export_directory, import_directory
from bertjax.trained.load import load

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdef")]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("bert", "bert_one_type", "bert_without_pair", "albert", "albert_2_groups", "distilbert"),
        *("distilbert_classify", "bert_choice", "modernbert_tag"),
    ],
)
def test_import_and_export_give_the_same_bytes(kind, vocabulary, tmp_path):
    source, run, out = tmp_path / "hf", tmp_path / "run", tmp_path / "out"
    directories.write(source, kind, tokenizer=vocabulary, lower_case=False)
    made = import_directory(source, run)
    assert made == workdir.load_config(run) and made.data.case == "cased"
    found, (_, params) = load(run), directories.ours(kind)
    directories.assert_same(found.params, params)
    assert export_directory(made, run, out) == 0
    for name in ("model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "out", "run", "vocab.txt"]


def test_only_the_parameters_are_written(vocabulary, tmp_path):
    made = import_directory(directories.write(tmp_path / "hf", "albert", tokenizer=vocabulary), tmp_path / "run")
    (file,) = (tmp_path / "hf").glob("*.safetensors")
    written = sum(p.stat().st_size for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file())
    assert written < 1.5 * file.stat().st_size + 100_000
    assert numbers(tmp_path / "run" / "checkpoints") == [0]
    assert made.data.examples == "sop"


def test_the_card_names_no_place(vocabulary, tmp_path):
    made = import_directory(directories.write(tmp_path / "hf", tokenizer=vocabulary), tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(
        b'{"step": 0, "eval_mlm_loss": 3.5}\n\xff\n{"step": 0, "eval_mlm_loss": 2.5}\n{"step": 0, "loss": 1.0}\n'
    )
    places = {"source": (str(tmp_path / "source"),), "prepared": str(tmp_path / "prepared")}
    phases = {"steps": (made.run.steps - 1, 1)}
    config = override(made, data=places, run={"init_from": str(tmp_path / "hf")}, phases=phases)
    export_directory(config, tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for place in (str(tmp_path), tmp_path.name, "init_from", "source", "prepared"):
        assert place not in card
    assert "| `held out.eval_mlm_loss` | `2.5` |" in card and "| `steps` | `0` |" in card
    assert "| `config.phases.steps` | `[999999, 1]` |" in card
    assert tokenizer.load(vocabulary, lower_case=True).digest in card


def test_transformers_loads_the_export(vocabulary, tmp_path):
    transformers = directories.hf()
    made = import_directory(directories.write(tmp_path / "hf", tokenizer=vocabulary), tmp_path / "run")
    export_directory(made, tmp_path / "run", tmp_path / "out")
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = bertjax.load(tmp_path / "out")
    encoded = words(["ab c", "d"], padding=True, return_tensors="pt")
    hidden, mask = theirs(**encoded).last_hidden_state.detach(), encoded["attention_mask"][:, :, None]
    np.testing.assert_allclose(ours.encode_text(["ab c", "d"]), (hidden * mask).sum(1) / mask.sum(1), atol=2e-5)


def test_a_head_that_is_not_there_is_said(vocabulary, tmp_path, capsys):
    source = directories.write(tmp_path / "hf", tokenizer=vocabulary)
    heads = ("cls.", "bert.pooler")
    directories.restore(source, {k: v for k, v in directories.stored(source).items() if not k.startswith(heads)})
    made = import_directory(source, tmp_path / "run")
    assert made.model.heads == ("mlm_head",) and made.objective.pair == 0.0
    assert "has no head for masked words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("bert_classify", {"kind": "classify", "labels": directories.LABELS}),
        ("albert_regress", {"kind": "regress"}),
        ("distilbert_choice", {"kind": "choice", "endings": ("ending0", "ending1", "ending2", "ending3")}),
        ("bert_tag", {"kind": "tag", "labels": directories.ASKED["tag"]["labels"]}),
        ("modernbert_span", {"kind": "span", "max_question": 24}),
    ],
)
def test_a_head_for_labels_is_of_a_run_of_its_kind(kind, task, vocabulary, tmp_path, capsys):
    """And there is no MLM head to be missed."""
    made = import_directory(directories.write(tmp_path / "hf", kind, tokenizer=vocabulary), tmp_path / "run")
    assert made.task == replace(TaskConfig(), **task) and made.objective.pair == 0.0
    assert made.data.packing == len(task.get("endings", "1"))
    assert load(tmp_path / "run").heads == set(directories.model_of(kind).heads)
    assert not capsys.readouterr().err


def test_a_published_classifier_is_imported_and_predicts_what_it_did(tmp_path):
    """BERT-Tiny, fine-tuned on SST-2: from its sentence to its logits."""
    text, _, expected = directories.real_classifier(tmp_path / "hf")
    shutil.copyfile(directories.shared("vocab", "bert_uncased.txt"), tmp_path / "hf" / "vocab.txt")
    import_directory(tmp_path / "hf", tmp_path / "run")
    model = bertjax.load(tmp_path / "run")
    (found,) = model.classify([text])
    probabilities = np.exp(expected) / np.exp(expected).sum()
    assert found.label == "LABEL_1" and list(found.scores) == ["LABEL_0", "LABEL_1"]
    np.testing.assert_allclose(list(found.scores.values()), probabilities, atol=1e-6, rtol=0)
    special, (ids, _) = model.tokenizer.special, model.tokenizer.encode_batch([text])
    logits = model(np.array([[special.cls, *ids, special.sep]]), outputs=("class_logits",)).class_logits
    np.testing.assert_allclose(logits[0], expected, atol=1e-5, rtol=0)


def test_the_card_of_a_task_shows_its_fields_and_last_numbers_but_no_file(vocabulary, tmp_path):
    source = directories.write(tmp_path / "hf", "bert_classify", tokenizer=vocabulary)
    made = import_directory(source, tmp_path / "run")
    lines = (
        '{"step": 0, "dev_accuracy": 0.5}',
        '{"step": 0, "dev_accuracy": 0.75}',
        '{"step": 0, "test_accuracy": 0.5}',
    )
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    private = {"train": ("/home/me/train.tsv",), "dev": ("/home/me/dev.tsv",), "test": ("/home/me/test.tsv",)}
    export_directory(override(made, task=private), tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "/home/me" not in card and "| `config.task.kind` | `classify` |" in card and "objective" not in card
    assert "| `held out.dev_accuracy` | `0.75` |" in card and "| `held out.test_accuracy` | `0.5` |" in card


def test_the_best_or_a_step_by_its_number_is_exported_with_its_own_numbers(trained, tmp_path):
    """Those of a later evaluation are of another model."""
    config, directory = trained
    lines = {line["step"]: line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line}
    weights = {}
    for step in (3, "newest"):
        out = tmp_path / f"out{step}"
        found = export_directory(config, directory, out, step)
        assert found == (3 if step == 3 else 6)
        card, value = (out / "README.md").read_text(), lines[found]["eval_mlm_loss"]
        assert f"| `steps` | `{found}` |" in card and f"| `held out.eval_mlm_loss` | `{value}` |" in card
        weights[found] = (out / "model.safetensors").read_bytes()
    assert weights[3] != weights[6]
    with pytest.raises(CheckpointError, match=r"/checkpoints: no best is kept, as run.keep_best = ''; .*--step=3\|6$"):
        export_directory(config, directory, tmp_path / "out", "best")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_what_fails(vocabulary, tmp_path, monkeypatch):
    source = directories.write(tmp_path / "hf", tokenizer=vocabulary)
    run, out = tmp_path / "new" / "run", tmp_path / "out"
    mine = [path.with_name(f".{path.name}.partial-{os.getpid()}") for path in (run, out)]
    for path in mine:
        path.mkdir(parents=True)
        (path / "notes.txt").write_text("mine")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for place, name in ((workdir, "save_config"), (steps, "write_manifest")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(StorageError, match="No space left"):
                import_directory(source, run)
            assert list((tmp_path / "new").iterdir()) == mine[:1]
    made = import_directory(source, run)
    for taken in (run, source, vocabulary):
        with pytest.raises(StorageError, match="not an empty directory"):
            import_directory(source, taken)
        with pytest.raises(StorageError, match="not an empty directory"):
            export_directory(made, run, taken)
    other = override(made, data={"tokenizer": str(tmp_path / "other.txt")})
    (tmp_path / "other.txt").write_text("\n".join([*PIECES, "more"]) + "\n")
    with pytest.raises(DataError, match=r"data\.tokenizer"):
        export_directory(other, run, out)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export_directory(made, tmp_path / "new", out)
    assert not out.exists()
    (source / "vocab.txt").unlink()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (source / file).unlink(missing_ok=True)
    with pytest.raises(DataError, match="no tokenizer file"):
        import_directory(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    export_directory(made, run, out)
    assert all((path / "notes.txt").read_text() == "mine" for path in mine)


def test_weights_that_are_no_numbers_go_nowhere(vocabulary, tmp_path, capsys, monkeypatch):
    """One line that names the parameter and the directory, exit 5, and nothing written."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        return end.value.code, capsys.readouterr().err.strip()

    source, work = directories.write(tmp_path / "hf", tokenizer=vocabulary), tmp_path / "run"
    made = import_directory(source, work)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.guard, "check_state", lambda *_: None)
        params = load(work).params
        params["encoder"]["embeddings"]["word"][3, 1] = np.nan
        digest = tokenizer.load(vocabulary, lower_case=True).digest
        writes = checkpoint.Checkpoints(work / "checkpoints", keep=2)
        writes.save(
            1,
            TrainState(step=np.int32(1), params=params, opt_state=()),
            identity={"data set": "", "tokenizer": digest},
            rows=0,
            config=made,
        )
        writes.close()
    name = "bert.embeddings.word_embeddings.weight"
    stored = directories.stored(source)
    directories.restore(source, stored | {name: np.full_like(stored[name], np.inf)})
    for arguments, named in (
        (
            ["export", f"--workdir={work}", f"--out={tmp_path / 'out'}"],
            f"{work}/checkpoints/1: encoder/embeddings/word",
        ),
        (["fill-mask", f"--workdir={work}", "a [MASK]"], f"{work}/checkpoints/1: encoder/embeddings/word"),
        (["import", source, f"--workdir={tmp_path / 'new'}"], f"{source}/model.safetensors: {name}"),
    ):
        code, line = run(*arguments)
        assert code == 5 and len(line.splitlines()) == 1 and f"{named} is not finite" in line, line
    for path in (work, source):  # what `run.init_from`, `teacher.path` and `compare` read
        with pytest.raises(NumericError, match="is not finite"):
            bertjax.load(path)
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


def test_the_commands(vocabulary, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        return end.value.code, capsys.readouterr().err.strip()

    source = directories.write(tmp_path / "hf", tokenizer=vocabulary)
    to = f"--workdir={tmp_path / 'run'}"
    assert run("import", source, to) == (0, f"{tmp_path / 'run'}: 4 layers of 32, as step 0")
    assert run("export", to, f"--out={tmp_path / 'out'}") == (0, f"{tmp_path / 'out'}: step 0 of {tmp_path / 'run'}")
    for arguments, code, named in (
        (["import", to], 2, "name the Hugging Face directory"),
        (["import", source, source, to], 2, str(source)),
        (["import", source], 2, "--workdir: is missing"),
        (["import", tmp_path / "none", f"--workdir={tmp_path / 'other'}"], 4, "none: there is no such directory"),
        (["import", source, to], 7, "not an empty directory"),
        (["export", to], 2, "--out: is missing"),
        (["export", to, f"--out={tmp_path / 'x'}", "--step=last"], 2, "--step=last: must be the number of a step"),
        (["export", to, f"--out={tmp_path / 'x'}", "--step=7"], 4, "checkpoints/7: there is no such step; name one"),
        (["export", to, f"--out={tmp_path / 'x'}", "--step=best"], 4, "no best is kept, as run.keep_best = ''"),
        (["export", to, f"--out={tmp_path / 'out'}"], 7, "not an empty directory"),
        (["export", f"--workdir={tmp_path / 'none'}", f"--out={tmp_path / 'x'}"], 2, "config.json: not found"),
    ):
        found, line = run(*arguments)
        assert found == code and named in line and len(line.splitlines()) == 1, line
