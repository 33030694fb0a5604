"""`bertjax.ahead.search`: what is tried and chosen, with reports whose times are made up."""

import pytest
from small import tiny

from bertjax.ahead import search as searching
from bertjax.errors import ConfigError

CONFIG = tiny(data={"batch_size": 64}, optim={"accumulate": 2})


def reports(monkeypatch, seconds_of):
    """Reports of eight chips by `seconds_of(mesh, accumulate, remat)`: None = it does not fit."""
    asked = []

    def report(config, machine):
        data, parts, remat = config.mesh.data or 8, config.optim.accumulate, config.compute.remat
        mesh = {"data": data, "fsdp": config.mesh.fsdp, "tensor": config.mesh.tensor}
        if mesh["tensor"] == 4:
            raise ConfigError("model.num_heads = 2: must be a multiple of mesh.tensor = 4")
        asked.append((tuple(mesh.values()), parts, remat))
        seconds = seconds_of(*asked[-1])
        return {
            "chips": 8,
            "mesh": mesh,
            "accumulate": parts,
            "remat": remat,
            "fits": seconds is not None,
            "bytes_per_chip": {"total": 5 if seconds is None else 1},
            "estimated": seconds and {"step_seconds": seconds},
        }

    monkeypatch.setattr(searching, "report", report)
    return asked


def test_the_best_of_what_fits_is_suggested(monkeypatch):
    best = ((1, 8, 1), 1, "dots")
    asked = reports(
        monkeypatch,
        lambda *one: None if one[2] == "none" and one[1] == 1 else 2.0 - (one == best) + 0.1 * (one[0] != best[0]),
    )
    found, tried = searching.search(CONFIG, "eight")
    assert (tuple(found["mesh"].values()), found["accumulate"], found["remat"]) == best
    assert searching.suggestion(CONFIG, found) == [
        "--config.mesh.data=1",
        "--config.mesh.fsdp=8",
        "--config.optim.accumulate=1",
        "--config.compute.remat=dots",
    ]
    assert len(asked) == len(set(asked)) == len(tried) - 1  # each once; and one was refused
    (refused,) = [line for line in tried if "refused" in line]
    assert refused["change"] == {"mesh": {"data": 2, "fsdp": 1, "tensor": 4}} and "num_heads" in refused["refused"]
    assert tried[0]["change"] == {} and any(not line["fits"] and line["total"] == 5 for line in tried)


def test_from_what_does_not_fit_to_what_does(monkeypatch):
    reports(monkeypatch, lambda mesh, parts, remat: 1.0 if remat == "full" else None)
    found, _ = searching.search(CONFIG, "eight")
    assert found["fits"] and found["remat"] == "full"


def test_where_nothing_fits(monkeypatch):
    reports(monkeypatch, lambda *_: None)
    with pytest.raises(ConfigError, match="--topology=eight: nothing that was tried fits"):
        searching.search(CONFIG, "eight")


def test_a_batch_is_never_split_below_its_rows(monkeypatch):
    asked = reports(monkeypatch, lambda *_: 1.0)
    searching.search(tiny(data={"batch_size": 8}), "eight")
    assert {parts for _, parts, _ in asked} == {1}
