"""`bertjax.config.phases`: what holds in which phase, what is refused, and what a run may still change of them."""

import dataclasses

import pytest

from bertjax.config.phases import FIELDS, MASKS, RATE, Stretch, alone, changed, phase_at, phases
from bertjax.config.recipe import from_dict, override, to_dict
from bertjax.config.schema import Config, PhasesConfig
from bertjax.errors import ConfigError, DataError

TWO = {"steps": (900, 100), "seq_len": (128, 512), "max_predictions": (20, 77)}
ONE = {"steps": (), "seq_len": (), "max_predictions": ()}
WHOLE = Stretch(0, 1000)


def run_of(**changes):
    base = override(Config(), run={"steps": 1000}, optim={"warmup_steps": 10})
    return override(base, **{"phases": TWO} | changes)


def test_a_run_of_one_phase_is_its_config():
    (phase,) = phases(Config())
    assert phase.config == Config() == phase.alone and phase.name == phase.prefix == ""
    assert phase.stretch == phase.rate == phase.masks == Stretch(0, 1_000_000)


def test_each_phase_has_its_values_and_the_rest_of_the_run():
    config = run_of()
    one, two = phases(config)
    assert (one.name, two.name) == ("phase 1 of 2", "phase 2 of 2")
    assert (one.stretch, two.stretch) == (Stretch(0, 900), Stretch(900, 1000))
    assert dataclasses.replace(one.config, phases=config.phases) == config
    assert two.config == override(one.config, data={"seq_len": 512, "max_predictions": 77})
    assert two.alone == override(two.config, run={"steps": 100}, optim={"warmup_steps": 0})
    assert from_dict(to_dict(config)) == config
    assert [phase_at(config, step).number for step in (0, 1, 900, 901, 1000, 2000)] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("name", FIELDS)
def test_a_schedule_is_of_the_run_until_one_of_its_fields_differs_by_phase(name):
    """The same of the course of the mask rate."""
    value = getattr(getattr(run_of(), FIELDS[name]), name)
    (_, two) = phases(dataclasses.replace(run_of(), phases=PhasesConfig(steps=(900, 100), **{name: (value, value)})))
    assert two.rate == (two.stretch if name in RATE else WHOLE)
    assert two.masks == (two.stretch if name in MASKS else WHOLE)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"phases": {"steps": ()}}, "phases.seq_len = (128, 512): needs phases.steps"),
        ({"phases": {"steps": (900, 101)}}, "phases.steps = (900, 101): add up to 1001, not run.steps = 1000"),
        ({"phases": {"steps": (1000, 0)}}, "phases.steps = (1000, 0): must be at least 1"),
        ({"phases": {"seq_len": (128, 256, 512)}}, "phases.seq_len = (128, 256, 512): phases.steps = (900, 100) are 2"),
        ({"data": {"seq_len": 64}}, "phases.seq_len = (128, 512): begins with another value than data.seq_len = 64"),
        (
            {"phases": {"seq_len": (128, 1024)}},
            "phase 2 of 2: data.seq_len = 1024: must be at most model.max_positions",
        ),
        ({"phases": {"accumulate": (1, 3)}}, "phase 2 of 2: optim.accumulate = 3: must divide data.batch_size = 256"),
        ({"phases": {"warmup_steps": (10, 101)}}, "phase 2 of 2: optim.warmup_steps = 101: must be at most its 100"),
        ({"phases": {"remat": ("none", "some")}}, "phases.remat = ('none', 'some'): must be one of none, dots, full"),
        ({"model": {"num_heads": 5}}, "model.num_heads = 5: must divide"),
        ({"phases": {"seed": (1, 2)}}, "phases.seed: there is no such field; the fields are steps, seq_len, "),
    ],
)
def test_what_cannot_be_is_one_line(given, told):
    values = to_dict(run_of())
    for section, fields in given.items():
        values[section].update(fields)
    with pytest.raises(ConfigError) as error:
        from_dict(values)
    (line, *others) = str(error.value).splitlines()
    assert line.startswith(told) and all("needs phases.steps" in other for other in others)


def test_labels_are_learnt_in_one_phase():
    config = override(run_of(phases=ONE), task={"kind": "classify", "train": ("x.tsv",)})
    with pytest.raises(ConfigError, match=r"phases\.steps = \(900, 100\): is for pretraining"):
        override(config, phases={"steps": (900, 100)})


@pytest.mark.parametrize(
    ("step", "before", "now", "told"),
    [
        # Of what has not begun, anything; also a phase that is appended, or left out.
        (900, {}, {"phases": {"seq_len": (128, 256)}}, []),
        (500, {}, {"phases": {"lr": (1e-4, 5e-5)}}, []),
        (500, {}, {"phases": {"steps": (600, 100)}, "run": {"steps": 700}}, []),
        (1000, {"phases": ONE}, {"phases": TWO | {"steps": (1000, 100)}, "run": {"steps": 1100}}, []),
        (900, {}, {"phases": ONE, "run": {"steps": 900}}, []),
        # Of the one that has begun, what any run may change.
        (901, {}, {"phases": {"seq_len": (128, 256)}}, ["phases.seq_len = (128, 256): phase 2 has begun with 512"]),
        (901, {}, {"phases": {"remat": ("none", "full")}}, []),
        (901, {}, {"phases": {"steps": (900, 300)}, "run": {"steps": 1200}}, []),
        (950, {}, {"phases": {"steps": (900, 40)}, "run": {"steps": 940}}, ["phases.steps = (900, 40): the run is at"]),
        (901, {}, {"compute": {"remat": "full"}}, []),
        # Of one that is over, nothing.
        (901, {}, {"phases": {"steps": (901, 99)}}, ["phases.steps = (901, 99): the run is in phase 2"]),
        (901, {}, {"phases": ONE}, ["phases.steps = (): the run is in phase 2"]),
        (
            901,
            {},
            {"compute": {"remat": "dots"}, "phases": {"remat": ("dots", "none")}},
            ["phases.remat = ('dots', 'none'): phase 1 has begun with 'none'"],
        ),
        # What follows a schedule of the run keeps that, and what has one of its own too.
        (901, {}, {"phases": {"lr": (1e-4, 1e-4)}}, ["phases.lr, phases.warmup_steps, "]),
        (901, {"phases": TWO | {"lr": (1e-4, 1e-4)}}, {"phases": {"lr": ()}}, ["phases.lr, phases.warmup_steps, "]),
        (901, {}, {"phases": {"mask_rate": (0.15, 0.15)}}, ["phases.mask_rate, phases.final_mask_rate: phase 2 has"]),
    ],
)
def test_what_a_run_may_change_of_its_phases(step, before, now, told):
    was = run_of(**before)
    found = changed(was, override(was, **now), step)
    assert len(found) == len(told) and all(map(str.startswith, found, told)), found


def test_one_phase_for_what_looks_at_one():
    assert alone(Config(), 0) == alone(Config(), 1) == Config()
    assert alone(run_of(), 2) == phases(run_of())[1].alone
    for number, told in (
        (0, "are several; say which is meant, --phase=1 to --phase=2"),
        (3, "--phase=3: there is none"),
    ):
        with pytest.raises(ConfigError, match=told):
            alone(run_of(), number)


def test_an_error_names_its_phase():
    for config, told in ((run_of(), "phase 2 of 2: no text\nphase 2 of 2: at all"), (Config(), "no text\nat all")):
        with pytest.raises(DataError) as error, phases(config)[-1].naming():
            raise DataError("no text\nat all")
        assert str(error.value) == told
