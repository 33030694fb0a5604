"""`bertjax.cli.overrides`: what is written on the command line is what the config holds; each mistake is one line."""

import dataclasses

import pytest

from bertjax.cli.overrides import configured, kinds, recipes
from bertjax.config.recipe import default, override
from bertjax.config.schema import Config
from bertjax.errors import ConfigError, DataError
from bertjax.train.workdir import Origin, save_config


@pytest.fixture
def recipe(tmp_path):
    """A function from the body of get_config to the path of such a recipe."""

    def write(body="return default()", name="recipe.py"):
        lines = ["from bertjax.config.recipe import default", "def get_config(argument=''):", f"    {body}"]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    return write


def config_of(recipe, *overrides):
    return configured(recipe, None, pairs(overrides)).config


def pairs(overrides):
    return [tuple(text.split("=", 1)) if "=" in text else (text, None) for text in overrides]


def mistakes(*arguments):
    with pytest.raises(ConfigError) as error:
        config_of(*arguments)
    return str(error.value).splitlines()


def written(value):
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("form", [written, str], ids=["commas", "literal"])
def test_every_field_can_be_written_on_the_command_line(recipe, form):
    values = dataclasses.asdict(Config())
    values["data"] |= {"source": ("a/*.txt", "b c.jsonl"), "mix": (0.5, 2.0), "seq_len": 256}
    values["run"] |= {"init_from": "x", "init_layers": (0, 2), "seed": 5}
    fields = [(f"{section}.{name}", value) for section, fields in values.items() for name, value in fields.items()]
    config = config_of(recipe(), *(f"config.{path}={form(value)}" for path, value in fields))
    assert config == override(Config(), **values) and config != Config()


def test_lists_are_written_with_commas(recipe):
    config = config_of(
        recipe("c = default(); c.data.mix = (1.0,); return c"),
        "config.data.buckets=32, 64,128",
        "config.data.source=a/*.txt, [bc]/*.jsonl",
        "config.optim.freeze=encoder/embeddings,pooler",
        "config.model.heads=mlm_head",
        "config.objective.pair=0",
        "config.data.mix=",
    )
    assert config.data.buckets == (32, 64, 128)
    assert config.data.source == ("a/*.txt", "[bc]/*.jsonl")
    assert config.optim.freeze == ("encoder/embeddings", "pooler")
    assert config.model.heads == ("mlm_head",)
    assert config.data.mix == ()
    # With Python's form an element may hold a comma.
    assert config_of(recipe(), "config.data.source=('a,b.txt', 'c')").data.source == ("a,b.txt", "c")
    assert config_of(recipe(), "config.data.buckets=(128)").data.buckets == (128,)


@pytest.mark.parametrize(
    ("override", "must"),
    [
        ("run.steps=many", "a whole number"),
        ("run.steps=1e3", "a whole number"),
        ("optim.lr=fast", "a number"),
        ("compute.scan=1", "True or False"),
        ("data.buckets=64,,128", "a whole number, or several"),
        ("data.buckets=(64", "a whole number, or several"),
        ("data.buckets=(64,*)", "a whole number, or several"),
        ("data.mix=1,x", "a number, or several"),
        ("data.source=a,,b", "text, or several"),
        ("model=3", "the form --config.SECTION.FIELD=VALUE"),
        ("compute.scan", "the form --config.SECTION.FIELD=VALUE"),
    ],
)
def test_a_value_of_another_type_is_one_line(recipe, override, must):
    (line,) = mistakes(recipe(), f"config.{override}")
    assert line.startswith(f"--config.{override}: must") and must in line


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("run.learning_rate=1", "run.learning_rate: there is no such field; the fields are steps, "),
        ("run.step=1", "did you mean run.steps?"),
        ("modl.share=all", "modl: there is no such field; did you mean model?"),
        ("run.steps.x=1", "run.steps.x: there is no such field"),
        ("run.seed=-1", "run.seed = -1: must be at least 0"),
        ("data.buckets=(1, 'a')", "data.buckets = (1, 'a'): must be a tuple of int"),
    ],
)
def test_what_the_schema_does_not_have_or_allow_is_one_line(recipe, override, named):
    (line,) = mistakes(recipe(), f"config.{override}")
    assert named in line


def test_the_last_of_two_overrides_counts(recipe):
    assert config_of(recipe(), "config.run.seed=1", "config.run.seed=2").run.seed == 2


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("import sys; sys.exit(0)", "line 3: SystemExit: 0"),
        ("raise SystemExit", "line 3: SystemExit"),
        ("raise ValueError('no such size')", "no such size"),
        ("return 1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("c = default(); c.optim.lrr = 1", "line 3: AttributeError: "),
        ("c = default(); c.run.update(stesp=1)", "line 3: KeyError: Key"),
        ("return None", "get_config() must return a changed `default()`, not None"),
        ("return default(", "SyntaxError: "),
        ("return default()\nget_config = 3", "TypeError: 'int' object is not callable"),
    ],
)
def test_a_recipe_that_fails_is_one_line(recipe, body, cause):
    path = recipe(body)
    (line,) = mistakes(path)
    assert line.startswith(f"--config={path}: {cause}")


def test_a_recipe_that_is_not_there(tmp_path):
    for name in (tmp_path / "none.py", tmp_path, "", tmp_path / "text"):
        (tmp_path / "text").write_text("")
        (line,) = mistakes(str(name))
        assert line.startswith(f"--config={name}: there is no Python file")


def test_what_follows_the_colon_goes_to_the_recipe(recipe):
    path = recipe("c = default(); c.teacher.path = argument; c.objective.soft = 1.0; return c")
    assert config_of(f"{path}:gs://a:b").teacher.path == "gs://a:b"


def test_the_default_recipe_stays_as_it_is(recipe):
    """What one command line changes is not seen by the next."""
    config_of(recipe(), "config.run.seed=9")
    assert config_of(recipe()) == Config() and default().run.seed == 0


FIT = """return default()
def fit(config, given, argument='none'):
    {}
"""


def test_a_recipe_is_fitted_behind_the_overrides(recipe, capsys):
    """It gets the names of the fields that are given, and its argument; what it chose goes to standard error."""
    path = recipe(FIT.format("config.run.keep = 7; return [f'steps {sorted(given)} {argument} {config.run.seed}']"))
    config = config_of(f"{path}:much", "config.run.seed=3", "config.data.source=a,b")
    assert (config.run.keep, config.run.seed) == (7, 3)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "steps ['data.source', 'run.seed'] much 3\n")
    config_of(path)
    assert capsys.readouterr().err == "steps [] none 0\n"


def test_a_recipe_is_not_fitted_to_what_is_wrong(recipe, capsys):
    path = recipe(FIT.format("raise SystemExit('was fitted')"))
    (line,) = mistakes(path, "config.run.steps=many", "config.data.seq_len=4096")
    assert line.startswith("--config.run.steps=many")
    (line,) = mistakes(path, "config.run.sed=3", "config.data.seq_len=4096")
    assert line.startswith("run.sed: ")


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise ValueError('is for words')", "is for words"),
        ("config.run.stesp = 1", "line 5: AttributeError: "),
        ("yield config.none", "line 5: AttributeError: "),
        ("return None", "TypeError: 'NoneType' object is not iterable"),
        ("raise SystemExit", "line 5: SystemExit"),
    ],
)
def test_a_fitting_that_fails_is_one_line(recipe, body, cause):
    path = recipe(FIT.format(body))
    (line,) = mistakes(path)
    assert line.startswith(f"--config={path}: {cause}")


def test_an_error_of_the_text_keeps_its_kind(recipe):
    body = "from bertjax.errors import DataError; raise DataError('no such file')"
    with pytest.raises(DataError, match="^no such file$"):
        config_of(recipe(FIT.format(body)))


def test_a_recipe_that_comes_with_bertjax_is_named_without_a_path(tmp_path, monkeypatch):
    """From any directory; what lies there under the same name is not meant, unless it is named as a file."""
    monkeypatch.chdir(tmp_path)
    assert config_of("bert:tiny").model.num_layers == 2
    (tmp_path / "bert").mkdir()
    (tmp_path / "quickstart").write_text("some notes")
    assert config_of("quickstart").model.share == "all"
    (tmp_path / "bert.py").write_text("raise ValueError('mine')")
    assert config_of("bert:tiny").model.num_layers == 2
    assert mistakes("bert.py:tiny") == ["--config=bert.py:tiny: mine"]
    assert mistakes("bret:tiny")[0].endswith("did you mean bert?")
    (line,) = mistakes("configs/zzz.py")
    assert all(name in line for name in recipes())


def test_a_path_wins_over_a_name(tmp_path, recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertjax.cli.overrides.recipes", lambda: {"recipe.py": tmp_path / "other.py"})
    recipe("c = default(); c.run.seed = 1; return c")
    recipe("c = default(); c.run.seed = 2; return c", name="other.py")
    assert config_of("recipe.py").run.seed == 1


def test_without_a_recipe_the_config_is_that_of_the_run(tmp_path, recipe):
    first = configured(recipe("c = default(); c.run.seed = 7; return c"), tmp_path, pairs(["config.optim.lr=0.5"]))
    save_config(tmp_path, first.config, first.origin)
    later = configured(None, tmp_path, [])
    assert (later.config, later.origin, later.told) == (first.config, first.origin, "")
    assert (later.config.run.seed, later.config.optim.lr) == (7, 0.5)
    changed = configured(None, tmp_path, pairs(["config.run.keep=9"]))
    assert changed.config == override(first.config, run={"keep": 9})
    assert changed.origin == Origin(first.origin.recipe, ("optim.lr", "run.keep"))


def test_the_source_of_every_field(tmp_path, recipe):
    """Each is the default, or from the recipe, the command line, or remembered; those four, and no other."""
    path = recipe("c = default(); c.run.seed = 7; c.run.keep = 5; return c")

    def sources(resolved):
        found = {name: resolved.source(name) for name in kinds()}
        return {name: source for name, source in found.items() if source != "default"}

    first = configured(path, tmp_path, pairs(["config.optim.lr=0.5", "config.run.keep=6"]))
    own = {"run.seed": f"recipe {path}"}
    assert sources(first) == own | {"optim.lr": "command line", "run.keep": "command line"}
    save_config(tmp_path, first.config, first.origin)
    assert sources(configured(None, tmp_path, [])) == own | {"optim.lr": "remembered", "run.keep": "remembered"}
    # Also where it is the default again, that was said.
    again = configured(None, tmp_path, pairs(["config.run.keep=3"]))
    assert sources(again) == own | {"optim.lr": "remembered", "run.keep": "command line"}
    # Of a run that was begun from Python nothing is known but the values.
    save_config(tmp_path, first.config)
    values = {"optim.lr": "remembered", "run.keep": "remembered", "run.seed": "remembered"}
    assert sources(configured(None, tmp_path, [])) == values


def test_a_recipe_that_is_named_again_does_not_undo_what_was_given(tmp_path, recipe):
    path = recipe("c = default(); c.run.seed = 7; return c")
    first = configured(path, tmp_path, pairs(["config.optim.lr=0.5", "config.run.seed=8"]))
    save_config(tmp_path, first.config, first.origin)
    again = configured(path, tmp_path, [])
    assert (again.config, again.origin) == (first.config, first.origin)
    assert again.told.startswith(f"{tmp_path / 'config.json'}: still has optim.lr = 0.5, run.seed = 8; ")
    # What is given now counts; what the recipe says now, counts where nothing was given.
    recipe("c = default(); c.run.seed = 9; c.run.keep = 9; return c")
    edited = configured(path, tmp_path, pairs(["config.optim.lr=0.25"]))
    assert edited.config == override(first.config, optim={"lr": 0.25}, run={"keep": 9})
    assert "optim.lr" not in edited.told


def test_what_a_recipe_fitted_stays_with_that_recipe(tmp_path, recipe):
    """Fields that neither the recipe's values nor a command line explain are fitted; another recipe has none of it."""
    path = recipe("return default()")
    fitted = override(configured(path, None, []).config, model={"vocab_size": 777})
    save_config(tmp_path, fitted, Origin(path, (), ("model.vocab_size",)))
    again = configured(path, tmp_path, pairs(["config.run.seed=1"]))
    assert again.config == override(fitted, run={"seed": 1})
    assert again.origin == Origin(path, ("run.seed",), ("model.vocab_size",))
    assert again.source("model.vocab_size") == f"recipe {path}"
    given = configured(None, tmp_path, pairs(["config.model.vocab_size=888"]))
    assert given.origin == Origin(path, ("model.vocab_size",))
    other = configured(recipe("return default()", name="other.py"), tmp_path, [])
    assert other.config == Config() and other.origin.fitted == ()


def test_a_config_of_a_run_that_is_damaged_is_one_line_also_with_a_recipe(tmp_path, recipe):
    """It would be written over."""
    for text in ("{", "null", '{"origin": 3}', '{"origin": {"recipe": "", "given": ["run.step"], "fitted": []}}'):
        (tmp_path / "config.json").write_text(text)
        for named in (recipe(), None):
            with pytest.raises(ConfigError, match=f"^{tmp_path / 'config.json'}: [^\n]*$"):
                configured(named, tmp_path, [])
