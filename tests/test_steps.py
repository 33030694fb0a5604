"""`bertjax.steps`: on a disk and in a bucket, a step is whole or not used, and nothing of others is touched.

`tests/train/test_checkpoint.py` has what Orbax writes; here the files only have its names.
"""

import re

import pytest

from bertjax import steps, storage
from bertjax.bucket import objects
from bertjax.errors import CheckpointError, StorageError

FILES = {
    "_CHECKPOINT_METADATA": b"{}",
    "commit_success.txt": b"ok",
    "config/metadata": b'{"a": 1}',
    "config/commit_success.txt": b"ok",
    "state/_METADATA": b"{}",
    "state/_sharding": b"{}",
    "state/array_metadatas/process_0": b"[]",
    "state/manifest.ocdbt": b"m" * 50,
    f"state/d/{'0a' * 16}": b"v" * 500,
    f"state/ocdbt.process_0/d/{'1b' * 16}": b"w" * 700,
}
"""Of a step, as Orbax names them."""


def put(path, name, content):
    file = path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def save(directory, step):
    for name, content in FILES.items():
        put(directory / str(step), name, content + str(step).encode())
    steps.write_manifest(directory / str(step), step)


@pytest.fixture(params=["disk", "bucket"])
def saved(request, tmp_path):
    """Steps 5, 10 and 15."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
    place = {"disk": str(tmp_path / "run"), "bucket": "gs://bkt/run"}[request.param]
    directory = storage.place(f"{place}/checkpoints")
    for step in (5, 10, 15):
        save(directory, step)
    return directory


@pytest.fixture
def there(bucket):
    """The same, in a bucket."""
    directory = storage.place("gs://bkt/run/checkpoints")
    for step in (5, 10, 15):
        save(directory, step)
    return directory


def below(bucket, step):
    return [name.removeprefix(f"run/checkpoints/{step}/") for name in bucket.below(f"run/checkpoints/{step}/")]


def test_what_was_saved_is_whole(saved):
    assert steps.numbers(saved) == steps.present(saved) == [5, 10, 15] and steps.clean(saved) == []
    steps.verify(saved / "15")
    steps.remove(saved / "5")
    assert steps.numbers(saved) == [10, 15] and not (saved / "5").exists()
    steps.drop_after(saved, 10)
    assert steps.numbers(saved) == [10]
    steps.drop(saved)
    assert not saved.exists()


@pytest.mark.parametrize("name", ["manifest.json", "config/metadata", f"state/d/{'0a' * 16}"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "swapped"])
def test_a_damaged_step_is_named_and_the_one_before_it_used(saved, damage, name):
    file = saved / "15" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        other = (saved / "10" / name).read_bytes()
        file.write_bytes({"flip": bytes([content[0] ^ 1]) + content[1:], "cut": content[:-2], "swapped": other}[damage])
    with pytest.raises(CheckpointError, match=re.escape(str(file))):
        steps.verify(saved / "15")
    (line,) = steps.clean(saved)
    assert line.startswith(f"{file}: ") and line.endswith("going on with step 10")
    assert steps.numbers(saved) == steps.present(saved) == [5, 10] and steps.clean(saved) == []
    steps.make_room(saved / "15")
    save(saved, 15)
    assert steps.numbers(saved) == [5, 10, 15] and steps.clean(saved) == []


def test_where_none_is_whole_nothing_is_set_aside(saved):
    for step in (5, 10, 15):
        (saved / str(step) / "config/metadata").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="no other step is whole"):
        steps.clean(saved)
    assert steps.present(saved) == [5, 10, 15]


def test_a_file_of_others_keeps_a_step_from_removal(saved):
    put(saved / "5", "state/notes.txt", b"mine")
    steps.remove(saved / "5")
    steps.remove(saved / "10")
    assert steps.numbers(saved) == [5, 15] and (saved / "5" / "state/notes.txt").read_bytes() == b"mine"
    with pytest.raises(StorageError, match="is in the place of the checkpoint; move it away"):
        steps.make_room(saved / "5")
    put(saved / "20", "notes.txt", b"mine")
    assert steps.present(saved) == [5, 15] and steps.clean(saved) == []
    with pytest.raises(StorageError, match="is in the place"):
        steps.make_room(saved / "20")
    assert (saved / "20" / "notes.txt").read_bytes() == b"mine"


def test_a_save_that_was_cut_short_in_a_bucket_goes(there, bucket):
    """At whatever moment: without a manifest there is no step. Unless somebody else's file is in it."""
    written = [name for name in FILES if name != "commit_success.txt"]
    for number in range(1, len(written)):
        for name in written[:number]:
            put(there / "20", name, FILES[name])
        assert steps.numbers(there) == steps.present(there) == [5, 10, 15]
        assert steps.clean(there) == [f"{there}/20: removed, its save was cut short"]
        assert below(bucket, 20) == []
    put(there / "20", "state/_METADATA", b"{}")
    put(there / "20", "state/notes.txt", b"mine")
    assert steps.clean(there) == [] and below(bucket, 20) == ["state/_METADATA", "state/notes.txt"]


def test_a_removal_that_is_cut_short_in_a_bucket_leaves_no_step(there, bucket, monkeypatch):
    """At whatever moment the process is killed, the step is there as it was, or is removed by the next one to come."""
    whole = below(bucket, 5)
    delete, kept = type(bucket).delete, dict(bucket.objects)
    for allowed in range(len(whole) + 1):
        bucket.empty()
        for name, content in kept.items():
            bucket.put(name, content)
        done = []

        def one(name, done=done, allowed=allowed):
            if len(done) >= allowed:
                raise StorageError("killed")
            done.append(name)
            return delete(bucket, name)

        monkeypatch.setattr(objects, "delete", lambda url, one=one, **_: one(url.removeprefix("gs://bkt/")))
        if allowed < len(whole):
            with pytest.raises(StorageError, match="killed"):
                steps.remove(there / "5")
        else:
            steps.remove(there / "5")
        monkeypatch.undo()
        # Between the manifest and the mark it might as well be damage: that is kept, and not used.
        assert steps.numbers(there) == ([5, 10, 15] if allowed == 0 else [10, 15])
        lines = steps.clean(there)
        assert len(below(bucket, 5)) in ((len(whole),) if allowed <= 1 else (0,)), (allowed, lines)


def test_a_damaged_step_in_a_bucket_is_not_removed_for_another(there, bucket):
    (there / "15" / "state/_sharding").write_bytes(b"")
    (line,) = steps.clean(there)
    assert "marked as DAMAGED until that step is saved again" in line
    assert b"15/state/_sharding: damaged" in bucket.objects["run/checkpoints/15/DAMAGED"]
    before = below(bucket, 15)
    steps.drop_after(there, 5)
    assert steps.present(there) == [5] and below(bucket, 15) == before
    put(there / "15", "notes.txt", b"mine")
    with pytest.raises(StorageError, match="is in the place"):
        steps.make_room(there / "15")
    assert "notes.txt" in below(bucket, 15)
