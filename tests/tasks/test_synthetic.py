"""`bertjax.tasks.synthetic`: a step that can be called by itself."""

import jax
import numpy as np
import pytest
from light import CONFIG, task
from small import one_device_mesh

from bertjax.errors import OutOfMemory
from bertjax.parallel import memory
from bertjax.tasks import fit
from bertjax.tasks.synthetic import SyntheticStep
from bertjax.train.session import Engine


@pytest.fixture
def made():
    mesh = one_device_mesh(CONFIG)
    engine = Engine(CONFIG, task(), mesh)
    return engine, SyntheticStep(CONFIG, task(), engine, mesh)


def test_it_goes_on_from_its_own_state_and_is_compiled_once(made):
    engine, step = made
    states = []
    for _ in range(3):
        states.append(jax.device_get(step.state))
        step()
    assert [int(state.step) for state in states] == [0, 1, 2] and engine.step.compiles() == 1
    one, other = (jax.tree.leaves(state.params) for state in states[1:])  # the rate of the first step is 0
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert engine.step.compile(engine.shapes, fit.shapes(CONFIG, CONFIG.data.batch_size)) is step.program
    assert step.program.as_text().startswith("HloModule jit_train_step,")


def test_memory_that_runs_out_is_told(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda mesh: None)  # not known: nobody looks for what fits
    mesh = one_device_mesh(CONFIG)
    step = SyntheticStep(CONFIG, task(), Engine(CONFIG, task(), mesh), mesh)

    def fail(state, rows):
        raise MemoryError("no more")

    monkeypatch.setattr(step, "_step", fail)
    with pytest.raises(OutOfMemory, match="memory ran out"):
        step()
