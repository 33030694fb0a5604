"""A recipe, or the config of a run, with the fields that the command line overrides -> a validated config."""

import ast
import copy
import dataclasses
import difflib
import importlib.util
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bertjax
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import ConfigError, UserError
from bertjax.storage import user_path

if typing.TYPE_CHECKING:
    from bertjax.train.workdir import Origin

Overrides = list[tuple[str, str | None]]
"""What is given on the command line, without its dashes: name, and value or None."""


@dataclass(frozen=True)
class Resolved:
    """A config, and where its values are from."""

    config: Config
    origin: "Origin"  # what the commands that follow must know of it
    given: frozenset[str]  # SECTION.FIELD of the overrides
    told: str  # a line about what stays as it was although a recipe is named again; "" for nothing

    def source(self, name: str) -> str:
        """Where the value of SECTION.FIELD is from: command line, remembered, default or recipe."""
        if name in self.given:
            return "command line"
        if name in self.origin.given:
            return "remembered"
        if _flat(dataclasses.asdict(self.config))[name] == _flat(dataclasses.asdict(Config()))[name]:
            return "default"
        return f"recipe {self.origin.recipe}" if self.origin.recipe else "remembered"


def configured(recipe: str | None, workdir: Path | None, overrides: Overrides, *, default: bool = False) -> Resolved:
    """The config of a recipe, or without one that of the run in `workdir`, with overrides (`config.SECTION.FIELD` and a
    text) over it. `default` True: without either, the defaults of the schema.

    A recipe is a FILE.py or the NAME of one that comes with bertjax, each perhaps with :ARGUMENT. One that has `fit` is
    fitted to its text behind the overrides, and tells what it chose. Where it is named again, the overrides that the
    run remembers stay, and so does what was fitted. Raises ConfigError with a line for each mistake, and what `fit`
    raises.
    """
    from bertjax.config.recipe import to_dict  # here: they need NumPy, and --help does not
    from bertjax.train.workdir import CONFIG, Origin, load_config, remembered

    before, origin = (remembered(workdir) if workdir else None) or (Config(), Origin())
    given = frozenset(name.removeprefix("config.") for name, _ in overrides)
    kept: set[str] = set()
    fit = None
    if recipe is not None:
        said, fit = _load(recipe)
        kept = {*origin.given, *(origin.fitted if origin.recipe == recipe else ())} - given
    else:
        said = to_dict(Config() if default and not workdir else load_config(workdir or Path()))
    if origin.recipe == recipe:
        fit = None
    config = _overridden(said, {name: _flat(to_dict(before))[name] for name in kept}, overrides, fit)

    now, own = _flat(to_dict(config)), _flat(to_dict(Config())) | _flat(said)
    other = {name for name, value in now.items() if value != own[name]}
    all_given = given.union(origin.given)
    if recipe is None:
        begun_with, fitted = origin.recipe, set(origin.fitted)
    else:
        begun_with, fitted = recipe, other
    known = Origin(begun_with, tuple(sorted(all_given)), tuple(sorted(fitted - all_given)))
    stays = ", ".join(f"{name} = {now[name]!r}" for name in sorted(kept & other & set(origin.given)))
    told = f"{workdir and workdir / CONFIG}: still has {stays}; give a field again to change it" if stays else ""
    return Resolved(config, known, given, told)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """SECTION.FIELD -> its value, a tuple as a list."""
    return {
        f"{section}.{field}": list(value) if isinstance(value, tuple) else value
        for section, fields in values.items()
        if isinstance(fields, dict)
        for field, value in fields.items()
    }


def _overridden(values: dict[str, Any], kept: dict[str, Any], overrides: Overrides, fit: Any) -> Config:
    """The config of these values, with others over them: by name, and then as texts; and then fitted, unless `fit` is
    None. Raises ConfigError with a line for each mistake.
    """
    from bertjax.config.recipe import fitted, from_dict, unchecked

    values = copy.deepcopy(values)
    for name, value in kept.items():
        _set(values, name, value)
    errors: list[str] = []
    told: list[str] = []
    for name, text in overrides:
        try:
            _override(values, name.removeprefix("config."), text)
        except ValueError as error:
            errors.append(f"--{name if text is None else f'{name}={text}'}: {error}")
    try:
        if fit and not errors:
            config, told = fitted(values, fit, {*kept, *(name.removeprefix("config.") for name, _ in overrides)})
        else:  # of values that would still have been fitted, not all need to agree
            config = unchecked(values) if fit else from_dict(values)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    for line in told:
        say(line)
    return config


def recipes() -> dict[str, Path]:
    """Name, as bert or finetune/glue, -> file of each recipe that comes with bertjax."""
    package = Path(bertjax.__file__).parent
    # In a checkout, configs/ lies beside the package; a wheel has it inside.
    found = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.relative_to(found).with_suffix("").as_posix(): path for path in sorted(found.rglob("*.py"))}


def kinds() -> dict[str, Any]:
    """SECTION.FIELD -> its type, of every field of the schema."""
    sections: dict[str, Any] = {section.name: section.type for section in dataclasses.fields(Config)}
    return {f"{name}.{field.name}": field.type for name, kind in sections.items() for field in dataclasses.fields(kind)}


def _load(recipe: str) -> tuple[dict[str, Any], Any]:
    """The values that a recipe returns, and its `fit`, if it has one, as `bertjax.config.recipe.fitted` calls it.

    Both raise ConfigError, whatever goes wrong in them: a recipe is code.
    """
    from ml_collections import ConfigDict

    name, colon, argument = recipe.partition(":")
    path = user_path(name).absolute()
    if path.suffix != ".py" or not path.is_file():
        path = recipes().get(name, path)
    spec = importlib.util.spec_from_file_location("recipe", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={recipe}: there is no Python file {path}; {_known(Path(name).stem)}")
    module: Any = importlib.util.module_from_spec(spec)
    given = [argument] if colon else []

    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--config={recipe}: {_cause(error, path)}") from error

    run(spec.loader.exec_module, module)
    config = run(lambda: module.get_config(*given))
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"--config={recipe}: get_config() must return a changed `default()`, not {config!r:.60}")
    fit = getattr(module, "fit", None)
    return config.to_dict(), fit and (lambda config, fields: run(lambda: list(fit(config, fields, *given))))


def _known(name: str) -> str:
    names = list(recipes())
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"the recipes that come with bertjax are {', '.join(names)}"


def _cause(error: BaseException, path: Path) -> str:
    """What went wrong in a recipe, and in which of its lines; a ValueError says it all by itself."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, ValueError) and text:
        return text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    place = f"line {lines[-1]}: " if lines else ""
    return place + (f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _override(values: dict[str, Any], path: str, text: str | None) -> None:
    """Set a field of the values by its text; a name that is not known is left to `from_dict`, which reports it."""
    if not path.partition(".")[2] or text is None:
        raise ValueError("must have the form --config.SECTION.FIELD=VALUE")
    kind = kinds().get(path, str)
    try:
        value = _typed(kind, text)
    except (ValueError, SyntaxError):
        raise ValueError(f"must be {described(kind)}") from None
    _set(values, path, value)


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    section, _, field = path.partition(".")
    fields = values.setdefault(section, {})
    if isinstance(fields, dict):
        fields[field] = value


def _typed(kind: Any, text: str) -> Any:
    """The value of this type that the text stands for; ValueError or SyntaxError if there is none.

    Elements of a tuple have commas between them; one with a comma inside needs Python's form, "('a,b', 'c')".
    """
    if typing.get_origin(kind) is tuple:
        if text.startswith("(") and text.endswith(")"):
            literal = ast.literal_eval(text)
            return literal if isinstance(literal, tuple) else (literal,)
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        if "" in parts:
            raise ValueError
        return tuple(_typed(typing.get_args(kind)[0], part) for part in parts)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    return kind(text)


def described(kind: Any) -> str:
    """What a value of this type is."""
    if typing.get_origin(kind) is tuple:
        return f"{described(typing.get_args(kind)[0])}, or several with commas between"
    return {int: "a whole number", float: "a number", bool: "True or False", str: "text"}[kind]
