"""`bertjax.bucket.path`: a path in a bucket does what one of pathlib does, or says that it cannot."""

import json

import pytest
from etils import epath

from bertjax import storage
from bertjax.bucket.path import BucketPath

RUN = "gs://bkt/lab/run"


@pytest.fixture
def run(bucket):
    for name in ("config.json", "data/a.npy", "data/b.npy", "checkpoints/10/state/x", "checkpoints/9/state/y"):
        bucket.put(f"lab/run/{name}", name.encode())
    bucket.put("lab/run2/other", b"")
    return storage.place(RUN)


def test_orbax_gets_the_same_paths(run):
    assert type(run) is type(run / "x") is type(epath.Path(RUN)) is BucketPath
    assert str(run / "data" / "a.npy") == f"{RUN}/data/a.npy" and (run / "x").parent == run == run.absolute()
    assert storage.in_bucket(run) and not storage.in_bucket("runs/gs") and (run / "data").name == "data"


def test_a_directory_is_there_with_what_is_in_it(run):
    assert [path.name for path in run.iterdir()] == ["checkpoints", "config.json", "data"]
    assert [str(path.relative_to(run)) for path in run.glob("data/*.npy")] == ["data/a.npy", "data/b.npy"]
    assert [path.name for path in run.glob("*n*")] == ["checkpoints", "config.json"]
    assert run.is_dir() and run.exists() and not run.is_file()
    assert (run / "config.json").is_file() and not (run / "config.json").is_dir()
    assert not (run / "checkpoint").exists() and list((run / "none").iterdir()) == []
    assert (run / "checkpoints").files() == ["10/state/x", "9/state/y"]


def test_files_are_read_and_written_whole(run, bucket):
    assert (run / "config.json").read_bytes() == b"config.json" and (run / "data/a.npy").read_text() == "data/a.npy"
    with (run / "new").open("w") as file:
        json.dump({"é": 1}, file, ensure_ascii=False)
        assert "lab/run/new" not in bucket.objects
    assert json.loads((run / "new").read_text()) == {"é": 1}
    with pytest.raises(FileNotFoundError):
        (run / "none").read_bytes()
    for refused in (lambda: run.open("a"), lambda: run.rename(RUN + "3"), lambda: (run / "new").copy("/tmp/x")):
        with pytest.raises(NotImplementedError):
            refused()


def test_what_is_removed_is_that_and_no_more(run, bucket):
    (run / "config.json").unlink()
    (run / "config.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (run / "config.json").unlink()
    (run / "data").rmtree()
    assert bucket.below("") == ["lab/run/checkpoints/10/state/x", "lab/run/checkpoints/9/state/y", "lab/run2/other"]
    (run / "data").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        (run / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError):
        (run / "data").rmtree()


@pytest.mark.parametrize("text", ["gs://", "gs://bkt", "gs://bkt/", "gs://Bkt/x", "gs://bkt/a/../b", "gs://bkt//x"])
def test_what_names_no_directory_of_a_bucket(text):
    with pytest.raises(storage.ConfigError, match="is no path in a bucket; name one as gs://BUCKET/PATH"):
        storage.place(text)
