"""`bertjax.train.workdir`: places, and what a run cannot change half-way."""

import dataclasses
import json

import pytest

from bertjax import storage
from bertjax.config import made
from bertjax.config.limits import limits
from bertjax.config.recipe import override, to_dict
from bertjax.config.schema import Config, DataConfig
from bertjax.errors import ConfigError, StorageError
from bertjax.train import workdir

ORIGIN = workdir.Origin("bert:tiny", ("run.seed",), ("model.vocab_size",))
FIELDS = [(section, name) for section, fields in to_dict(Config()).items() for name in fields]
THINGS = {"tokenizer": "tokenizer/spiece.model", "data": "data/bertjax.json", "run": "checkpoints/3/x"}
"""What can have been made, and a file of it."""


def test_places(tmp_path):
    assert workdir.tokenizer_path(tmp_path, DataConfig()) == tmp_path / "tokenizer" / "spiece.model"
    assert workdir.prepared_path(tmp_path, DataConfig()) == tmp_path / "data"
    for data in (DataConfig(alphabet="dna"), DataConfig(format="ids")):
        assert workdir.tokenizer_path(tmp_path, data) == tmp_path / "tokenizer" / "tokenizer.json"
    named = DataConfig(tokenizer="vocab.txt", prepared="~/data")
    assert str(workdir.tokenizer_path(tmp_path, named)) == "vocab.txt"
    assert workdir.prepared_path(tmp_path, named).is_absolute()


def test_config_round_trip_and_damage(tmp_path):
    workdir.save_config(tmp_path, Config())
    assert workdir.load_config(tmp_path) == Config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        workdir.load_config(tmp_path)
    with pytest.raises(ConfigError, match="not found"):
        workdir.load_config(tmp_path / "none")


def test_what_may_change_half_way(tmp_path):
    fields = to_dict(Config())
    same = override(Config(), run={"steps": 2_000_000, "keep": 9}, compute={"scan": False}, mesh={"fsdp": 2})
    workdir.check_same_run(tmp_path, fields, same)
    other = override(Config(), optim={"lr": 0.5}, model={"dropout": 0.0})
    with pytest.raises(ConfigError) as error:
        workdir.check_same_run(tmp_path, fields, other)
    assert len(str(error.value).splitlines()) == 2 and "optim.lr = 0.5" in str(error.value)
    with pytest.raises(ConfigError, match="^model.dropout[^\n]*$"):
        workdir.check_same_run(tmp_path, fields, other, sections=("model",))


def other(section, name):
    """The defaults with another value of one field, possible or not."""
    fields = getattr(Config(), section)
    value = getattr(fields, name)
    limit = limits(fields)[name]
    if isinstance(value, tuple):
        new = (*value, *(value[:1] or (1,)))
    elif isinstance(value, bool):
        new = not value
    elif isinstance(value, str):
        new = next((choice for choice in limit.choices if choice != value), "other")
    else:
        new = value + 1
    return dataclasses.replace(Config(), **{section: dataclasses.replace(fields, **{name: new})})


def make(directory, *things):
    """A directory with a config and these things made with it; returns what is in it."""
    for thing in things:
        path = directory / THINGS[thing]
        path.parent.mkdir(parents=True)
        path.write_text(thing)
    workdir.save_config(directory, Config(), ORIGIN)
    return contents(directory)


def contents(directory):
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def quick_disk(monkeypatch):
    """For tests that write hundreds of times."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def test_the_first_command_writes_the_config_and_the_next_reads_it(tmp_path):
    directory = tmp_path / "new" / "run"
    assert workdir.remembered(directory) is None
    workdir.remember(directory, override(Config(), run={"seed": 3}), ORIGIN)
    assert workdir.remembered(directory) == (override(Config(), run={"seed": 3}), ORIGIN)
    values = json.loads((directory / "config.json").read_text())
    assert values.pop("origin") == {"recipe": "bert:tiny", "given": ["run.seed"], "fitted": ["model.vocab_size"]}
    assert values == to_dict(override(Config(), run={"seed": 3}))


def test_all_may_change_as_long_as_nothing_is_made(tmp_path, quick_disk):
    for section, name in FIELDS:
        workdir.save_config(tmp_path, Config(), ORIGIN)
        workdir.remember(tmp_path, other(section, name), ORIGIN)
        assert json.loads((tmp_path / "config.json").read_text())[section][name] != to_dict(Config())[section][name]


@pytest.mark.parametrize("things", [["tokenizer"], ["data"], ["tokenizer", "data"], ["run"], [*THINGS]], ids="-".join)
def test_what_something_was_made_with_is_refused_by_name(tmp_path, quick_disk, things):
    """In one line with the fix; and nothing changes. What nothing was made with may change, until a run has begun."""
    before = make(tmp_path, *things)
    for section, name in FIELDS:
        field = f"{section}.{name}"
        fixed = {
            "tokenizer": field in made.TOKENIZER,
            "data": field in made.DATA_SET,
            "run": not limits(getattr(Config(), section))[name].may_change,
        }
        if any(fixed[thing] for thing in things):
            with pytest.raises(ConfigError) as error:
                workdir.remember(tmp_path, other(section, name), ORIGIN)
            (line,) = str(error.value).splitlines()
            assert line.startswith(f"{field} = ") and str(tmp_path) in line, line
            assert ("checkpoints" in line or "--workdir" in line) == ("run" in things and fixed["run"])
        else:
            workdir.remember(tmp_path, other(section, name), ORIGIN)
            # A run that has begun writes it itself.
            assert (contents(tmp_path) == before) == ("run" in things)
            workdir.save_config(tmp_path, Config(), ORIGIN)
        assert contents(tmp_path) == before, field


def test_the_fix_works(tmp_path):
    """What was made stays in use where it is named: whatever it was made of; or it makes room."""
    make(tmp_path, "tokenizer", "data")
    changed = override(Config(), data={"source": ("b",)})
    with pytest.raises(ConfigError) as error:
        workdir.remember(tmp_path, changed, ORIGIN)
    named = {"tokenizer": str(tmp_path / "tokenizer" / "spiece.model"), "prepared": str(tmp_path / "data")}
    assert all(f"--config.data.{field}={path}" in str(error.value) for field, path in named.items())
    workdir.remember(tmp_path, override(changed, data=named), ORIGIN)
    workdir.save_config(tmp_path, Config(), ORIGIN)
    for path in ("tokenizer/spiece.model", "data/bertjax.json"):
        (tmp_path / path).unlink()
    workdir.remember(tmp_path, changed, ORIGIN)
    assert workdir.load_config(tmp_path) == changed


def test_a_data_set_keeps_its_tokenizer(tmp_path):
    """Under another name it is the same one; where it is gone, whether it fits is seen when both are opened."""
    make(tmp_path, "tokenizer", "data")
    own = tmp_path / "tokenizer" / "spiece.model"
    for name, text in (("same.model", "tokenizer"), ("another.model", "another")):
        (tmp_path / name).write_text(text)
    same, another = (override(Config(), data={"tokenizer": str(tmp_path / f"{n}.model")}) for n in ("same", "another"))
    with pytest.raises(ConfigError, match=r"^data.tokenizer = [^\n]*$"):
        workdir.remember(tmp_path, another, ORIGIN)
    workdir.remember(tmp_path, same, ORIGIN)
    workdir.save_config(tmp_path, Config(), ORIGIN)
    own.unlink()
    workdir.remember(tmp_path, another, ORIGIN)


def test_an_imported_model_is_no_run(tmp_path):
    (tmp_path / "checkpoints" / "0").mkdir(parents=True)
    workdir.save_config(tmp_path, Config())
    with pytest.raises(ConfigError, match=f"holds an imported model, not a run.*init_from={tmp_path}"):
        workdir.remember(tmp_path, override(Config(), run={"seed": 3}), ORIGIN)
    assert workdir.remembered(tmp_path) == (Config(), workdir.Origin())


def test_the_config_is_whole_whatever_happens(tmp_path, monkeypatch):
    """A disk that is full when the new one is written; another process that is at work there."""
    before = make(tmp_path)
    changed = override(Config(), run={"seed": 5})
    with storage.locked(tmp_path), pytest.raises(StorageError, match="in use by"):
        workdir.remember(tmp_path, changed, ORIGIN)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            workdir.remember(tmp_path, changed, ORIGIN)
    assert (tmp_path / "config.json").read_bytes() == before[str(tmp_path / "config.json")]
    workdir.remember(tmp_path, changed, ORIGIN)
    assert workdir.load_config(tmp_path) == changed


def test_what_is_as_it_was_is_not_written(tmp_path):
    """So that a command that changes nothing does not mind who else is there."""
    make(tmp_path)
    with storage.locked(tmp_path):
        workdir.remember(tmp_path, Config(), ORIGIN)


@pytest.mark.parametrize(
    "origin",
    [3, {}, {"recipe": 1, "given": [], "fitted": []}, {"recipe": "", "given": ["run.step"], "fitted": []},
     {"recipe": "", "given": "run.seed", "fitted": []}, {"recipe": "", "given": [[]], "fitted": []},
     {"recipe": "", "given": [], "fitted": [], "more": 1}],
)  # fmt: skip
def test_an_origin_that_was_not_written_here_is_one_line(tmp_path, origin):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(Config()) | {"origin": origin}))
    with pytest.raises(ConfigError, match=r"^[^\n]*config.json: origin = [^\n]*$"):
        workdir.load_config(tmp_path)


def test_a_config_in_a_bucket_is_remembered_there(bucket):
    """What something was made with is seen there too, without a copy of it."""
    run, other = storage.place("gs://bkt/run"), override(Config(), data={"holdout": 0.3})
    with pytest.raises(ConfigError, match="gs://bkt/run/config.json: not found"):
        workdir.load_config(run)
    workdir.remember(run, Config(), workdir.Origin("bert:tiny"))
    assert workdir.remembered(run) == (Config(), workdir.Origin("bert:tiny"))
    assert bucket.below("") == ["run/config.json"]
    assert str(workdir.prepared_place(run, DataConfig())) == "gs://bkt/run/data"
    bucket.put("run/data/bertjax.json", b"{}")
    with pytest.raises(ConfigError, match="data.holdout = 0.3: gs://bkt/run/data was made with 0.01"):
        workdir.remember(run, other, workdir.Origin("bert:tiny"))
    bucket.put("run/checkpoints/5/manifest.json", b"{}")
    workdir.remember(run, override(Config(), run={"keep": 9}), workdir.Origin())  # left to the run itself
    assert workdir.load_config(run) == Config()
