"""`bertjax.train.loop`: when it evaluates, saves and stops, with a step that only counts."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from bertjax.config.schema import Config, RunConfig, TaskConfig
from bertjax.parallel.watchdog import Watchdog
from bertjax.train import loop
from bertjax.train.guard import Skipped
from bertjax.train.state import Best, TrainState
from bertjax.train.task import Evaluation


@dataclass
class Noted:
    """Takes the place of a recorder, of a step and of saves, and notes the order in which they are used."""

    events: list = field(default_factory=list)
    bad: tuple = ()  # steps whose updates are skipped
    skipped: Skipped = Skipped()

    def add(self, step, values, batch, waited):
        self.events.append(("step", step))
        self.skipped = self.skipped.after(step in self.bad)

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

    alone = True

    def stopping(self):
        return ("step", self.step) in self.noted.events

    def wait(self, get):
        return get()


def run(*, start=0, stop_at=None, end=None, evaluations=(), bad=(), **fields):
    noted = Noted(bad=bad)
    left = loop.run(
        Config(run=RunConfig(**fields)),
        toy.task(evaluations=tuple(Evaluation(name, every, lambda params: {}) for name, every in evaluations)),
        TrainState(step=np.int32(start), params={}, opt_state=()),
        noted.step,
        iter(lambda: {}, None),
        lambda batch: batch,
        noted,
        noted.save,
        Stop(noted, stop_at),
        Watchdog(0),
        end=end or fields["steps"],
    )
    return left is not None, [event for event in noted.events if event[0] != "step"], noted.events


def test_evaluations_come_before_the_save_of_their_step():
    done, events, _ = run(steps=5, save_every=2, evaluations=[("eval", 2), ("rare", 0)])
    assert done
    last = [("eval", 5), ("rare", 5), ("save", 5)]
    assert events == [("eval", 2), ("save", 2), ("eval", 4), ("save", 4), *last]


def test_the_end_of_a_phase_is_saved_and_is_not_the_end_of_the_run():
    """It has no evaluation of its own; a run that is asked to stop there stops."""
    done, events, every = run(steps=5, end=3, save_every=0, evaluations=[("eval", 2)])
    assert done and events == [("eval", 2), ("save", 3)] and every[-2] == ("step", 3)
    done, events, _ = run(steps=5, end=3, save_every=0, stop_at=3)
    assert not done and events == [("save", 3)]


def test_a_run_goes_on_behind_the_step_it_has():
    done, events, every = run(start=3, steps=5, save_every=0)
    assert done and every == [("step", 4), ("step", 5), ("save", 5)]


@pytest.mark.parametrize(("stop_at", "done"), [(3, False), (5, True)])
def test_a_run_that_is_asked_to_stop_saves_first(stop_at, done):
    """At its last step it is done all the same."""
    found, events, every = run(steps=5, save_every=0, stop_at=stop_at)
    assert found is done
    assert events == [("save", stop_at)] and every[-2] == ("step", stop_at)


def test_a_step_whose_update_was_skipped_is_saved_only_where_the_run_ends():
    """Saves of what was skipped would push out those to go back to."""
    _, events, _ = run(steps=9, save_every=2, bad=(2, 3, 6, 9))
    assert events == [("save", step) for step in (4, 8, 9)]
    _, events, _ = run(steps=9, save_every=0, stop_at=3, bad=(2, 3))
    assert events == [("save", 3)]


@dataclass
class Told(Noted):
    """Notes what evaluations gave, and what was said."""

    lines: list = field(default_factory=list)

    def evaluated(self, step, name, values):
        self.events.append((name, step, values))

    def tell(self, line):
        self.lines.append(line)


def select(values, *, patience=0, start=None, evaluations=(), select="best", **fields):
    """Of a run whose parameter is the number of its steps, and whose evaluations by which it selects give these."""
    told = Told()
    found = iter(values)
    state = start or TrainState(
        step=jnp.int32(0),
        params={"w": jnp.int32(0)},
        opt_state=(),
        best=Best(jnp.zeros([]), jnp.int32(0), jnp.int32(0), {"w": jnp.int32(0)} if select == "best" else None),
    )

    def step(state, batch):
        told.events.append(("step", int(state.step) + 1))
        return state.replace(step=state.step + 1, params={"w": state.params["w"] + 1}), {}

    saved = []
    left = loop.run(
        Config(run=RunConfig(**fields), task=TaskConfig(patience=patience, select=select)),
        toy.task(
            evaluations=(
                Evaluation("test", 0, lambda params: {"w": int(params["w"])}),
                Evaluation("dev", 2, lambda params: {"f1": next(found), "w": int(params["w"])}),
                *evaluations,
            ),
            selects=("dev", "f1"),
        ),
        state,
        step,
        iter(lambda: {}, None),
        lambda batch: batch,
        told,
        lambda step, state: saved.append(state),
        Stop(told, None),
        Watchdog(0),
        end=fields["steps"],
    )
    return left is not None, [event for event in told.events if event[0] != "step"], told.lines, saved


def test_the_best_weights_are_the_model_while_training_goes_on_from_the_current_ones():
    """Evaluations on the way are of the current weights; what is measured at the end alone is of the model."""
    done, events, lines, saved = select([0.1, 0.5, 0.3, 0.5], steps=8, save_every=0)
    assert done and lines == []
    dev = [
        (step, values["w"], values["best_step"], values["best_f1"]) for name, step, values in events if name == "dev"
    ]
    assert dev == [(2, 2, 2, 0.1), (4, 4, 4, 0.5), (6, 6, 4, 0.5), (8, 8, 4, 0.5)]
    assert events[-1] == ("test", 8, {"w": 4})
    assert (int(saved[-1].params["w"]), int(saved[-1].model["w"])) == (8, 4)


@pytest.mark.parametrize(("select_by", "tested"), [("best", 2), ("last", 6)])
def test_patience_ends_a_run_as_one_that_is_done(select_by, tested):
    """After the second evaluation without a better one; what was to come at the end comes then, and all is saved."""
    values = [0.5, 0.5, 0.4, 0.9]
    done, events, lines, saved = select(values, patience=2, steps=100, save_every=0, select=select_by)
    assert done and events[-1] == ("test", 6, {"w": tested})
    assert lines == ["step 6: no better evaluation than 0.5 of step 2 in 2 (task.patience = 2); the run ends"]
    assert [int(state.step) for state in saved] == [6]
    assert loop.ended_early(2, saved[-1]) and not loop.ended_early(3, saved[-1]) and not loop.ended_early(0, saved[-1])


def test_patience_counts_on_where_a_run_goes_on():
    _, _, _, saved = select([0.5, 0.4, 0.3, 0.2], patience=9, steps=7, save_every=6)
    done, events, lines, later = select([0.2, 0.1, 0.9], patience=4, start=saved[0], steps=100, save_every=0)
    assert done and [int(state.step) for state in later] == [10] and "of step 2 in 4" in lines[0]
    assert [step for name, step, _ in events if name == "dev"] == [8, 10]


def test_a_better_evaluation_renews_patience_and_the_last_step_is_none_of_its_ends():
    done, _, lines, saved = select([0.1, 0.2, 0.1, 0.3, 0.1, 0.1], patience=2, steps=12, save_every=0)
    assert done and lines == [] and int(saved[-1].step) == 12


def test_the_evaluation_that_selects_comes_at_the_last_step_too():
    """Also between its times: the last weights may be the best."""
    _, events, _, saved = select([0.1, 0.9], steps=3, save_every=0)
    assert [(name, step) for name, step, _ in events] == [("dev", 2), ("dev", 3), ("test", 3)]
    assert events[-1][2] == {"w": 3} and int(saved[-1].best.step) == 3
