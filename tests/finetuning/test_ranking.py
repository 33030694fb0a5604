"""`bertjax.finetuning.ranking`: what runs say together, by plain loops."""

import statistics

import numpy as np
import pytest

from bertjax.errors import NumericError
from bertjax.finetuning import ranking
from bertjax.finetuning.ranking import Result


def result(lr, epochs, seed, value):
    failed = "" if value is not None else "step 3: loss nan"
    name = f"lr{lr}_epochs{epochs}_seed{seed}"
    return Result(name, lr, epochs, seed, 30, 20, value, {}, began=0, seconds=1.0, failed=failed)


def sweep_of(values):
    """Results of {(lr, epochs): values by seed}."""
    return [result(*key, seed, x) for key, found in values.items() for seed, x in enumerate(found)]


def test_numbers_of_each_combination_equal_those_of_numpy():
    rng = np.random.default_rng(0)
    values = {(lr, epochs): rng.random(5).tolist() for lr in (1e-5, 3e-5) for epochs in (2.0, 3.0)}
    found = ranking.judged("dev_f1", sweep_of(values))
    assert [(one.lr, one.epochs) for one in found.combinations] == list(values)
    for one in found.combinations:
        mine = values[one.lr, one.epochs]
        expected = (np.median(mine), min(mine), max(mine), np.std(mine, ddof=1))
        np.testing.assert_allclose((one.median, one.least, one.most, one.spread), expected)
        assert (one.runs, one.diverged) == (5, 0)
    best = max(values, key=lambda key: statistics.median(values[key]))
    assert (found.best.lr, found.best.epochs) == best and found.winner.value == max(values[best])


def test_the_best_single_run_is_not_the_best_combination():
    """What is lucky once is no better setting; of equal ones the first is taken."""
    found = ranking.judged("m", sweep_of({(1.0, 1.0): [0.1, 0.1, 0.9], (2.0, 1.0): [0.5, 0.7, 0.7]}))
    assert found.best.lr == 2.0 and (found.winner.value, found.winner.seed) == (0.7, 1)
    equal = ranking.judged("m", sweep_of({(1.0, 1.0): [0.5], (2.0, 1.0): [0.5]}))
    assert equal.winner.lr == 1.0 and equal.best.spread is None


def test_a_combination_half_of_which_diverged_has_no_median():
    found = ranking.judged(
        "m", sweep_of({(1.0, 1.0): [None, 0.9], (2.0, 1.0): [0.1, 0.2], (3.0, 1.0): [None, 0.3, 0.4]})
    )
    first, second, third = found.combinations
    assert (first.median, first.most, first.diverged) == (None, 0.9, 1) and third.median == 0.3
    assert found.best is third and found.winner.value == 0.4 and second.median == pytest.approx(0.15)
    assert ranking.judged("m", sweep_of({(1.0, 1.0): [None, 0.9]})).winner.value == 0.9
    with pytest.raises(NumericError, match="every run of the sweep has diverged, the first one thus: step 3: loss nan"):
        ranking.judged("m", sweep_of({(1.0, 1.0): [None], (2.0, 1.0): [None]}))


def test_the_table_has_a_line_for_each_and_a_star_for_the_best():
    found = ranking.judged("dev_f1", sweep_of({(1e-5, 3.0): [0.5, None, 0.7], (3e-5, 3.0): [0.75, 0.7, 0.8]}))
    head, _, first, second, last = found.table().splitlines()
    assert head == "dev_f1" and first.split()[:3] == ["1e-05", "3", "0.5000"] and "3, 1 diverged" in first
    assert second.split() == ["*", "3e-05", "3", "0.7500", "0.7000", "0.8000", "0.0500", "3"]
    assert last == "the model is lr3e-05_epochs3.0_seed2, step 20 of 30: dev_f1 0.8000"


@pytest.mark.parametrize("values", [
    {(1e-5, 3.0): [0.5, None], (3e-5, 3.0): [0.75, 0.8], (1e-5, 4.0): [0.7, 0.6]},
    {(0.0, 3.0): [0.5]},
    {(1e-5, 3.0): [0.5], (3e-5, 3.0): [None]},
])  # fmt: skip
def test_the_picture_has_what_there_is(values):
    assert ranking.picture(ranking.judged("m", sweep_of(values))).startswith(b"\x89PNG")
