"""launch/tpu_vm.sh with a gcloud that only pretends: its workers are directories of this machine."""

import pytest
from pretended import Place

ZONE = "--zone=us-west4-a"
TYPE = "--type=v5litepod-2"


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path, "gcloud")
    (tmp_path / "states").write_text("ACTIVE\n")
    yield place
    place.run("launch/tpu_vm.sh", "delete", "tiny", ZONE, "--yes")  # ends what still runs


def tpu(place, action, *more, **environment):
    return place.run("launch/tpu_vm.sh", action, "tiny", ZONE, *more, **environment)


def asked(place, what):
    return [line for line in place.lines("gcloud.log") if what in line]


def test_a_run_from_nothing_to_nothing(place):
    command = ["pretrain", "--workdir=/mnt/my share/x", '--config.data.source=a b/*.txt,it\'s "$HOME"']
    assert tpu(place, "create", TYPE).returncode == 0
    installed = tpu(place, "install", "--nfs=10.0.0.2:/share", "--mount=/mnt/share")
    assert installed.returncode == 0, installed.stderr
    assert not (place.repository / "build/tiny.tar.gz").exists()
    assert asked(place, "launch/install.sh --device=tpu --nfs=10.0.0.2:/share --mount=/mnt/share")
    place.plan("wait", "wait")
    started = tpu(place, "start", TYPE, *command)
    assert started.returncode == 0, started.stderr
    # Through gcloud, ssh and two shells: word for word.
    place.until(lambda: place.records("arguments") == [command] * 2)
    assert place.records("environment") == [["BERTJAX_EXPECT_DEVICES=2", "BERTJAX_PROCESSES=auto"]] * 2
    state, *workers = tpu(place, "status").stdout.splitlines()
    assert state == "ACTIVE"
    assert len(workers) == 2
    assert all(": running " in worker for worker in workers)
    place.until(lambda: tpu(place, "logs").stdout == "begun\n" * 2)  # the pretended gcloud asks all workers
    assert [line.split(": ")[1] for line in tpu(place, "stop").stdout.splitlines()] == ["ended 75"] * 2
    assert tpu(place, "delete", "--yes").returncode == 0
    assert not (place.root / "workers").exists()


def test_keep_sees_a_run_through_a_slice_that_is_taken_back(place):
    (place.root / "states").write_text("ABSENT\nWAITING_FOR_RESOURCES\nACTIVE\nACTIVE\nSUSPENDED\nABSENT\nACTIVE\n")
    place.plan("wait", "wait", 0, 0)
    run = tpu(place, "keep", TYPE, "--spot", "--every=1", "pretrain", "--workdir=/mnt/x")
    assert run.returncode == 0, run.stderr
    assert "was taken back" in run.stderr
    creations = asked(place, "queued-resources create")
    assert len(creations) == 2
    assert all("--spot" in line for line in creations)
    assert len(asked(place, "queued-resources delete")) == 1
    assert place.records("arguments") == [["pretrain", "--workdir=/mnt/x"]] * 4


@pytest.mark.parametrize(("ends", "code"), [((3, 6), 3), ((6, 3), 3), ((0, 8), 8)])
def test_keep_ends_with_the_code_of_the_run(place, ends, code):
    """What a peer of the failed process says counts less. Nothing is deleted: logs are still to be read."""
    (place.root / "states").write_text("ABSENT\nACTIVE\n")
    place.plan(*ends)
    run = tpu(place, "keep", TYPE, "--every=1", "--max-restarts=0", "pretrain", "--workdir=/mnt/x")
    assert run.returncode == code, run.stderr
    assert len(place.records("arguments")) == 2
    assert not asked(place, "queued-resources delete")


def test_keep_gives_up_on_a_request_that_failed(place):
    (place.root / "states").write_text("FAILED\n")
    run = tpu(place, "keep", TYPE, "--every=1", "pretrain")
    assert run.returncode == 1
    assert not asked(place, "create") + asked(place, "delete")


def test_keep_gives_up_where_nothing_can_be_installed(place):
    (place.root / "states").write_text("ABSENT\nACTIVE\n")
    (place.bin / "tar").unlink()
    run = tpu(place, "keep", TYPE, "--every=0", "pretrain")
    assert run.returncode == 1
    assert "three times" in run.stderr
    assert not asked(place, "tpu-vm scp")  # what failed is not gone on with


def test_delete_wants_a_yes_and_what_was_made_here(place):
    assert tpu(place, "delete").returncode == 2
    assert not place.lines("gcloud.log")
    (place.root / "label").write_text("somebody\n")
    refused = tpu(place, "delete", "--yes")
    assert refused.returncode == 2
    assert "not made by" in refused.stderr
    assert not asked(place, "queued-resources delete")


@pytest.mark.parametrize(
    ("kind", "devices"), [("v5litepod-16", 16), ("v6e-8", 8), ("v4-32", 16), ("v5p-8", 4), ("v3-8", 8)]
)
def test_as_many_devices_are_expected_as_jax_sees(place, kind, devices):
    run = tpu(place, "start", f"--type={kind}", "--dry-run", "pretrain")
    assert f" BERTJAX_EXPECT_DEVICES={devices} " in run.stdout
