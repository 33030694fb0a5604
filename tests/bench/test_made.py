"""`bertjax.bench.made`: a step that can be called by itself."""

import jax
import numpy as np
import pytest
from light import CONFIG, task
from small import one_device_mesh, random_batch

from bertjax.bench import memory
from bertjax.bench.made import MadeStep
from bertjax.errors import OutOfMemory
from bertjax.tasks import fit


@pytest.fixture
def plan(monkeypatch):
    """Of one device whose free memory is not known: nobody looks for what fits."""
    mesh = one_device_mesh(CONFIG)
    monkeypatch.setattr(memory.sharding, "make_mesh", lambda *given: mesh)
    monkeypatch.setattr(memory.memory, "free", lambda mesh: None)
    monkeypatch.setattr(memory, "pretraining", task)
    return memory.plan(CONFIG)


def parameters(plan, seeds, *, steps=4):
    """The step, and its parameters after each of some updates on batches of these seeds."""
    made, found = MadeStep(plan, [random_batch(CONFIG, seed=seed) for seed in seeds]), []
    for number in range(steps):
        assert int(made.state.step) == number
        made()
        found.append(np.concatenate([x.ravel() for x in jax.tree.leaves(jax.device_get(made.state.params))]))
    return made, found


def test_it_goes_on_from_its_own_state_and_is_compiled_once(plan):
    made, found = parameters(plan, [0])
    assert not np.array_equal(found[1], found[2])  # the rate of the first step is 0
    assert plan.engine.step.compile(plan.engine.shapes, fit.shapes(CONFIG, CONFIG.data.batch_size)) is made.program
    assert plan.engine.step.compiles() == 1 and made.program.as_text().startswith("HloModule jit_train_step,")


def test_its_rows_come_in_turn(plan):
    """Two batches over and over are not one of them, and are those two in their order."""
    alone, both, unrolled = (parameters(plan, seeds)[1][3] for seeds in ([0], [0, 1], [0, 1, 0, 1]))
    assert np.array_equal(both, unrolled) and not np.array_equal(both, alone)


def test_memory_that_runs_out_is_told(plan, monkeypatch):
    made = MadeStep(plan, [random_batch(CONFIG)])

    def fail(state, rows):
        raise MemoryError("no more")

    monkeypatch.setattr(made, "_step", fail)
    with pytest.raises(OutOfMemory, match="memory ran out"):
        made()


def test_compiled_again_it_comes_from_disk(plan):
    """The same program, so that what JAX has kept of the first compilation serves."""
    name, events = "jax_persistent_cache_min_compile_time_secs", []
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        made = MadeStep(plan, [random_batch(CONFIG)])
        jax.clear_caches()
        jax.monitoring.register_event_listener(lambda event, **more: events.append(event))
        made.compile_again()
    finally:
        jax.config.update(name, before)
    assert "/jax/compilation_cache/cache_hits" in events and "/jax/compilation_cache/cache_misses" not in events
