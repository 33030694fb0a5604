"""`bertjax.bucket.objects`: what is written is there, on condition; and a bucket that does not serve is one line."""

import threading
import time

import pytest

from bertjax.bucket import objects
from bertjax.errors import ConfigError, StorageError

URL = "gs://bkt/run/file"


def test_an_object_is_what_was_written_last(bucket):
    assert objects.get(URL) is None and not objects.exists(URL)
    for content in (b"first", b"", b"\x00\xff" * 70_000):
        objects.put(URL, content)
        assert objects.get(URL) == content == bucket.objects["run/file"] and objects.exists(URL)
    assert objects.part(URL, 1, 4) == b"\xff\x00\xff"
    assert objects.part(URL, 139_999, 140_001) == objects.part("gs://bkt/none", 0, 1) == b""
    objects.delete(URL)
    objects.delete(URL)  # not there: nothing to do
    assert bucket.objects == {}


def test_a_condition_holds_for_the_generation_that_was_read(bucket):
    _, none = objects.versioned(URL)
    first = objects.put(URL, b"first", over=none)
    assert objects.put(URL, b"another", over=none) is None and objects.get(URL) == b"first"
    assert objects.versioned(URL) == (b"first", first)
    second = objects.put(URL, b"first", over=first)
    assert second not in (None, first) and objects.put(URL, b"late", over=first) is None
    objects.delete(URL, over=first)
    assert objects.get(URL) == b"first"
    objects.delete(URL, over=second)
    assert objects.get(URL) is None


def test_what_is_below_is_of_this_directory_and_all_of_it(bucket):
    """A list comes in pages, and other names begin the same way."""
    names = [f"d/{number:03}" for number in range(120)]
    for name in (*[f"run1/{name}" for name in names], "run1", "run10/x", "run1-x", "run1.x", "run2/x"):
        bucket.put(name, b"x")
    assert objects.below("gs://bkt/run1") == names
    assert objects.below("gs://bkt/run1/d") == [name.removeprefix("d/") for name in names]
    assert objects.below("gs://bkt/run") == [] and len(objects.below("gs://bkt")) == 125


@pytest.mark.parametrize(("status", "told"), [(403, "roles/storage.objectUser"), (404, "there is no such bucket")])
def test_a_refusal_is_one_line(bucket, monkeypatch, status, told):
    monkeypatch.setattr(bucket, "refuses", status)
    with pytest.raises(StorageError, match=told) as error:
        objects.put(URL, b"x")
    assert str(error.value).startswith(f"{URL}: ") and "\n" not in str(error.value) and error.value.exit_code == 7


def test_a_bucket_that_is_away_for_a_while_is_waited_for(bucket, monkeypatch, capsys):
    monkeypatch.setattr(objects, "_TOLD", 0.2)
    monkeypatch.setattr(bucket, "refuses", 503)
    threading.Timer(0.7, lambda: setattr(bucket, "refuses", 0)).start()
    objects.put(URL, b"x")
    assert bucket.objects == {"run/file": b"x"}
    assert capsys.readouterr().err == f"{URL}: no answer for 0.2 s; waits on, 120 s at most (BERTJAX_BUCKET_WAIT)\n"


def test_a_bucket_that_stays_away_ends_the_wait(bucket, monkeypatch, capsys):
    monkeypatch.setattr(objects, "_TOLD", 0.2)
    monkeypatch.setenv(objects.WAIT, "1")
    monkeypatch.setattr(bucket, "refuses", 503)
    begun = time.monotonic()
    with pytest.raises(StorageError, match=r"no answer for 1 s \(BERTJAX_BUCKET_WAIT\); see whether"):
        objects.get(URL)
    assert 0.9 < time.monotonic() - begun < 10.0
    assert capsys.readouterr().err.count("waits on") == 1


def test_the_time_to_wait_is_a_number_and_bounds_orbax_too(monkeypatch):
    for text in ("0", "nan", "inf", "-3", "long"):
        monkeypatch.setenv(objects.WAIT, text)
        with pytest.raises(ConfigError, match=f"BERTJAX_BUCKET_WAIT = {text}: must be a number of seconds"):
            objects.wait()
    monkeypatch.setenv(objects.WAIT, "30")
    # 0.5 + 1 + 2 + 4 + 8 + 8 + 8 seconds between attempts.
    assert objects.retries()["gcs_request_retries"]["max_retries"] == 7


def test_a_name_that_no_bucket_can_have(bucket):
    with pytest.raises(ConfigError, match=r"gs://Lab_!: .*; name a bucket, gs://BUCKET/PATH"):
        objects.get("gs://Lab_!/x")
