"""`bertjax.parallel.distributed` of a process alone; of several, see tests/test_processes.py."""

import jax
import numpy as np
import pytest

from bertjax.config.schema import MeshConfig
from bertjax.errors import ConfigError, DataError
from bertjax.parallel import distributed, sharding


def test_alone_everything_is_the_identity():
    assert distributed.first() and not distributed.several() and not distributed.joined()
    value = object()  # which no JSON has
    assert distributed.agreed(lambda: value) is distributed.by_first(lambda: value) is value
    assert distributed.gathered([1, "x"]) == [[1, "x"]]
    assert distributed.total({"tokens": 3}) == {"tokens": 3}
    with pytest.raises(DataError, match="^mine$"):
        distributed.agreed(lambda: raising(DataError("mine")))


def raising(error):
    raise error


def test_the_devices_that_are_expected_are_there():
    distributed.start({"BERTJAX_EXPECT_DEVICES": "8"})
    with pytest.raises(ConfigError, match="BERTJAX_EXPECT_DEVICES = 9: 8 devices are seen"):
        distributed.start({"BERTJAX_EXPECT_DEVICES": "9"})


def test_an_error_of_another_process_keeps_its_exit_code():
    with pytest.raises(DataError, match="process 2: a.txt: damaged"):
        distributed._raise_of_others([None, None, ["DataError", "a.txt: damaged"]])
    for name in (
        "ZeroDivisionError",
        "memory_ran_out",
        "PREEMPTED",
    ):  # no error of a user, though two are in the module
        with pytest.raises(distributed.PeerError, match=f"process 0: {name}"):
            distributed._raise_of_others([[name, ""]])


def test_what_is_sent_has_few_sizes():
    sizes = [distributed._room(size) for size in range(1, 5000)]
    assert set(sizes) == {1024, 2048, 4096, 8192}
    assert all(room >= size for size, room in enumerate(sizes, 1))


def test_a_vote_is_known_one_call_later():
    vote = distributed.Vote()
    assert [vote.cast(asked) for asked in (False, True, False, False)] == [False, False, True, False]


class Asked:
    asked = ""


def test_together_a_signal_waits_for_the_step():
    stop, got = Asked(), []
    together = distributed.Together(stop)
    assert not together.alone and not together.stopping()
    stop.asked = "SIGTERM"
    assert together.wait(lambda: got.append(1)) is None and got
    assert [together.stopping(), together.stopping()] == [False, True]


def test_arrays_come_whole_and_go_back_to_their_places():
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=4))
    whole = {"a": np.arange(16.0).reshape(8, 2), "b": np.float32(3)}
    there = {
        "a": jax.device_put(whole["a"], sharding.rows_sharding(mesh)),
        "b": sharding.put_whole(np.array(3.0), sharding.replicated(mesh)),
    }
    back = distributed.on_devices(distributed.on_host(there), like=there)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), back, there)
    assert back["a"].sharding == there["a"].sharding and back["b"].sharding == there["b"].sharding


def test_lines_for_a_person():
    assert distributed.table([["a", "4 x H100"], ["b", "4 x H100"]]) == [
        "2 processes, 8 devices",
        "  process 0  a  4 x H100",
        "  process 1  b  4 x H100",
    ]
