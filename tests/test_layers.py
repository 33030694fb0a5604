"""The house rules that keep the code base readable, held by reading the sources."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bertjax"

FLOORS = [
    {"bucket", "console", "errors", "progress", "signals", "steps", "storage", "workers"},
    {"config"},
    {"batch", "kernels", "parallel"},
    {"data", "model"},
    {"corpus", "vocabulary", "train", "huggingface"},
    {"labelled", "report"},
    {"trained"},
    {"tasks"},
    {"finetuning"},
    {"ahead", "bench"},
    {"profiling"},
    {"cli"},
    {"__main__"},
]
"""Rooms and the modules beside them, bottom first. A room imports from lower floors, and from its own."""

ALSO = {
    "bucket": {"console", "errors", "storage", "workers"},
    "progress": {"console"},
    "signals": {"errors"},
    "steps": {"bucket", "console", "errors", "storage", "workers"},
    "storage": {"bucket", "console", "errors", "workers"},
}
"""Imports within a floor."""

LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
DATA_PACKAGES = {"grain", "array_record", "tensorflow_datasets"}
DEVICE_PACKAGES = {"jax", "flax", "optax", "orbax"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def sources(package=PACKAGE):
    """Name of a module, as "data.dataset" -> its file. The __init__ of a room is the room."""
    files = {p.relative_to(package).with_suffix(""): p for p in package.rglob("*.py")}
    return {
        ".".join(name.parts).removesuffix(".__init__"): p for name, p in files.items() if name.parts[0] != "__init__"
    }


SOURCES = sources()
ROOMS = {name for name in LEVEL if (PACKAGE / name).is_dir()}


def room(module):
    return module.split(".")[0]


def imported(path):
    """Every module that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(files):
    """Module -> the modules of the package that it imports."""
    found = {}
    for module, path in files.items():
        names = {name.removeprefix("bertjax.") for name in imported(path) if name.startswith("bertjax.")}
        # A room itself holds nothing but its docstring.
        found[module] = {name for name in names if name in files and name not in ROOMS} - {module}
    return found


def reached(edges, module):
    """All that a module imports, also through others."""
    found, ahead = set(), list(edges[module])
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += edges[name]
    return found


def faults(files):
    """Imports that run upward or in a circle, directly or through other modules."""
    edges = graph(files)
    for module in files:
        behind = reached(edges, module)
        if module in behind:
            yield f"{module} imports itself, through {', '.join(sorted(behind))}"
        for name in behind:
            above = LEVEL[room(name)] > LEVEL[room(module)]
            beside = LEVEL[room(name)] == LEVEL[room(module)] and room(name) != room(module)
            if above or (beside and room(name) not in ALSO.get(room(module), set())):
                yield f"{module} reaches {name}"


def test_every_module_has_a_floor():
    assert {room(module) for module in SOURCES} == set(LEVEL)


def test_imports_run_downward_and_in_no_circle():
    assert list(faults(SOURCES)) == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({"data.masking": "from bertjax.train import step"}, "data.masking reaches train.step"),
        ({"config.rules": "import bertjax.batch"}, "config.rules reaches batch"),
        ({"model.ops": "def f():\n    from bertjax.data.dataset import load"}, "model.ops reaches data.dataset"),
        ({"model.layers": "from bertjax.model.network import apply"}, "model.layers imports itself"),
        # Through a third module, each of whose own imports is allowed or is of another file.
        ({"errors": "import bertjax.cli.main"}, "data.masking reaches cli.main"),
        ({"train.curves": "from bertjax.train import loop", "train.task": "from bertjax.train import curves"},
         "train.curves imports itself"),
    ],
)  # fmt: skip
def test_a_planted_import_is_found(tmp_path, planted, found):
    files = dict(SOURCES)
    for module, line in planted.items():
        files[module] = tmp_path / f"{module}.py"
        files[module].write_text(SOURCES[module].read_text() + "\n" + line + "\n")
    assert any(fault.startswith(found) for fault in faults(files))


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_host_code_never_touches_a_device(module):
    host = (
        "config",
        "batch",
        "bucket",
        "console",
        "errors",
        "progress",
        "signals",
        "steps",
        "storage",
        "data",
        "corpus",
        "vocabulary",
        "labelled",
        "cli",
    )
    if room(module) in host:
        assert not {name.split(".")[0] for name in imported(SOURCES[module])} & DEVICE_PACKAGES


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_only_data_and_corpus_need_the_data_packages(module):
    if room(module) not in ("data", "corpus"):
        assert not {name.split(".")[0] for name in imported(SOURCES[module])} & DATA_PACKAGES


@pytest.mark.parametrize("room", ["parallel", "model", "train", "huggingface", "trained"])
def test_rooms_that_work_without_the_data_packages(room):
    edges = graph(SOURCES)
    for module in (name for name in SOURCES if name.startswith(f"{room}.")):
        for name in reached(edges, module) | {module}:
            assert not {found.split(".")[0] for found in imported(SOURCES[name])} & DATA_PACKAGES, (module, name)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_sizes(module):
    """400 lines a file, 60 a function: train files of this field grew one `if` at a time."""
    text = SOURCES[module].read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_most_modules_are_short_and_no_room_is_crowded():
    lengths = [len(path.read_text().splitlines()) for path in SOURCES.values()]
    assert sum(length <= 250 for length in lengths) >= 0.8 * len(lengths)
    for name in LEVEL:
        assert sum(module.startswith(f"{name}.") for module in SOURCES) <= 14, name


def test_the_step_is_one_short_function():
    (step,) = (
        node
        for node in ast.walk(ast.parse(SOURCES["train.step"].read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "make_train_step"
    )
    assert step.end_lineno - step.lineno < 35


@pytest.mark.parametrize("module", sorted(m for m in SOURCES if m.startswith("train.")))
def test_the_engine_names_no_model_task_teacher_or_optimizer(module):
    """In no function: as a name, an attribute or a text. Optimizers have their table beside the functions."""
    words = "bert|albert|distilbert|roberta|mlm|nsp|sop|pretrain|pretraining|distil|teacher|student|adamw|lamb"
    for function in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(function, ast.FunctionDef):
            doc = ast.get_docstring(function, clean=False)
            for node in ast.walk(function):
                found = [getattr(node, name, None) for name in ("id", "attr", "arg", "name", "value")]
                texts = [text for text in found if isinstance(text, str) and text != doc]
                assert not any(re.search(rf"(?<![a-z])({words})(?![a-z])", text) for text in texts), (
                    function.name,
                    texts,
                )


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_says_what_lives_in_it(name):
    """What is there, by the modules to begin with, each of which exists; and which rooms it imports."""
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    modules = {module.removeprefix(f"{name}.") for module in SOURCES if module.startswith(f"{name}.")}
    named = set(re.findall(r"^(\w+)  +\S", text, re.M))
    assert named and named <= modules
    assert "mports" in text


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_nothing_is_executed_from_data(module):
    tree = ast.parse(SOURCES[module].read_text())
    assert not {name.split(".")[0] for name in imported(SOURCES[module])} & UNSAFE_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert name not in UNSAFE_CALLS or name == "compile", name
            assert not any(k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in node.keywords)


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_json_is_strict(module):
    """By itself Python writes NaN, which is no JSON."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("dump", "dumps"):
            assert any(k.arg == "allow_nan" and not k.value.value for k in node.keywords), f"line {node.lineno}"


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_only_sharding_names_a_partition_spec(module):
    assert module in ("parallel", "parallel.sharding") or "PartitionSpec" not in SOURCES[module].read_text()


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_branch_asks_for_a_model_by_name(module):
    if room(module) == "huggingface":
        return  # it speaks Hugging Face's format, in which the name of the family is data
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Compare):
            for constant in ast.walk(node):
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    assert constant.value.lower() not in ("bert", "albert", "distilbert", "roberta")


def test_every_module_has_its_tests():
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.rglob("test_*.py")}
    assert {module.split(".")[-1] for module in SOURCES if module not in ROOMS} <= tests


def test_importing_the_package_is_quick():
    """A second where nothing else runs; it must not import JAX."""
    code = "import time; t = time.monotonic(); import bertjax, sys; print('jax' in sys.modules, time.monotonic() - t)"
    loaded, seconds = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert loaded == "False" and float(seconds) < 1.0
