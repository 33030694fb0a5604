"""`bertjax.train.loop`: when it evaluates, saves and stops, with a step that only counts."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import toy

from bertjax.config.schema import Config, RunConfig
from bertjax.train import loop
from bertjax.train.state import TrainState
from bertjax.train.task import Evaluation


@dataclass
class Noted:
    """Takes the place of a recorder, of a step and of saves, and notes the order in which they are used."""

    events: list = field(default_factory=list)

    def add(self, step, values, batch, waited):
        self.events.append(("step", step))

    def flush(self):
        pass

    def evaluated(self, step, name, values):
        self.events.append((name, step))

    def step(self, state, batch):
        return state.replace(step=state.step + 1), {}

    def save(self, step, state):
        assert state.step == step
        self.events.append(("save", step))


@dataclass
class Stop:
    """Is asked to stop from this step on."""

    noted: Noted
    step: int | None

    @property
    def asked(self):
        return "SIGTERM" if ("step", self.step) in self.noted.events else ""

    def wait(self, get):
        return get()


def run(*, start=0, stop_at=None, evaluations=(), **fields):
    noted = Noted()
    done = loop.run(
        Config(run=RunConfig(**fields)),
        toy.task(evaluations=tuple(Evaluation(name, every, lambda params: {}) for name, every in evaluations)),
        TrainState(step=np.int32(start), params={}, opt_state=()),
        noted.step,
        iter(lambda: {}, None),
        lambda batch: batch,
        noted,
        noted.save,
        Stop(noted, stop_at),
    )
    return done, [event for event in noted.events if event[0] != "step"], noted.events


def test_evaluations_come_before_the_save_of_their_step():
    done, events, _ = run(steps=5, save_every=2, evaluations=[("eval", 2), ("rare", 0)])
    assert done
    last = [("eval", 5), ("rare", 5), ("save", 5)]
    assert events == [("eval", 2), ("save", 2), ("eval", 4), ("save", 4), *last]


def test_a_run_goes_on_behind_the_step_it_has():
    done, events, every = run(start=3, steps=5, save_every=0)
    assert done and every == [("step", 4), ("step", 5), ("save", 5)]


@pytest.mark.parametrize(("stop_at", "done"), [(3, False), (5, True)])
def test_a_run_that_is_asked_to_stop_saves_first(stop_at, done):
    """At its last step it is done all the same."""
    found, events, every = run(steps=5, save_every=0, stop_at=stop_at)
    assert found is done
    assert events == [("save", stop_at)] and every[-2] == ("step", stop_at)
