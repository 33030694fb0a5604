"""The wheel: it holds the package and the recipes, and the quick start runs from it, away from the repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "model": {"vocab_size": 300, "hidden_size": 32, "embedding_size": 32, "ffn_size": 32},
    "data": {"holdout": 0.2, "prepare_workers": 1},
    "optim": {"warmup_steps": 1},
    "run": {"steps": 2, "eval_rows": 8, "eval_every": 0},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy of the sources."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than pyproject.toml asks for; the [dev] extra has it")
    source, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bertjax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"]
    built = subprocess.run([*command, str(out)], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return path


def test_it_holds_what_it_must(wheel):
    """Every file of the package and every recipe, as they are, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT): path for path in (ROOT / "bertjax").rglob("*.*") if path.suffix != ".pyc"}
    recipes = ROOT / "configs"
    files |= {"bertjax/configs" / path.relative_to(recipes): path for path in recipes.rglob("*.py")}
    assert {str(name): path.read_bytes() for name, path in files.items()} == found


@pytest.mark.long
def test_the_quick_start_runs_from_it(wheel, tmp_path, corpus_file):
    """The script as it stands, with small numbers, in a directory that has nothing else of the repository."""
    place, installed = tmp_path / "place", tmp_path / "installed"
    for folder in (place / "launch", place / ".venv" / "bin"):
        folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    shutil.copy(ROOT / "launch" / "quickstart.sh", place / "launch")
    # In place of the one that installs with all dependencies.
    (place / "launch" / "environment.sh").write_text("environment() { :; }\n")
    command = place / ".venv" / "bin" / "bertjax"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(installed)!r})\nimport bertjax.__main__\n"
        f"assert bertjax.__file__.startswith({str(installed)!r})\nbertjax.__main__.main()\n"
    )
    command.chmod(0o755)
    flags = [f"--config.{s}.{name}={value}" for s, fields in SMALL.items() for name, value in fields.items()]
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment.pop("PYTHONPATH", None)
    environment.pop("WORKDIR", None)
    script = [str(place / "launch" / "quickstart.sh"), f"--config.data.source={corpus_file}", *flags]
    run = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["steps"] == 2 and result["workdir"] == "runs/quickstart"
    assert {path.name for path in place.iterdir()} == {"launch", ".venv", "runs"}
