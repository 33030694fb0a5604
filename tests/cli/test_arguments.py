"""`bertjax.cli.arguments`: flags and words get their values; every mistake is in one report, and only the mistakes."""

from pathlib import Path

import pytest

from bertjax.cli.arguments import (
    Flag,
    Takes,
    Words,
    directory,
    new_file,
    one_of,
    parse,
    run_directory,
    saved_step,
    seconds,
    several,
    whole,
)
from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.errors import ConfigError
from bertjax.train import workdir

RECIPE = f"--config={Path(__file__).parents[2] / 'configs' / 'bert.py'}:tiny"
WORKDIR = Flag("workdir", "DIR", "the directory", directory, required=True)
NUMBER = Flag("number", "N", "a number", whole(2), 7)
SWITCH = Flag("switch", "", "a switch")
ONE = Words("FILE", "a file", 1, 1)


def mistakes(argv, takes, taken_by=()):
    with pytest.raises(ConfigError) as error:
        parse(argv, takes, dict(taken_by))
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("argv", "takes", "only"),
    [
        ([], Takes(), "--config: is missing"),
        ([], Takes(flags=(WORKDIR,)), "--workdir: is missing"),
        ([], Takes("none", (WORKDIR,)), "--workdir: is missing"),
        (["--confg=a.py"], Takes(flags=(WORKDIR,)), "--confg: there is no such flag; did you mean --config?"),
        (["--seed=1"], Takes(), "--seed: there is no such flag; did you mean --config.run.seed?"),
        (["--seed=1"], Takes("none"), "--seed: there is no such flag; --help lists"),
        (["--workdir="], Takes(flags=(WORKDIR,)), "--workdir=: must be a local"),
        (["--workdir=gs://b/x"], Takes("none", (WORKDIR,)), "--workdir=gs://b/x: must be a local"),
        ([RECIPE, RECIPE], Takes(), "--config: is given twice"),
        (["--number=1"], Takes("none", (NUMBER,)), "--number=1: must be a whole number of at least 2"),
        (["--number=x"], Takes("none", (NUMBER,)), "--number=x: must be a whole number of at least 2"),
        (["--number"], Takes("none", (NUMBER,)), "--number: needs a value, --number=N"),
        (["--switch=no"], Takes("none", (SWITCH,)), "--switch=no: takes no value"),
        (["word"], Takes("none"), "word: unexpected argument"),
        (["a", "b"], Takes("none", words=ONE), "b: unexpected argument"),
        ([], Takes("none", words=ONE), "FILE: is missing; name a file"),
        (["-number=3"], Takes("none", (NUMBER,)), "-number=3: unexpected argument; flags begin with --"),
    ],
)
def test_only_the_fault_is_named(argv, takes, only):
    (line,) = mistakes(argv, takes)
    assert line.startswith(only)


def test_a_flag_of_another_command_is_refused_with_its_name():
    (line,) = mistakes(["--top=3"], Takes("none"), {"top": ["fill-mask"], "config": ["info", "bench"]})
    assert line == "--top: is not for this command, but for `bertjax fill-mask`"
    (line,) = mistakes(["--config.run.seed=3"], Takes("none"), {"top": ["fill-mask"], "config": ["info", "bench"]})
    assert line.endswith("for `bertjax info`, `bertjax bench`")


def test_all_mistakes_are_in_one_report():
    flags = ["--config.modl.x=1", "--config.run.steps=many", "--config.model.num_heads=3", "--config.optim.lr=fast"]
    lines = mistakes([RECIPE, *flags, "--number=0", "word"], Takes(flags=(WORKDIR, NUMBER)))
    # Relations between fields are only checked once each value is possible by itself.
    for text in ("--workdir: is missing", "--number=0", "word: ", "modl", "run.steps=many", "optim.lr=fast"):
        assert sum(text in line for line in lines) == 1, lines
    assert len(lines) == 6


def test_a_command_gets_what_it_takes_of_the_config(tmp_path):
    saved, flag = override(Config(), run={"seed": 3}), f"--workdir={tmp_path}"
    workdir.save_config(tmp_path, saved)
    assert parse([flag], Takes(), {}) == {"config": saved}
    assert parse([flag], Takes(flags=(WORKDIR,)), {}) == {"config": saved, "workdir": tmp_path}
    changed = parse([flag, "--config.run.keep=1"], Takes("kept", (WORKDIR,)), {})
    origin = workdir.Origin(given=("run.keep",))
    assert changed == {"config": override(saved, run={"keep": 1}), "origin": origin, "workdir": tmp_path}
    assert parse([flag, RECIPE], Takes(), {})["config"].model.num_layers == 2
    assert parse([flag], Takes("shown"), {})["resolved"].config == saved
    assert parse([], Takes("shown"), {})["resolved"].config == Config()
    assert workdir.load_config(tmp_path) == saved
    (tmp_path / workdir.CONFIG).write_text("null")
    for takes in (Takes(), Takes("kept", (WORKDIR,)), Takes("shown")):
        (line,) = mistakes([flag], takes)
        assert line.startswith(f"{tmp_path / workdir.CONFIG}: ")


def test_it_is_said_what_stays_in_spite_of_the_recipe(tmp_path, capsys):
    flag = f"--workdir={tmp_path}"
    values = parse([flag, RECIPE, "--config.run.seed=3"], Takes("kept"), {})
    workdir.save_config(tmp_path, values["config"], values["origin"])
    assert parse([flag], Takes(), {}) and capsys.readouterr().err == ""
    assert parse([flag, RECIPE], Takes(), {})["config"].run.seed == 3
    assert "still has run.seed = 3;" in capsys.readouterr().err


def test_flags_and_words(tmp_path):
    takes = Takes("none", (WORKDIR, NUMBER, SWITCH), Words("TEXT", "texts"))
    values = parse(["a", "--workdir", str(tmp_path), "--switch", "b", "--number=3", "--", "--c", "-d"], takes, {})
    assert values == {"workdir": tmp_path, "number": 3, "switch": True, "words": ["a", "b", "--c", "-d"]}
    values = parse([f"--workdir={tmp_path}"], takes, {})
    assert values == {"workdir": tmp_path, "number": 7, "switch": False, "words": []}


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match="cannot be written"):
        new_file(".html")(str(tmp_path / "x.html"))


def test_readers(tmp_path):
    assert seconds("0.5") == 0.5 and one_of("a", "b")("b") == "b"
    assert [saved_step(text) for text in ("0", "12", "newest", "best")] == [0, 12, "newest", "best"]
    assert several("a, b/c") == ("a", "b/c")
    picture = new_file(".png", ".svg")
    assert picture(str(tmp_path / "x.png")) == tmp_path / "x.png" and directory("~/x").is_absolute()
    assert str(run_directory("gs://bkt/x/")) == "gs://bkt/x" and run_directory(str(tmp_path)) == tmp_path
    for read, text, must in [
        (seconds, "0", "seconds above 0"),
        (seconds, "nan", "seconds above 0"),
        (one_of("a", "b"), "c", "must be a or b"),
        (saved_step, "-1", "the number of a step, newest or best"),
        (saved_step, "last", "the number of a step, newest or best"),
        (several, "a,,b", "one or several, with commas between"),
        (picture, str(tmp_path / "x.jpg"), "must end in .png or .svg"),
        (picture, str(tmp_path / "none" / "x.png"), f"the folder {tmp_path / 'none'} does not exist"),
        (new_file(), str(tmp_path), "must be a file"),
        (picture, "gs://b/x.png", "must be a file of this machine"),
        (directory, "gs://b/x", "must be a local or mounted directory"),
        (run_directory, "s3://b/x", "must be a local or mounted directory"),
    ]:
        with pytest.raises(ValueError, match=must.replace(".", r"\.")):
            read(text)
