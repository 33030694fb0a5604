"""A run under attack: whatever is damaged, mistyped or interrupted, a command ends with a line and a documented exit
code, or with the result of an undisturbed run, bit for bit; within 30 s, and no file of others is touched.

The short form tries some of each kind. The whole form, marked `long`, tries all and prints a table. Signals are in it
only: what each of them does at one moment is held by `tests/tasks/test_pretrain.py`.
"""

import dataclasses
import itertools
import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import attack
import foreign
import pytest
import second_reading
from attack import Ended, Tally
from small import tiny
from tasks.test_pretrain import assert_same_run, command_of

from bertjax.config.recipe import override, to_dict
from bertjax.train import metrics, workdir
from bertjax.trained.load import load

SEED = 12
SIGNALS = 30


@dataclasses.dataclass(frozen=True)
class World:
    """A finished run of six steps, with its data set inside, in `run`; `whole` is a copy of it to begin each trial
    with, `half` one of which only step 3 is left.
    """

    config: object
    whole: Path
    half: Path
    run: Path
    out: Path
    recipe: Path
    expected: dict[str, dict]

    def begin(self, source: Path):
        """Make `run` a copy of this one, with files of others around it."""
        for path in (self.run, self.out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, self.run)
        return attack.settle(self.run)

    def command(self, name):
        where = f"--workdir={self.run}"
        more = {
            "pretrain": [f"--config={self.recipe}", where],
            "evaluate": [where],
            "export": [where, f"--out={self.out}"],
            "data verify": [f"--config={self.recipe}", where],
        }
        return attack.run(*name.split(), *more[name])

    def result(self, name, ended):
        """What a command made that must not depend on a damage."""
        if name == "export":
            return attack.contents(self.out)
        return json.loads(ended.out) if name == "evaluate" else "whole"


def make_world(config, directory, prepared, root):
    whole, half, run = root / "whole", root / "half", root / "run"
    shutil.copytree(directory, whole)
    shutil.copytree(prepared, whole / "data")
    config = override(config, data={"prepared": ""})
    workdir.save_config(whole, config)
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "6")
    command_of(config, run)  # writes the recipe beside it
    world = World(config, whole, half, run, root / "out", run.with_suffix(".py"), {})
    for name in ("evaluate", "export"):
        world.begin(whole)
        ended = world.command(name)
        assert ended.code == 0, ended
        world.expected[name] = world.result(name, ended)
    return world


@pytest.fixture(scope="module")
def world(inputs, trained, tmp_path_factory):
    return make_world(*trained, inputs["prepared"], tmp_path_factory.mktemp("world"))


def trial(world, tally, kind, name, damage, command, source):
    """Damage a copy of `source`, run a command, judge."""
    others = world.begin(source)
    damage()
    before = attack.contents(world.run)
    ended = world.command(command)
    tally.add(kind, f"{command}, {name}", judged(world, command, ended, others, before), ended)


def judged(world, command, ended: Ended, others, before):
    """The verdict on a command that ran in a damaged directory, which had the contents `before`."""
    if fault := attack.told(ended):
        return fault
    if not attack.untouched(others):
        return "touched"
    if command != "pretrain" and attack.contents(world.run) != before:
        return "touched"  # it only reads
    if ended.code != 0:
        return "touched" if world.out.exists() else "refused"
    if command == "pretrain":
        try:
            assert_same_run(world.config, world.whole, world.run)
        except Exception:  # other numbers, or a state that cannot be read: a fault, which the tally shows
            return "silent wrong"
        return "older step" if "set aside as" in ended.err else "harmless"
    return "harmless" if world.result(command, ended) == world.expected.get(command) else "silent wrong"


def attack_checkpoints(world, tally, *, every=1, commands=("evaluate", "export", "pretrain")):
    """Each damage with one of these commands, in turn; of `every` > 1, a few damages, spread."""
    world.begin(world.whole)
    steps, turns = world.run / "checkpoints", itertools.cycle(commands)
    for name, damage in list(attack.of_checkpoint(steps / "6", steps / "3", SEED))[::every]:
        trial(world, tally, "checkpoint", name, damage, next(turns), world.whole)


def attack_data(world, tally, *, every=1):
    """As `attack_checkpoints`. Training goes on from step 3, so that it reads the data set."""
    world.begin(world.whole)
    turns = itertools.cycle(("data verify", "evaluate", "pretrain"))
    for name, damage in list(attack.of_data(world.run / "data", SEED))[::every]:
        command = next(turns)
        trial(world, tally, "data set", name, damage, command, world.half if command == "pretrain" else world.whole)


def attack_config(root, tally, *, every=1):
    """Each mistake of an override: named, with exit code 2, before there is a work directory."""
    recipe, run = root / "recipe.py", root / "run"
    recipe.write_text("from bertjax.config.recipe import default\n\n\ndef get_config():\n    return default()\n")
    others = attack.settle(root)
    for name, argument in list(attack.mistakes())[::every]:
        ended = attack.run("pretrain", f"--config={recipe}", f"--workdir={run}", argument)
        lines = ended.err.splitlines()
        verdict = attack.told(ended) or "refused"
        if run.exists() or not attack.untouched(others):
            verdict = "touched"
        elif ended.code == 0:
            verdict = "silent wrong"
        elif ended.code != 2 or not all(line.startswith("bertjax: ") and name in line for line in lines):
            verdict = "traceback" if verdict == "traceback" else "unclear"
        tally.add("config", argument[:200], verdict, ended)


def attack_saved_config(world, tally, *, most):
    """Other values in the config of a run: its fields are checked as those of a recipe are."""
    content = json.dumps(to_dict(world.config)).encode()
    for name, changed in foreign.of_json(content, SEED, most):
        others = world.begin(world.half)
        shutil.rmtree(world.run / "checkpoints" / "3")
        (world.run / workdir.CONFIG).write_bytes(changed)
        before = attack.contents(world.run)
        ended = attack.run("export", f"--workdir={world.run}", f"--out={world.out}")
        verdict = judged(world, "export", ended, others, before)
        tally.add("saved config", name, verdict, ended)


def attack_with_foreign_files(root, spiece, tally, *, most):
    """A model directory of somebody else: it is imported, or refused and nothing of it is left."""
    directories = foreign.directories(root, spiece)
    for kind, directory in directories.items():
        files = [(foreign.CONFIG, foreign.of_json), (foreign.WEIGHTS, foreign.of_header)]
        files += [(file, foreign.of_bytes) for file in ("tokenizer.json", foreign.WEIGHTS, foreign.CONFIG)]
        for file, made in files:
            path = directory / file
            if not path.exists():
                continue
            content, whole = path.read_bytes(), load(directory)
            found = list(made(content, SEED))
            for name, changed in random.Random(f"{kind}{file}").sample(found, min(most, len(found))):
                path.write_bytes(changed)
                judge = partial(second_reading.verdict, whole=whole, file=file, before=content, after=changed)
                take_in(root, directory, f"{kind}/{file}: {name}", tally, judge)
            path.write_bytes(content)


def take_in(root, directory, name, tally, judge):
    """Import a damaged directory, judge, and throw the import away. `judge` says what was imported, if anything."""
    run = root / "imported"
    others, before = attack.settle(root), attack.contents(directory)
    ended = attack.run("import", str(directory), f"--workdir={run}")
    verdict = attack.told(ended) or ("refused" if ended.code else judge(load(run)))
    left = [path for path in root.iterdir() if "partial" in path.name or (ended.code and path == run)]
    if left or attack.contents(directory) != before or not attack.untouched(others):
        verdict = "touched"
    tally.add("foreign", name, verdict, ended)
    shutil.rmtree(run, ignore_errors=True)


def attack_with_signals(config, root, tally, *, count, chains):
    """Runs that are interrupted again and again, and then end as one that never was."""
    steps = config.run.steps
    undisturbed = root / "undisturbed"
    command, environment = command_of(config, undisturbed, cache=root / "cache")
    start = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    random_moments = attack.moments(random.Random(SEED), steps, time.monotonic() - start)
    for chain in range(chains):
        directory = root / f"run-{chain}"
        command, environment = command_of(config, directory, cache=root / "cache")
        others, disturbed = attack.settle(directory), []
        for moment in itertools.islice(random_moments, count // chains):
            disturbed.append((moment, interrupted(command, environment, directory, moment)))
        rest = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        try:
            assert rest.returncode == 0
            assert_same_run(config, undisturbed, directory)
            end = "" if attack.untouched(others) else "touched"
        except Exception:  # as above
            end = "silent wrong"
        for moment, ended in disturbed:
            verdict = attack.told(dataclasses.replace(ended, code=0))
            if not verdict and ended.code not in allowed(moment):
                verdict = "unclear"
            tally.add("signal", f"run {chain}, {moment}", verdict or end or "harmless", ended)


def allowed(moment):
    """Exit codes of a run after this signal: it was done before, stopped and saved, or ended before there was anything
    to save.
    """
    ended_by = {-moment.number, 128 + moment.number}
    return {0, 75} | (ended_by if moment.step is None or moment.number == signal.SIGKILL else set())


def interrupted(command, environment, directory, moment):
    """Run a command until a signal ends it."""

    def last():
        lines = metrics.read(directory / metrics.METRICS)
        return lines[-1]["step"] if lines else 0

    before = last()  # of the run that was interrupted earlier

    def logged():
        return last() - before

    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=err)
        try:
            code = attack.send(process, moment, logged)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            err.write("attack.Hang")
            code = None
        err.seek(0)
        return Ended(code, "", err.read())


def check(tally, kind, least):
    """At least so many trials of a kind, and none went wrong."""
    faults = [fault for fault in tally.faults if fault.startswith(f"{kind}: ")]
    assert not faults, "\n\n".join([f"seed {SEED}", *faults[:20], f"{len(faults)} faults"])
    assert tally.count(kind) >= least


# The short form ------------------------------------------------------------------------------------------------------


def test_some_mistakes_of_the_command_line(tmp_path):
    tally = Tally()
    attack_config(tmp_path, tally, every=7)
    check(tally, "config", 200)


def test_some_damages_of_a_run(world):
    tally = Tally()
    # Training again after each damage takes long: `tests/tasks/test_pretrain.py` has it once.
    attack_checkpoints(world, tally, every=11, commands=("evaluate", "export"))
    attack_data(world, tally, every=13)
    attack_saved_config(world, tally, most=4)
    check(tally, "checkpoint", 10)
    check(tally, "data set", 10)
    check(tally, "saved config", 10)


def test_some_foreign_files(inputs, tmp_path):
    tally = Tally()
    attack_with_foreign_files(tmp_path, inputs["tokenizer"], tally, most=1)
    check(tally, "foreign", 15)


def test_what_a_trial_finds():
    """A verdict that cannot be bad would be worth nothing."""
    cases = {
        "traceback": Ended(None, "", "Traceback (most recent call last):\n  File"),
        "hang": Ended(None, "", "Traceback (most recent call last):\nattack.Hang: longer"),
        "unclear": Ended(3, "", "something is wrong"),
        "": Ended(3, "", "bertjax: x: is wrong"),
    }
    assert {attack.told(ended): ended for ended in cases.values()} == cases
    assert attack.told(Ended(1, "", "bertjax: x")) == attack.told(Ended(0, "", "warning: x")) == "unclear"


def test_what_a_trial_finds_in_the_run(world):
    """Another number, another step without a word, a file of others that is gone, one that only reads but writes."""
    others = world.begin(world.whole)
    before, expected = attack.contents(world.run), world.expected["evaluate"]
    evaluated = {name: Ended(0, json.dumps(expected | changed), "") for name, changed in CHANGED.items()}
    verdicts = {name: judged(world, "evaluate", ended, others, before) for name, ended in evaluated.items()}
    assert verdicts == {"nothing": "harmless", "a bit": "silent wrong", "step": "silent wrong"}
    shutil.copytree(world.run / "checkpoints" / "3", world.run / "checkpoints" / "4")
    assert judged(world, "evaluate", evaluated["nothing"], others, before) == "touched"
    next(iter(others)).unlink()
    assert judged(world, "pretrain", Ended(0, "", ""), others, before) == "touched"
    others = world.begin(world.half)
    assert judged(world, "pretrain", Ended(0, "", ""), others, before) == "silent wrong"
    others = world.begin(world.whole)
    assert judged(world, "pretrain", Ended(0, "", ""), others, before) == "harmless"


CHANGED = {"nothing": {}, "a bit": {"mlm_loss": 5.0}, "step": {"steps": 3}}
"""Keys of what an evaluation says, changed."""


# The whole form ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tally(pytestconfig):
    """Of all long tests together; its table is printed when they are done."""
    tally = Tally()
    yield tally
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{tally.table()}")


@pytest.mark.long
def test_every_mistake_of_the_command_line(tally, tmp_path):
    attack_config(tmp_path, tally)
    check(tally, "config", 200)


@pytest.mark.long
def test_every_damage_of_a_checkpoint(tally, world):
    attack_checkpoints(world, tally)
    check(tally, "checkpoint", 100)


@pytest.mark.long
def test_every_damage_of_a_data_set(tally, world):
    attack_data(world, tally)
    check(tally, "data set", 60)


@pytest.mark.long
def test_many_values_in_a_saved_config(tally, world):
    attack_saved_config(world, tally, most=200)
    check(tally, "saved config", 200)


@pytest.mark.long
def test_many_foreign_files(tally, inputs, tmp_path):
    attack_with_foreign_files(tmp_path, inputs["tokenizer"], tally, most=12)
    check(tally, "foreign", 60)


@pytest.mark.long
def test_signals_at_random_moments(tally, inputs, tmp_path):
    run = {"steps": 60, "save_every": 7, "eval_every": 0}
    config = tiny(model={"num_layers": 2}, data=inputs, run=run)
    attack_with_signals(config, tmp_path, tally, count=SIGNALS, chains=3)
    check(tally, "signal", SIGNALS)
