"""`bertjax.tasks.evaluate`: the same numbers as in training, again and again, beside those of word frequency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import one_device_mesh, tiny

from bertjax.data import context_free, masking
from bertjax.errors import CheckpointError, NumericError
from bertjax.tasks import evaluate as module
from bertjax.tasks.evaluate import evaluate, evaluator, unigram_log_probs
from bertjax.tasks.inputs import open_data
from bertjax.tasks.terms import TERMS
from bertjax.train import metrics


def test_evaluation_is_repeatable_and_says_what_it_is(trained):
    config, directory = trained
    result = evaluate(config, directory)
    assert result == evaluate(config, directory)
    last = [line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line][-1]
    assert result["steps"] == 6 and result["mlm_loss"] == pytest.approx(last["eval_mlm_loss"], rel=1e-6)
    assert {"mlm_accuracy", "pair_accuracy", "unigram_loss", "tokens_per_second", "workdir"} <= set(result)
    assert result["context_gain"] == pytest.approx(result["context_free_loss"] - result["mlm_loss"])
    assert {"masked_loss", "masked_accuracy"} <= set(result)
    # Uniform over 400 pieces would be 5.99; real text is less even than that.
    assert 4.0 < result["unigram_loss"] < 5.99


def test_a_model_is_judged_by_all_that_it_changes(trained, inputs, tmp_path):
    """The two levels beside its numbers follow from the text. And rows of another phase are other rows."""
    config, directory = trained
    line = next(line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line)
    mesh = one_device_mesh(config)
    made = [
        module.evaluation(config, *open_data(config, tmp_path), mesh)
        for config in (
            config,
            tiny(data=inputs | {"batch_size": 16, "loader_threads": 1}, run={"steps": 9}),
            tiny(data=inputs | {"seq_len": 16}),
            tiny(data=inputs | {"final_mask_rate": 0.1}),
            tiny(data=inputs, run={"eval_rows": 16}),
        )
    ]
    levels = {"eval_unigram_loss", "eval_context_free_loss"}
    assert {f"eval_{key}" for key in made[0].judges} == line.keys() - levels - {"step"}
    assert made[0].on == made[1].on and len({one.on for one in made}) == 4
    masked = tiny(data=inputs | {"mask_shares": (0.0, 0.5, 0.5)}, objective={"pair": 0.0})
    judges = module.evaluation(masked, *open_data(masked, tmp_path), mesh).judges
    assert judges == ("mlm_loss", "mlm_accuracy", "context_gain")


def test_a_step_can_be_named(trained):
    config, directory = trained
    lines = {line["step"]: line for line in metrics.read(directory / metrics.METRICS) if "eval_mlm_loss" in line}
    for step in (3, 6):
        result = evaluate(config, directory, step)
        assert result["steps"] == step
        assert result["mlm_loss"] == pytest.approx(lines[step]["eval_mlm_loss"], rel=1e-6)
    assert lines[3]["eval_mlm_loss"] != pytest.approx(lines[6]["eval_mlm_loss"], rel=1e-6)
    with pytest.raises(CheckpointError, match=r"/4: there is no such step; .*--step=3\|6$"):
        evaluate(config, directory, 4)


def test_unigram_log_probabilities_are_those_of_the_counts():
    np.testing.assert_allclose(unigram_log_probs(np.array([3, 1, 0, 0])), np.log(np.array([4, 2, 1, 1]) / 8))


def blind(log_posterior_VV, params, batch, key):
    """A model that sees nothing but what its own slot shows: the log-probability of each label given that."""
    shown_BP = jnp.take_along_axis(batch["tokens"], batch["mlm_positions"], axis=1)
    return {"mlm_logits": log_posterior_VV[shown_BP]}


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (1.0, 0.0, 0.0)])
def test_a_model_that_is_blind_to_context_gains_nothing(inputs, tmp_path, shares):
    """The best of them has a gain of 0, one that knows word frequency alone a negative one."""
    config = tiny(data=inputs | {"mask_shares": shares})
    tokenizer, prepared = open_data(config, tmp_path)
    scheme, counts = masking.scheme(config.data, tokenizer, prepared.token_counts), prepared.token_counts
    probs_V = context_free.label_probs(scheme, counts)
    each = np.arange(tokenizer.vocab_size)
    shown, labels = (x.reshape(-1) for x in np.meshgrid(each, each, indexing="ij"))
    losses = context_free.losses(scheme, probs_V, shown, labels).reshape(len(each), len(each))
    table = jnp.asarray(-np.minimum(np.nan_to_num(losses, nan=80.0, posinf=80.0), 80.0), jnp.float32)
    mesh, settings = one_device_mesh(config), {"seed": 0, "rows": 64}
    results = []
    for logits in (table, jnp.broadcast_to(table[tokenizer.special.mask], table.shape)):
        forward = jax.tree_util.Partial(blind, logits)
        ask = evaluator(forward, {"mlm": (1.0, TERMS["mlm"])}, config.data, tokenizer, prepared, mesh, **settings)
        results.append(ask({"w": jnp.zeros(())}))
    best, frequency = results
    assert best["context_gain"] == pytest.approx(0.0, abs=1e-4)
    assert frequency["context_gain"] < (-0.1 if shares[2] else 1e-4)
    assert best["masked_loss"] == pytest.approx(frequency["masked_loss"], abs=1e-4)


def test_an_evaluation_that_gives_no_number_is_an_error(trained, monkeypatch):
    config, directory = trained
    make = module.held_out
    monkeypatch.setattr(module, "held_out", lambda *a: lambda params: make(*a)(params) | {"mlm_loss": np.nan})
    with pytest.raises(NumericError, match=f"{directory}: step 6: mlm_loss nan"):
        evaluate(config, directory)
