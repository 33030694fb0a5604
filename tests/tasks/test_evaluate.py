"""`bertjax.tasks.evaluate`: the same numbers as in training, again and again, beside those of word frequency."""

import numpy as np
import pytest

from bertjax.errors import NumericError
from bertjax.tasks import evaluate as module
from bertjax.tasks.evaluate import evaluate, unigram_log_probs
from bertjax.train import metrics


def test_evaluation_is_repeatable_and_says_what_it_is(trained):
    config, directory = trained
    result = evaluate(config, directory)
    assert result == evaluate(config, directory)
    last = [line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line][-1]
    assert result["steps"] == 6 and result["mlm_loss"] == pytest.approx(last["eval_mlm_loss"], rel=1e-6)
    assert {"mlm_accuracy", "pair_accuracy", "unigram_loss", "tokens_per_second", "workdir"} <= set(result)
    # Uniform over 400 pieces would be 5.99; real text is less even than that.
    assert 4.0 < result["unigram_loss"] < 5.99


def test_unigram_log_probabilities_are_those_of_the_counts():
    np.testing.assert_allclose(unigram_log_probs(np.array([3, 1, 0, 0])), np.log(np.array([4, 2, 1, 1]) / 8))


def test_an_evaluation_that_gives_no_number_is_an_error(trained, monkeypatch):
    config, directory = trained
    make = module.held_out
    monkeypatch.setattr(module, "held_out", lambda *a: lambda params: make(*a)(params) | {"mlm_loss": np.nan})
    with pytest.raises(NumericError, match=f"{directory}: step 6: mlm_loss nan"):
        evaluate(config, directory)
