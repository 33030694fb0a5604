"""What launchers tell: read as they say it, and refused where it cannot be."""

import pytest

from bertjax.errors import ConfigError
from bertjax.parallel.launched import announced, is_told

OURS = {"BERTJAX_COORDINATOR": "10.0.0.7:1234", "BERTJAX_PROCESSES": "4", "BERTJAX_PROCESS": "3"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "8"},  # a script of sbatch, outside of srun
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        OURS | {"BERTJAX_PROCESSES": "1", "BERTJAX_PROCESS": "0"},
    ],
)
def test_alone(environment):
    assert announced(environment) is None and not is_told(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
        {"TPU_WORKER_HOSTNAMES": "t-0,t-1"},
        {"MEGASCALE_COORDINATOR_ADDRESS": "t-0"},
        {"BERTJAX_PROCESSES": "auto"},
    ],
)
def test_what_jax_finds_out_for_itself(environment):
    assert announced(environment) == {}
    assert announced(environment | {"BERTJAX_LOCAL_DEVICES": "2,3"}) == {"local_device_ids": [2, 3]}


def test_explicitly():
    found = {"coordinator_address": "10.0.0.7:1234", "num_processes": 4, "process_id": 3}
    assert announced(OURS) == found
    assert announced(OURS | {"BERTJAX_LOCAL_DEVICES": "1"}) == found | {"local_device_ids": [1]}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_on_one_machine_nobody_else_is_listened_to(host):
    assert announced(OURS | {"BERTJAX_COORDINATOR": f"{host}:9"})["coordinator_bind_address"] == f"{host}:9"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"BERTJAX_PROCESS": ""}, "set without BERTJAX_PROCESS;"),
        ({"BERTJAX_PROCESS": "4"}, "BERTJAX_PROCESS = 4: must be from 0 to BERTJAX_PROCESSES - 1 = 3"),
        ({"BERTJAX_PROCESSES": "two"}, "BERTJAX_PROCESSES = 'two': must be a whole number"),
        ({"BERTJAX_COORDINATOR": "10.0.0.7"}, "BERTJAX_COORDINATOR = '10.0.0.7': must be HOST:PORT"),
        ({"BERTJAX_COORDINATOR": ":80"}, "must be HOST:PORT"),
        ({"BERTJAX_LOCAL_DEVICES": "0;1"}, "BERTJAX_LOCAL_DEVICES = '0;1': must be numbers, as 0,1"),
        ({"BERTJAX_PROCESSES": "auto"}, "'auto': must be a whole number"),
    ],
)
def test_what_cannot_be(changes, said):
    with pytest.raises(ConfigError, match="^[^\n]*$") as error:
        announced(OURS | changes)
    assert said in str(error.value)


def test_the_expected_devices_are_reason_enough_to_look():
    assert is_told({"BERTJAX_EXPECT_DEVICES": "8"}) and is_told(OURS)
