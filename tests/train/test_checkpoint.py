"""`bertjax.train.checkpoint`: what is restored is what was saved, or an error that names the file."""

import contextlib
import json
import os
import shutil
import sys
import time

import jax
import jax.numpy as jnp
import light
import numpy as np
import pytest
from small import one_device_mesh, tiny

from bertjax import storage
from bertjax.config.recipe import to_dict
from bertjax.config.schema import Config, OptimConfig, RunConfig
from bertjax.errors import CheckpointError, NumericError, StorageError
from bertjax.parallel.sharding import make_mesh
from bertjax.steps import (
    MANIFEST,
    ORBAX_MARKS,
    TEMPORARY,
    clean,
    drop,
    drop_after,
    numbers,
    verify,
    write_manifest,
)
from bertjax.train import checkpoint
from bertjax.train.checkpoint import Checkpoints, Judged, best_step, last_good, restore
from bertjax.train.guard import Skipped
from bertjax.train.optim import Averaged
from bertjax.train.session import Engine
from bertjax.train.state import Best, TrainState

IDENTITY = {"data set": "d", "tokenizer": "t"}
SHARDING = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


def state(step):
    key = jax.random.key(step)
    params = {"w": jax.random.normal(key, (64, 64)), "half": jnp.full(3, step, jnp.bfloat16)}
    return TrainState(jnp.int32(step), params, opt_state=())


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SHARDING), state(0))


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Three saves of which the newest two are kept."""
    return saved_thrice(tmp_path_factory.mktemp("once"))


def saved_thrice(directory):
    checkpoints = Checkpoints(directory, keep=2)
    for step in (5, 10, 15):
        checkpoints.save(step, state(step), identity=IDENTITY, rows=8 * step, config=Config())
    checkpoints.close()
    return directory


@pytest.fixture
def saved(once, tmp_path):
    """A copy of them."""
    return shutil.copytree(once, tmp_path, dirs_exist_ok=True)


def test_round_trip_is_bitwise_and_keeps_the_newest(saved):
    assert numbers(saved) == [10, 15]
    assert clean(saved) == []
    restored = restore(saved, ABSTRACT)
    assert (restored.step, restored.identity, restored.rows) == (15, IDENTITY, 120)
    assert restored.config == to_dict(Config())
    found = checkpoint.saved(saved)
    assert (found.step, found.state, found.identity, found.rows) == (15, None, IDENTITY, 120)
    assert found.config == restored.config
    jax.tree.map(np.testing.assert_array_equal, restored.state, state(15))


def test_a_state_goes_to_any_mesh(tmp_path):
    """And between one whose optimizer is split over the data axis and one where it is whole."""
    meshes = {
        "split": tiny(mesh={"shard_optimizer": True}),
        "both": tiny(mesh={"data": 4, "fsdp": 2, "shard_optimizer": True}),
        "whole": tiny(),
    }
    engines = {name: Engine(config, light.task(), make_mesh(config.mesh)) for name, config in meshes.items()}
    engines["one"] = Engine(tiny(), light.task(), one_device_mesh(tiny()))
    whole = jax.tree.map(lambda x: np.arange(x.size, dtype=x.dtype).reshape(x.shape), engines["one"].fresh(0))
    for name, engine in engines.items():
        state = jax.tree.map(lambda x, place: jax.device_put(x, place.sharding), whole, engine.shapes)
        checkpoints = Checkpoints(tmp_path / name, keep=1)
        checkpoints.save(0, state, identity=IDENTITY, rows=0, config=Config())
        checkpoints.close()
    for name in engines:
        for target in engines.values():
            found = restore(tmp_path / name, target.shapes).state
            jax.tree.map(np.testing.assert_array_equal, found, whole)
            assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, target.shapes)


def test_a_save_is_a_copy(tmp_path):
    """Donating the state to the next step while it is being written must not reach what is written."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    current = state(1)
    expected = jax.device_get(jax.tree.map(jnp.copy, current))
    checkpoints.save(1, current, identity={}, rows=0, config=Config())
    for _ in range(3):
        current = update(current)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restore(tmp_path, ABSTRACT).state, expected)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "flip": flip,
    "cut": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "zero": lambda f: f.write_bytes(bytes(f.stat().st_size)),
    "delete": lambda f: f.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damaged_file_is_noticed_and_named(saved, damage):
    """Each file of the newest step in turn: refused by name, set aside, and the step before is used."""
    newest = saved / "15"
    files = [f for f in newest.rglob("*") if f.is_file() and f.stat().st_size and f.name not in ORBAX_MARKS]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        DAMAGE[damage](file)
        with pytest.raises(CheckpointError, match=file.name) as error:
            restore(saved, ABSTRACT)
        assert "\n" not in str(error.value)
        file.write_bytes(content)
    DAMAGE[damage](files[0])
    (line,) = clean(saved)
    assert str(newest) in line
    assert restore(saved, ABSTRACT).step == 10


def contents(directory):
    """Every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("damage", ["flip", "no manifest"])
def test_if_no_step_is_whole_nothing_is_set_aside(saved, damage):
    """To begin again at step 1 must be the user's decision."""
    for step in (10, 15):
        if damage == "flip":
            flip(next((saved / str(step) / "state" / "d").iterdir()))
        else:
            (saved / str(step) / MANIFEST).unlink()
    before = contents(saved)
    with pytest.raises(CheckpointError, match="15.*no other step is whole"):
        clean(saved)
    with pytest.raises(CheckpointError, match="15.*manifest" if damage == "no manifest" else "15"):
        restore(saved, ABSTRACT)
    assert contents(saved) == before


@pytest.mark.parametrize("step", [10, 15])
def test_a_step_without_its_manifest_is_set_aside_whole(saved, step):
    """Manifest and step appear by one rename, so that it was lost later: the rest may still be of use."""
    (saved / str(step) / MANIFEST).unlink()
    before = contents(saved / str(step))
    (line,) = clean(saved)
    assert f"{step}.damaged" in line
    assert contents(saved / f"{step}.damaged") == before
    assert numbers(saved) == [25 - step] and clean(saved) == []


def test_a_manifest_that_is_a_pipe_is_not_waited_for(saved):
    (saved / "15" / MANIFEST).unlink()
    os.mkfifo(saved / "15" / MANIFEST)
    with pytest.raises(CheckpointError, match="15/manifest.json: missing or damaged"):
        restore(saved, ABSTRACT)
    (line,) = clean(saved)
    assert "15.damaged" in line and numbers(saved) == [10]


def test_what_was_set_aside_stays(saved):
    """Also where the same step is damaged again."""
    for name in ("15.damaged", "15.damaged-2"):
        (saved / name).mkdir()
        (saved / name / "kept").write_text(name)
    (saved / "15" / MANIFEST).unlink()
    (line,) = clean(saved)
    assert "15.damaged-3" in line and (saved / "15.damaged-3" / "state").is_dir()
    assert all((saved / name / "kept").read_text() == name for name in ("15.damaged", "15.damaged-2"))


def test_unfinished_saves_are_removed_and_nothing_else(saved):
    """A save that was cut short has Orbax's name of a step; what else lies there is not ours to judge."""
    (saved / f"20{TEMPORARY}").mkdir()
    (saved / f"20{TEMPORARY}" / "state").write_text("half")
    others = [f"notes{TEMPORARY}", f"20{TEMPORARY}.backup", f"020{TEMPORARY}", "2024", "best", "\u00b2"]
    for name in others:
        (saved / name).mkdir()
        (saved / name / "my_notes.txt").write_text(name)
    (line,) = clean(saved)
    assert f"20{TEMPORARY}" in line
    assert sorted(p.name for p in saved.iterdir()) == sorted(["10", "15", *others])
    assert all((saved / name / "my_notes.txt").read_text() == name for name in others)
    assert restore(saved, ABSTRACT).step == 15


def test_only_old_steps_that_are_wholly_ours_make_room(saved):
    (saved / "10" / "my_notes.txt").write_text("the best so far")
    checkpoints = Checkpoints(saved, keep=1)
    for step in (20, 25):
        checkpoints.save(step, state(step), identity={}, rows=0, config=Config())
    checkpoints.close()
    assert sorted(p.name for p in saved.iterdir()) == ["10", "25"]


def test_a_directory_in_the_place_of_a_step_is_named(saved):
    (saved / "20").mkdir()
    (saved / "20" / "my_notes.txt").write_text("mine")
    checkpoints = Checkpoints(saved, keep=2)
    with pytest.raises(StorageError, match="/20: .*move it away"):
        checkpoints.save(20, state(20), identity={}, rows=0, config=Config())
    checkpoints.close()
    assert (saved / "20" / "my_notes.txt").read_text() == "mine"


PARAMS = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0).params)
READS = {"all": (restore, ABSTRACT), "parameters": (checkpoint.restore_params, PARAMS)}


def replaced(directory, step, by):
    """A step directory is a copy of another."""
    shutil.rmtree(directory / str(step), ignore_errors=True)
    shutil.copytree(directory / str(by), directory / str(step))


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("step", [15, 20, 2024])
def test_a_copy_of_another_step_is_not_used(saved, step, reads):
    """In its place or beside it: it is refused, and set aside by a run, which goes on from the one before."""
    replaced(saved, step, by=10)
    read, abstract = READS[reads]
    with pytest.raises(CheckpointError, match=f"{saved}/{step}/{MANIFEST}: is of step 10[^\n]*$"):
        read(saved, abstract)
    (line,) = clean(saved)
    assert f"/{step}/" in line and f"{step}.damaged" in line
    assert read(saved, abstract).step == (10 if step == 15 else 15)


@pytest.mark.parametrize("reads", READS)
def test_a_state_of_another_step_is_not_used(saved, reads):
    """Also where the manifest fits it."""
    shutil.rmtree(saved / "15" / "state")
    shutil.copytree(saved / "10" / "state", saved / "15" / "state")
    (saved / "15" / MANIFEST).unlink()
    write_manifest(saved / "15", 15)
    read, abstract = READS[reads]
    with pytest.raises(CheckpointError, match=f"{saved}/15: holds the state of step 10[^\n]*$"):
        read(saved, abstract)


def test_a_copy_makes_no_room(saved):
    """What a user copied is the user's."""
    replaced(saved, 1, by=10)
    checkpoints = Checkpoints(saved, keep=1)
    checkpoints.save(20, state(20), identity={}, rows=0, config=Config())
    checkpoints.close()
    assert sorted(p.name for p in saved.iterdir()) == ["1", "20"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_a_step_says_is_verified_before_it_is_read(saved, damage, monkeypatch):
    """A config that is damaged is never compared, and never decides what is read."""
    read, parsed = checkpoint._described, []
    monkeypatch.setattr(checkpoint, "_described", lambda path: parsed.append(path.name) or read(path))
    for file in [saved / "15" / item / "metadata" for item in ("config", "identity", "place")]:
        content = file.read_bytes()
        DAMAGE[damage](file)
        found = checkpoint.saved(saved)
        assert (found.step, found.rows, found.config) == (10, 80, to_dict(Config()))
        for reads, abstract in READS.values():
            with pytest.raises(CheckpointError, match=f"{file}: (damaged|missing)[^\n]*$"):
                reads(saved, abstract)
        file.write_bytes(content)
    assert set(parsed) == {"10"}
    assert checkpoint.saved(saved).step == 15
    for step in ("10", "15"):
        flip(saved / step / "config" / "metadata")
    assert checkpoint.saved(saved) is None


def test_no_digit_of_a_manifest_or_a_config_can_change(saved):
    """One at a time."""
    for file in (saved / "15" / MANIFEST, saved / "15" / "config" / "metadata"):
        text = file.read_text()
        digits = [place for place, character in enumerate(text) if character.isdigit()]
        for place in digits[:4] + digits[4 :: len(digits) // 40]:
            file.write_text(text[:place] + str(9 - int(text[place])) + text[place + 1 :])
            with pytest.raises(CheckpointError, match=f"^{file}: [^\n]*$"):
                verify(saved / "15")
            assert checkpoint.saved(saved).step == 10
        file.write_text(text)
        verify(saved / "15")


def test_another_model_and_no_checkpoint_are_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match="does not fit"):
        restore(saved, ABSTRACT.replace(params={"more": ABSTRACT.params["w"]}))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        restore(tmp_path / "none", ABSTRACT)


def test_what_is_not_finite_is_neither_saved_nor_restored(saved, monkeypatch):
    checkpoints = Checkpoints(saved, keep=3)
    place = {"identity": {}, "rows": 0, "config": Config()}
    bad = state(20).replace(params={"w": jnp.ones((64, 64)), "half": jnp.array([1, jnp.nan, 3], jnp.bfloat16)})
    with pytest.raises(NumericError, match="step 20: params/half is no longer finite"):
        checkpoints.save(20, bad, **place)
    assert numbers(saved) == [10, 15] and clean(saved) == []
    monkeypatch.setattr(checkpoint.guard, "check_state", lambda *_: None)
    checkpoints.save(20, bad, **place)
    checkpoints.close()
    with pytest.raises(NumericError, match=f"{saved}/20: params/half is not finite"):
        restore(saved, ABSTRACT)


def test_what_a_run_goes_back_to_is_whole_and_due_and_of_an_update_that_was_made(saved):
    """Of a checkpoint that is older than the count nothing was skipped."""
    checkpoints = Checkpoints(saved, keep=9)
    config = Config(run=RunConfig(save_every=5))
    for step, skipped in ((20, Skipped(0, 4)), (25, Skipped(0, 4)), (29, Skipped(0, 4)), (30, Skipped(2, 6))):
        checkpoints.save(step, state(step), identity={}, rows=step, config=config, skipped=skipped)
    checkpoints.close()
    assert checkpoint.saved(saved).skipped == Skipped(2, 6)
    assert last_good(saved).step == 25
    victim = next(path for path in (saved / "25" / "state").rglob("*") if path.is_file())
    victim.write_bytes(victim.read_bytes()[:-1])
    good = last_good(saved)
    assert (good.step, good.skipped) == (20, Skipped(0, 4))
    assert int(restore(saved, ABSTRACT, step=20).state.step) == 20
    drop_after(saved, 20)
    assert numbers(saved) == [10, 15, 20]
    place = saved / "20" / "place" / "metadata"
    place.write_text(json.dumps({"rows": 20}))
    (saved / "20" / MANIFEST).unlink()
    write_manifest(saved / "20", 20)
    assert last_good(saved).skipped == Skipped()


def judged(values, by="eval_mlm_loss", on="rows"):
    return {step: Judged(by, value, on) for step, value in values.items()}


@pytest.mark.parametrize(
    ("by", "step"),
    [("eval_mlm_loss", 20), ("slope_loss", 20), ("eval_mlm_accuracy", 30), ("eval_context_gain", 30)],
)
def test_of_a_loss_the_least_is_best_and_of_all_else_the_largest(by, step):
    """And of equal ones the first, so that what comes later changes nothing."""
    assert best_step(judged({10: 0.0, 20: -1.0, 30: 2.0, 40: 1.0, 50: -1.0, 60: 2.0}, by)) == step


def test_numbers_of_something_else_say_nothing():
    """Of another evaluation, or on other rows: the best begins anew, and until there is a new one the old one stays."""
    old = judged({10: 3.0, 20: 1.0, 30: 2.0})
    assert best_step(old) == 20
    assert best_step(old | judged({40: 9.0, 50: 8.0}, on="longer rows")) == 50
    assert best_step(old | judged({40: 9.0}, by="eval_pair_loss")) == 40
    assert best_step({}) is None


JUDGING = Config(run=RunConfig(steps=100, save_every=10, eval_every=10, keep_best="eval_loss"))


def judge(directory, losses, *, keep=1, keep_best=True, config=JUDGING, **more):
    """Saves steps whose evaluation gave these losses; None = it had none."""
    checkpoints = Checkpoints(directory, keep=keep, keep_best=keep_best)
    for step, loss in losses.items():
        judged = None if loss is None else Judged("eval_loss", loss, "rows")
        checkpoints.save(step, state(step), identity={}, rows=0, config=config, judged=judged, **more)
    checkpoints.close()


def test_the_best_stays_besides_the_newest(tmp_path):
    """Until it is overtaken, also by a run that goes on; and no longer where it is not asked for any more."""
    judge(tmp_path, {10: 3.0, 20: 1.0, 30: 2.0, 35: None, 40: 2.5})
    assert numbers(tmp_path) == [20, 40] and checkpoint.chosen(tmp_path, "best") == 20
    assert checkpoint.saved(tmp_path).judged == Judged("eval_loss", 2.5, "rows")
    judge(tmp_path, {50: 1.0, 60: 0.5}, keep=2)
    assert numbers(tmp_path) == [50, 60] and checkpoint.chosen(tmp_path, "best") == 60
    judge(tmp_path, {70: 2.0, 80: 2.0, 90: 2.0}, keep=2)
    assert numbers(tmp_path) == [60, 80, 90]
    judge(tmp_path, {100: 2.0}, keep=2, keep_best=False)
    assert numbers(tmp_path) == [90, 100]


def test_where_a_run_was_stopped_does_not_decide_which_is_best(tmp_path):
    """Steps that are saved only for that, or while updates were skipped, were not there in another run. The last is."""
    judge(tmp_path, {10: 3.0, 15: 1.0})
    judge(tmp_path, {20: 2.0}, skipped=Skipped(2, 2))
    judge(tmp_path, {30: 4.0})
    assert numbers(tmp_path) == [10, 30]
    judge(tmp_path, {39: 2.5}, config=Config(run=RunConfig(steps=39, save_every=10, keep_best="eval_loss")))
    judge(tmp_path, {40: 5.0})
    assert numbers(tmp_path) == [39, 40]


def test_a_best_that_is_gone_or_damaged_costs_no_other(tmp_path):
    """Of those that are left one is the best; one that cannot be read may be it: it stays, and is not passed over."""
    judge(tmp_path, {10: 1.0, 20: 3.0, 30: 2.0, 40: 4.0}, keep=3)
    drop_after(tmp_path, 30)
    flip(tmp_path / "10" / "place" / "metadata")
    with pytest.raises(CheckpointError, match=f"{tmp_path}/10/place/metadata: damaged.*: name one of [^\n]*10.20.30$"):
        checkpoint.chosen(tmp_path, "best")
    judge(tmp_path, {40: 4.0, 50: 5.0})
    assert numbers(tmp_path) == [10, 30, 50]
    shutil.rmtree(tmp_path / "10")
    assert checkpoint.chosen(tmp_path, "best") == 30
    judge(tmp_path, {60: 6.0})
    assert numbers(tmp_path) == [30, 60]


def test_a_step_can_be_named(tmp_path):
    """One that is not there is refused, with those that are; never is another one taken."""
    judge(tmp_path, {10: 1.0, 20: 3.0, 30: 2.0}, keep=2)
    for step, found in (("best", 10), (20, 20), ("newest", 30)):
        for read, abstract in READS.values():
            restored = read(tmp_path, abstract, step=step)
            weights = restored.state["w"] if isinstance(restored.state, dict) else restored.state.params["w"]
            assert restored.step == found
            np.testing.assert_array_equal(weights, state(found).params["w"])
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/15: there is no such step; .*--step=10\|20\|30$"):
        checkpoint.restore_params(tmp_path, PARAMS, step=15)
    flip(next((tmp_path / "10" / "state" / "d").iterdir()))
    with pytest.raises(CheckpointError, match=f"{tmp_path}/10/state/[^\n]*; name another --step$"):
        checkpoint.restore_params(tmp_path, PARAMS, step="best")


def test_a_best_that_nothing_decides_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"no best is kept, as run.keep_best = ''; name one .*--step=10\|15$"):
        checkpoint.chosen(saved, "best")
    judge(tmp_path / "other", {5: None})
    with pytest.raises(CheckpointError, match="none was evaluated, so none is the best; name one .*--step=5$"):
        checkpoint.chosen(tmp_path / "other", "best")


def test_parameters_come_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    params = {"w": jnp.arange(12.0).reshape(3, 4)}
    saved_state = TrainState(jnp.int32(1), params, {"mu": jnp.ones(5)})
    checkpoints.save(1, saved_state, identity=IDENTITY, rows=0, config=Config())
    checkpoints.close()
    plain = {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32)}
    restored = checkpoint.restore_params(tmp_path, plain)
    assert type(restored.state["w"]) is np.ndarray
    np.testing.assert_array_equal(restored.state["w"], params["w"])
    placed = {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=SHARDING)}
    assert checkpoint.restore_params(tmp_path, placed).state["w"].sharding == SHARDING
    for wrong in ({"v": plain["w"]}, {"w": jax.ShapeDtypeStruct((4, 3), jnp.float32)}):
        with pytest.raises(CheckpointError, match="does not fit this configuration"):
            checkpoint.restore_params(tmp_path, wrong)


@pytest.mark.parametrize("chosen", ["params", "average", "best"])
def test_the_model_comes_from_where_the_state_has_it(tmp_path, chosen):
    """Also from a checkpoint of a version that did not say where: the average where one was kept."""
    params = {"w": jnp.arange(12.0).reshape(3, 4)}
    kept = jax.tree.map(jnp.zeros_like, params)
    average = Averaged(jnp.int32(1), (), jax.tree.map(lambda x: x + 1, params))
    best = Best(jnp.float32(0.75), jnp.int32(chosen == "best"), jnp.int32(0), jax.tree.map(lambda x: x + 2, params))
    saved_state = TrainState(jnp.int32(2), params, () if chosen == "params" else average, best)
    config = Config(optim=OptimConfig(ema=0.0 if chosen == "params" else 0.9))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(2, saved_state, identity=IDENTITY, rows=0, config=config)
    checkpoints.close()
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), kept)
    added = ["params", "average", "best"].index(chosen)
    restored = checkpoint.restore_params(tmp_path, wanted)
    np.testing.assert_array_equal(restored.state["w"], params["w"] + added)
    assert restored.best == ((1, 0.75) if chosen == "best" else None) == checkpoint.saved(tmp_path).best
    if chosen != "best":
        place = tmp_path / "2" / "place" / "metadata"
        place.write_text('{"rows": 0}')
        (tmp_path / "2" / MANIFEST).unlink()
        write_manifest(tmp_path / "2", 2)
        older = checkpoint.restore_params(tmp_path, wanted)
        np.testing.assert_array_equal(older.state["w"], params["w"] + added)


def test_what_a_run_does_not_have_is_not_in_its_checkpoint(tmp_path):
    """So that the files of a run that selects nothing are those that earlier versions wrote and read."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state(1), identity=IDENTITY, rows=0, config=Config())
    checkpoints.close()
    assert set(json.loads((tmp_path / "1/state/_METADATA").read_text())["tree_metadata"]) == {
        "('step',)",
        "('params', 'half')",
        "('params', 'w')",
        "('opt_state',)",
    }
    assert restore(tmp_path, ABSTRACT).state.best is None


def test_dropped_steps_are_gone_but_for_what_no_save_wrote(saved, tmp_path):
    (saved / "10" / "notes.txt").write_text("mine")
    drop(saved)
    assert [path.name for path in saved.iterdir()] == ["10"] and (saved / "10" / "notes.txt").exists()
    shutil.rmtree(saved / "10")
    drop(saved)
    assert not saved.exists()
    drop(saved)


@pytest.fixture
def in_bucket(once, bucket):
    """The same steps in a bucket, as Orbax writes them there."""
    return saved_thrice(storage.place("gs://bkt/run/checkpoints"))


def test_a_bucket_gives_the_same_bits(in_bucket, bucket):
    """With nothing beside: no temporary name, no mark of an unfinished save, no step but those that stay."""
    assert numbers(in_bucket) == [10, 15] and clean(in_bucket) == []
    assert {name.split("/")[2] for name in bucket.below("run/checkpoints/")} == {"10", "15"}
    restored = restore(in_bucket, ABSTRACT)
    assert (restored.step, restored.identity, restored.rows) == (15, IDENTITY, 120)
    jax.tree.map(np.testing.assert_array_equal, restored.state, state(15))
    assert checkpoint.saved(in_bucket).config == to_dict(Config())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0).params)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore_params(in_bucket, shapes).state, state(15).params)


def test_the_best_stays_in_a_bucket_too(in_bucket):
    judge(in_bucket, {20: 1.0, 30: 2.0, 40: 3.0})
    assert numbers(in_bucket) == [20, 40] and checkpoint.chosen(in_bucket, "best") == 20


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped"])
def test_a_damaged_object_is_named_and_the_step_before_it_used(in_bucket, bucket, damage):
    objects = bucket.below("run/checkpoints/15/state/ocdbt.process_0/d/")
    name = max(objects, key=lambda name: len(bucket.objects[name]))  # the numbers themselves
    content = bucket.objects[name]
    if damage == "gone":
        bucket.delete(name)
    else:
        other = bucket.objects[next(one for one in objects if one != name)]
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        bucket.put(name, {"flip": flipped, "cut": content[:middle], "swapped": other}[damage])
    with pytest.raises(CheckpointError, match=f"gs://bkt/{name}: .*goes on from the checkpoint before it"):
        restore(in_bucket, ABSTRACT)
    (line,) = clean(in_bucket)
    assert line.startswith(f"gs://bkt/{name}: ") and line.endswith("going on with step 10")
    jax.tree.map(np.testing.assert_array_equal, restore(in_bucket, ABSTRACT).state, state(10))
    checkpoints = Checkpoints(in_bucket, keep=2)
    checkpoints.save(15, state(15), identity=IDENTITY, rows=120, config=Config())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restore(in_bucket, ABSTRACT).state, state(15))


@pytest.mark.parametrize("moment", ["before", "in the middle"])
def test_a_bucket_that_goes_away_for_good_ends_the_save(in_bucket, bucket, monkeypatch, moment):
    """In time, with one line, and with what was there: also where it is Orbax and TensorStore that wait."""
    monkeypatch.setenv("BERTJAX_BUCKET_WAIT", "2")
    # TensorStore hands the results of the other writes to an event loop that is closed by then.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    checkpoints, begun = Checkpoints(in_bucket, keep=2), time.monotonic()

    def save():
        checkpoints.save(20, state(20), identity=IDENTITY, rows=160, config=Config())
        checkpoints.close()

    def go_away(name):
        bucket.refuses = 503 if "20/state/ocdbt.process_0/d/" in name else bucket.refuses

    if moment == "before":
        bucket.refuses = 503
    else:
        bucket.written = go_away
    with pytest.raises(StorageError) as error:
        save()
    with contextlib.suppress(StorageError):
        checkpoints.close()
    assert time.monotonic() - begun < 25 and bucket.refuses
    line = str(error.value)
    assert "\n" not in line and "[" not in line and "see whether the bucket can be reached" in line
    bucket.refuses, bucket.written = 0, lambda name: None
    time.sleep(2)  # until none of them is left
    assert numbers(in_bucket) == [10, 15]
    assert clean(in_bucket) == ([] if moment == "before" else [f"{in_bucket}/20: removed, its save was cut short"])
    jax.tree.map(np.testing.assert_array_equal, restore(in_bucket, ABSTRACT).state, state(15))


def test_what_tensorstore_adds_for_its_developers_is_left_out(bucket):
    checkpoints = Checkpoints(storage.place("gs://bkt/run/checkpoints"), keep=1)
    line = str(checkpoints._unwritable(ValueError("ABORTED: All 3 attempts failed [http_response_code='503']\nmore")))
    assert "could not be written (ABORTED: All 3 attempts failed); see whether the bucket" in line
    checkpoints.close()
