"""`bertjax.bucket.lease`: one process writes at a time, and none that is gone keeps the others out."""

import json
import subprocess
import sys
import threading
import time

import pytest

from bertjax import storage
from bertjax.bucket import lease, objects
from bertjax.errors import StorageError

RUN = "gs://bkt/run"
LOCK = "run/.lock"


@pytest.fixture(autouse=True)
def quick(monkeypatch, bucket):
    monkeypatch.setattr(lease, "LASTS", 1.2)
    monkeypatch.setattr(lease, "REFRESHED", 0.2)


def elsewhere(**changes):
    """A holder on another machine."""
    return json.dumps({"process": 7, "host": "tpu-3", "machine": "other", "id": "x", "started": "1"} | changes).encode()


def test_a_second_run_is_refused_while_the_first_is_alive(bucket):
    with storage.locked(storage.place(RUN)) as check, pytest.raises(StorageError) as error:  # noqa: PT012
        for _ in range(3):
            check()
        with lease.held(RUN):
            pass
    assert f"{RUN}: in use by process " in str(error.value) and "stop it, or name another directory" in str(error.value)
    assert LOCK not in bucket.objects
    with lease.held(RUN), lease.held("gs://bkt/run2"):
        assert bucket.below("") == [LOCK, "run2/.lock"]


def test_what_is_not_refreshed_is_taken_over(bucket, capsys):
    bucket.put(LOCK, elsewhere())
    begun = time.monotonic()
    with lease.held(RUN):
        assert time.monotonic() - begun > lease.LASTS
        assert json.loads(bucket.objects[LOCK])["id"] != "x"
    assert "held by process 7 on tpu-3; unless that is alive, it is taken over in 1.2 s" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff{", b"[]"])
def test_one_that_nobody_can_read_expires_too(bucket, content):
    bucket.put(LOCK, content)
    with lease.held(RUN) as check:
        check()


def test_a_process_that_died_here_is_not_waited_for(bucket, monkeypatch):
    """Nor one whose number another process has by now."""
    script = "from bertjax.bucket import lease\nimport json, os\n"
    script += "print(json.dumps(lease._Lease('gs://bkt/run')._me))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr(lease, "LASTS", 1000)
    for changes in ({}, {"process": 1}):
        bucket.put(LOCK, json.dumps(json.loads(told) | changes).encode())
        with lease.held(RUN) as check:
            check()


def test_a_process_that_slept_too_long_notices_before_it_writes(bucket, monkeypatch):
    monkeypatch.setattr(lease, "REFRESHED", 1000)
    with lease.held(RUN) as check:
        bucket.put(LOCK, elsewhere())
        check()  # it has been refreshed just now, so it cannot have been taken
        monkeypatch.setattr(lease, "LASTS", 0)
        with pytest.raises(StorageError, match=r"was taken over by process 7 on tpu-3, while this process stood still"):
            check()
    assert bucket.objects[LOCK] == elsewhere()  # the other's stays


def test_a_bucket_that_was_away_takes_nothing_from_its_holder(bucket, monkeypatch):
    """For longer than the lease lasts: that nobody has taken it is seen by its generation."""
    monkeypatch.setattr(lease, "REFRESHED", 1000)
    with lease.held(RUN) as check:
        monkeypatch.setattr(bucket, "refuses", 503)
        monkeypatch.setattr(lease, "LASTS", 0.1)
        threading.Timer(0.5, lambda: setattr(bucket, "refuses", 0)).start()
        check()


def test_a_write_whose_answer_was_lost_is_known_by_its_content(bucket, monkeypatch):
    put = objects.put
    monkeypatch.setattr(objects, "put", lambda *args, **named: put(*args, **named) and None)
    with lease.held(RUN):
        monkeypatch.setattr(objects, "put", put)
        assert LOCK in bucket.objects
    assert LOCK not in bucket.objects


def test_of_two_that_begin_together_one_gets_it(bucket):
    got, refused, let_go = [], [], threading.Event()

    def begin():
        try:
            with lease.held(RUN):
                got.append(1)
                let_go.wait(10)
        except StorageError:
            refused.append(1)
            let_go.set()

    both = [threading.Thread(target=begin) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(20)
    assert (got, refused) == ([1], [1])
