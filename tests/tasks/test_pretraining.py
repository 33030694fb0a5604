"""The task of pretraining follows from the config alone, and building it takes none of the packages that read data."""

import subprocess
import sys

import pytest
from small import tiny

from bertjax.model.cost import flops_per_token, predicted_share
from bertjax.tasks.pretraining import pretraining

READING = {"grain", "array_record", "tensorflow_datasets", "tokenizers", "sentencepiece"}


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ({}, {"mlm": 1.0, "pair": 1.0}),
        ({"mlm": 2.0, "pair": 0.0}, {"mlm": 2.0}),
        ({"mlm": 0.5}, {"mlm": 0.5, "pair": 1.0}),
    ],
)
def test_its_terms_are_those_with_a_weight(objective, terms):
    task = pretraining(tiny(objective=objective), batches=lambda row: iter(()))
    assert {name: weight for name, (weight, _) in task.terms.items()} == terms


def test_it_costs_what_the_model_costs_on_the_words_that_are_asked():
    config = tiny()
    model, data = config.model, config.data
    task = pretraining(config, batches=lambda row: iter(()))
    assert task.flops_per_token == flops_per_token(model, data.seq_len, predicted=predicted_share(data))["total"]
    assert task.flops_per_token < flops_per_token(model, data.seq_len, predicted=1.0)["total"]


def test_it_takes_its_batches_from_where_a_run_goes_on():
    assert list(pretraining(tiny(), batches=lambda row: iter((row, row + 8))).batches(16)) == [16, 24]


@pytest.mark.parametrize(
    "module", ["bench.step", "bench.own_step", "bench.saving", "ahead.compile", "profiling.report"]
)
def test_nothing_that_only_takes_steps_reads_data(module):
    code = f"import bertjax.{module}, sys; print(*sorted({READING} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
