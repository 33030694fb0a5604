"""The commands and the Python of the README and of docs/ run as they stand, on a small corpus, with small numbers."""

import importlib.util
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sequences import dna, japanese, smiles
from test_layers import FLOORS, ROOMS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

RUN = [
    "--config.model.vocab_size=300",
    "--config.data.holdout=0.2",
    "--config.data.prepare_workers=1",
    "--config.data.batch_size=4",
    "--config.data.seq_len=32",
    "--config.data.max_predictions=10",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=32",
    "--config.model.embedding_size=32",
    "--config.model.num_heads=2",
    "--config.model.ffn_size=32",
    "--config.run.steps=2",
    "--config.optim.warmup_steps=1",
    "--config.optim.decay_steps=0",
    "--config.run.eval_rows=4",
]
"""What makes a run small: for the command that names its recipe; the others must remember it."""

PHASES = ["--config.phases.steps=1,1", "--config.phases.seq_len=32,64", "--config.phases.max_predictions=10,20"]
"""The same of a recipe with phases."""

LENGTH = re.compile(r"(--config\.(?:run|optim|phases)\.(?:steps|warmup_steps|eval_every|save_every))=([\d,]+)$")

SIZES = [
    "--config.model.num_layers=1",
    "--config.model.vocab_size=300",
    "--config.model.hidden_size=32",
    "--config.model.embedding_size=32",
    "--config.model.num_heads=2",
    "--config.model.ffn_size=32",
    "--config.data.batch_size=4",
]
"""What makes a step small."""

SMALL = {
    "finetune": [
        "--config.task.epochs=1",
        "--config.data.batch_size=4",
        "--config.data.seq_len=32",
        "--config.data.buckets=32",
    ],
    "info": SIZES,
    "compile": RUN[4:6]
    + [
        "--config.data.batch_size=16",
        "--config.model.attention_dropout=0",
        "--config.model.vocab_size=300",
        "--config.model.num_layers=1",
    ],
    "profile": ["--steps=1", *SIZES],
    "bench train": ["--windows=1", *SIZES],
    "bench checkpoint": ["--windows=1", *SIZES],
    "bench data": ["--seconds=0.2", "--config.data.seq_len=64"],
    "bench encode": ["--repeats=1"],
    "score": ["--limit=1"],
}
"""What is added to other commands."""


DRIVER = """
import json, runpy, sys
from bertjax.cli.main import main
names = {}
for shown, run in json.load(sys.stdin):
    print(shown, file=sys.stderr)
    if isinstance(run, str):
        names |= runpy.run_path(run, names)
        continue
    try:
        main(run)
    except SystemExit as end:
        if end.code:
            raise
"""
"""Runs lists of arguments as commands and names as files, which see the variables of those before them; in one process,
which imports JAX once.
"""


def blocks(page):
    """(language, text) of the bash and Python blocks of a page; continued lines of bash joined."""
    found = re.findall(r"^```(bash|python)\n(.*?)^```", page.read_text(), re.M | re.S)
    return [(language, b.replace("\\\n", " ") if language == "bash" else b) for language, b in found]


def lines(block):
    return [line for line in block.splitlines() if line.strip()]


def commands():
    return [line for page in PAGES for language, b in blocks(page) if language == "bash" for line in lines(b)]


def _shorter(found):
    return f"{found[1]}={','.join(str(max(1, int(steps) // 50)) for steps in found[2].split(','))}"


def arguments(command):
    """Of a line of bash, made small."""
    words = shlex.split(command)[1:]
    begins = "--config=" in command and "--workdir=" in command and words[0] not in SMALL
    run = RUN + PHASES * (",phases" in command)
    small = run if begins else SMALL.get(" ".join(words[:2]), SMALL.get(words[0], []))
    # What the page says itself, as of a vocabulary that follows from the text, or of a long batch, counts; but for the
    # length of a run, of which a fiftieth shows as well whether it goes.
    shorter = words[0] == "pretrain"
    said = [LENGTH.sub(_shorter, w) if shorter else w for w in words]
    return [*said, *(flag for flag in small if flag.split("=")[0] not in command)]


def can_run(text):
    """Whether the extra is installed that a command or a file needs, if it needs one."""
    needs = {"--vs=hf": "transformers", "transformers": "transformers", "=v5e:": "libtpu", "=h100:": "jax_plugins"}
    return all(importlib.util.find_spec(package) for part, package in needs.items() if part in text)


def launched(command):
    """A command of launch/ as words, without an `sbatch OPTION ...` in front; None for another."""
    words = shlex.split(command)
    while words[0] == "sbatch" or (command.startswith("sbatch") and words[0].startswith("--")):
        words = words[1:]
    return words if words[0].startswith("launch/") else None


def can_say(script):
    """Whether it takes --dry-run."""
    return "--dry-run" in (ROOT / script).read_text()


def test_every_command_is_one_that_is_run_here_or_in_ci():
    ci = (ROOT / ".ci" / "run").read_text()
    for command in commands():
        words = launched(command)
        if words:
            assert words[0] in ci or can_say(words[0]), f"{words[0]} is not run by .ci/run"
            assert (ROOT / words[0]).stat().st_mode & stat.S_IXUSR
        else:
            assert command.split()[0] == "bertjax", command


def test_commands_of_launch_would_run(tmp_path):
    """What needs a cluster or a cloud says here what it would do."""
    dry = [words for words in map(launched, commands()) if words and can_say(words[0])]
    assert dry
    for script, *words in dry:
        command = [ROOT / script, "--dry-run", *words]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, ""), command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_run(page, tmp_path, corpus_file):
    """In one directory, in the order of the page."""
    for name in ("configs", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    for file in ("my_text/topics.txt", "corpus/wiki/wiki_00", "corpus/novels/novel.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(corpus_file.read_text())
    for name, texts in (
        ("dna/x.txt", dna(99)),
        ("smiles/x.smi", smiles()),
        ("japanese/x.txt", [*japanese(), corpus_file.read_text()]),
    ):
        (tmp_path / f"my_{name}").parent.mkdir()
        (tmp_path / f"my_{name}").write_text(("\n\n" if "japanese" in name else "\n").join(texts))
    reviews = [f"what a {word} day, number {i}\t{word}" for i in range(10) for word in ("good", "bad")]
    (tmp_path / "my_reviews.tsv").write_text("\n".join(["text\tlabel", *reviews]) + "\n")
    (tmp_path / "my_ids").mkdir()
    (tmp_path / "my_ids" / "x.txt").write_text("3 1 39\n7 7 2 0\n" * 9 + "8 9 10\n")
    characters = [chr(i) for i in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces))
    runs = []
    for language, block in blocks(page):
        if language == "bash":
            runs += [(c, arguments(c)) for c in lines(block) if c.startswith("bertjax ") and can_run(c)]
        elif can_run(block):
            (tmp_path / f"block{len(runs)}.py").write_text(block)
            runs.append((block, f"block{len(runs)}.py"))
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # one device, as users have
    command = [sys.executable, "-c", DRIVER]
    run = subprocess.run(
        command, input=json.dumps(runs), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target, section in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", page.read_text()):
        assert (page.parent / target).exists(), target
        headings = re.findall(r"^#+ (.*)", (page.parent / target).read_text(), re.M) if section else [""]
        assert section in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], section


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_map_names_every_room_on_its_floor():
    """And nothing else; lowest floor first. The modules of a room stand in its docstring (tests/test_layers.py)."""
    (listed,) = re.findall(r"^```\n(  errors .*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    floors = [re.findall(r"^  (\w+)(/?) +\S", floor, re.M) for floor in listed.split("\n\n")]
    assert [{name for name, _ in floor} for floor in floors] == FLOORS
    assert {name for floor in floors for name, slash in floor if slash} == ROOMS


def test_what_to_touch_exists():
    """Every module and room that the README tells to touch."""
    table = (ROOT / "README.md").read_text().split("| to add | touch |")[1].split("\n\n")[0]
    named = re.findall(r"`([\w/]+)`", table)
    assert named
    for name in named:
        assert any((ROOT / start / name).with_suffix(end).exists() for start in ("bertjax", ".") for end in ("", ".py"))
