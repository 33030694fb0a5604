"""`bertjax.tasks.fit`: a run says what it takes before it takes it; want of memory is a line with what to change."""

import re

import numpy as np
import pytest
from light import CONFIG, task
from small import one_device_mesh, tiny

from bertjax.config.phases import phases
from bertjax.config.recipe import override
from bertjax.errors import OutOfMemory
from bertjax.parallel import memory
from bertjax.tasks import fit
from bertjax.tasks.pretrain import pretrain
from bertjax.train.session import Engine


def shapes_of_state(config, mesh):
    return Engine(config, task(), mesh).shapes


def phase_of(config):
    (phase,) = phases(config)
    return phase


def refused(config, mesh):
    engine = Engine(config, task(), mesh)
    with pytest.raises(OutOfMemory) as caught:
        fit.Room(mesh).ready(phase_of(config), task(), engine.step, engine.shapes)
    (line,) = str(caught.value).splitlines()
    assert caught.value.exit_code == 8
    return line


def taken(config, mesh):
    return fit._bytes_by_rows(config, task(), mesh)(config.data.batch_size)


def test_what_does_not_fit_is_refused_with_what_does(monkeypatch, capsys):
    """Each fix that the line names, made alone, is within the memory there is; and the batch is nearly the largest."""
    mesh = one_device_mesh(CONFIG)
    free = int(0.5 * taken(CONFIG, mesh))
    monkeypatch.setattr(memory, "free", lambda mesh: free)
    line = refused(CONFIG, mesh)
    assert line.startswith(
        "data.batch_size = 64 rows of data.seq_len = 32, optim.accumulate = 1, compute.remat = none: "
    )
    rows = int(re.search(r"the largest batch that fits is data\.batch_size = (\d+)", line)[1])
    parts = int(re.search(r"optim\.accumulate = (\d+)(?!.*optim\.accumulate)", line)[1])
    assert taken(override(CONFIG, data={"batch_size": rows}), mesh) <= free
    assert taken(override(CONFIG, data={"batch_size": int(1.3 * rows) + 1}), mesh) > memory.SHARE * free
    assert parts > 1 and taken(override(CONFIG, optim={"accumulate": parts}), mesh) <= free
    assert "or compute.remat = full" in line


def test_a_phase_is_named(monkeypatch, capsys):
    config = override(CONFIG, phases={"steps": (4, 2), "batch_size": (64, 8)})
    mesh, phase = one_device_mesh(CONFIG), phases(config)[1]
    engine = Engine(phase.config, task(), mesh)
    fit.Room(mesh).ready(phase, task(), engine.step, engine.shapes)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("phase 2 of 2: 1 x cpu: ") and "a step of 8 rows of 32 tokens" in first
    assert second.startswith("phase 2 of 2: compiled in ")
    monkeypatch.setattr(memory, "free", lambda mesh: 1000)
    with pytest.raises(OutOfMemory, match="^phase 2 of 2: data.batch_size = 8 rows"):
        fit.Room(mesh).ready(phase, task(), engine.step, engine.shapes)
    with (
        pytest.raises(OutOfMemory, match="^phase 2 of 2: data.batch_size = 8 rows"),
        fit.Room(mesh).told(phase, task()),
    ):
        raise MemoryError


def test_a_model_that_fits_with_no_batch(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda mesh: 1000)
    assert "not even 1 rows fit" in refused(CONFIG, one_device_mesh(CONFIG))


def test_a_run_is_refused_before_anything_is_made(inputs, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(memory, "free", lambda mesh: 10_000)
    monkeypatch.setattr(Engine, "fresh", lambda *_: made.append(1))
    with pytest.raises(OutOfMemory, match="data.batch_size = 8 rows"):
        pretrain(tiny(data=inputs), tmp_path)
    assert not made and {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_what_is_there_already_is_not_counted_twice(monkeypatch, capsys):
    """What is free is what was so before the run made or restored anything."""
    config = override(CONFIG, data={"batch_size": 8})
    mesh = one_device_mesh(config)
    needed = taken(config, mesh)
    monkeypatch.setattr(memory, "free", lambda mesh: needed)
    room = fit.Room(mesh)
    monkeypatch.setattr(memory, "free", lambda mesh: 0)
    state = shapes_of_state(config, mesh)
    room.ready(phase_of(config), task(), Engine(config, task(), mesh).step, state)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1 x cpu: [\d,]+ parameters; a step of 8 rows of 32 tokens; compiling \.\.\.", first)
    assert re.fullmatch(r"compiled in .* s: training takes 0\.\d\d GB of memory, and 0\.\d\d GB are free", second)


class JaxRuntimeError(RuntimeError):
    """As XLA's error is called."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\nmore"),
        np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype(float)),
    ],
)
def test_whoever_reports_it(error):
    with pytest.raises(OutOfMemory) as caught, fit.Room(one_device_mesh(CONFIG)).told(phase_of(CONFIG), task()):
        raise error
    (line,) = str(caught.value).splitlines()
    for named in ("data.batch_size = 64", "optim.accumulate", "compute.remat", "the largest batch that fits"):
        assert named in line


def test_other_errors_are_left_alone():
    for error in (ValueError("out of memory"), JaxRuntimeError("INTERNAL: something else")):
        with pytest.raises(type(error)), fit.Room(one_device_mesh(CONFIG)).told(phase_of(CONFIG), task()):
            raise error
