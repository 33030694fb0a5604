"""Losses and accuracies on held-out text, beside levels that a model reaches without a look at the context.

Shape letters: B rows, P prediction slots, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.config.phases import phase_at
from bertjax.config.schema import Config, DataConfig
from bertjax.data import context_free, masking
from bertjax.data.dataset import Prepared
from bertjax.data.loader import eval_batches
from bertjax.data.tokenizer import Tokenizer
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.tasks.inputs import open_data
from bertjax.tasks.terms import TERMS, held_out_terms, shows
from bertjax.train import checkpoint, guard, metrics
from bertjax.train.objective import Terms
from bertjax.train.step import Forward, make_eval_step
from bertjax.train.task import Evaluation
from bertjax.trained.load import check_restored

Evaluate = Callable[[Any], dict[str, float]]
"""Parameters -> numbers."""


def evaluate(config: Config, directory: Path, step: checkpoint.Wanted = "newest") -> dict[str, Any]:
    """Held-out metrics of a checkpoint: those of `evaluator`, `steps`, `tokens_per_second`, `workdir`."""
    mesh = sharding.make_mesh(config.mesh)
    tokenizer, prepared = open_data(config, directory)
    step = checkpoint.chosen(directory / "checkpoints", step)
    config = phase_at(config, step).config
    sharding.check(config.model, config.data.batch_size // config.optim.accumulate, mesh)
    abstract = network.abstract_params(config.model, mesh)
    restored = checkpoint.restore_params(directory / "checkpoints", abstract, step=step)
    check_restored(config, directory, restored, tokenizer)
    result = held_out(config, tokenizer, prepared, mesh)(restored.state)
    guard.check_values(f"{directory}: step {restored.step}", result)
    rates = [x["tokens_per_second"] for x in metrics.read(directory / metrics.METRICS) if x.get("tokens_per_second")]
    speed = float(np.median(rates)) if rates else None
    return {"steps": restored.step, **result, "tokens_per_second": speed, "workdir": str(directory)}


def evaluation(config: Config, tokenizer: Tokenizer, prepared: Prepared, mesh: Mesh) -> Evaluation:
    """`held_out` during training. What it measures but no model changes is nothing to judge one by."""
    d, run = config.data, config.run
    terms = [*held_out_terms(config.objective), *(["masked"] if d.mask_shares[0] > 0.0 else [])]
    judges = [f"{term}_{kind}" for term in terms for kind in ("loss", "accuracy")]
    # What may differ between two evaluations of a run, by its phases or where it goes on.
    on = f"{run.eval_rows} rows of {d.packing} in {d.seq_len}, {d.mask_count or d.last_mask_rate} masked"
    on += f", at most {d.max_predictions}"
    measure = held_out(config, tokenizer, prepared, mesh)
    return Evaluation("eval", run.eval_every, measure, judges=(*judges, "context_gain"), on=on)


def held_out(config: Config, tokenizer: Tokenizer, prepared: Prepared, mesh: Mesh) -> Evaluate:
    """The evaluation of a pretraining run."""
    # In batches of a microbatch's size: what fits into memory for training fits here.
    data = replace(config.data, batch_size=config.data.batch_size // config.optim.accumulate)
    return evaluator(
        network.forward(config.model, config.compute),
        held_out_terms(config.objective),
        data,
        tokenizer,
        prepared,
        mesh,
        seed=config.run.seed,
        rows=config.run.eval_rows,
    )


def evaluator(
    forward: Forward,
    terms: Terms,
    data: DataConfig,
    tokenizer: Tokenizer,
    prepared: Prepared,
    mesh: Mesh,
    *,
    seed: int,
    rows: int,
) -> Evaluate:
    """Loss and accuracy of each term on the first `rows` held-out rows. Where "mlm" is a term, also, on the same slots:

    masked_loss, masked_accuracy   of the slots that show [MASK], which never show their own label
    unigram_loss                   of a model that knows only how often each token occurs in the training documents
    context_free_loss              of the best model that sees its own slot and no other (`bertjax.data.context_free`)
    context_gain                   context_free_loss - mlm_loss: what was learnt from context, and nothing else
    """
    measured = dict(terms)
    if "mlm" in terms and data.mask_shares[0] > 0.0:
        measured["masked"] = (0.0, shows(TERMS["mlm"], tokenizer.special.mask))
    eval_step = make_eval_step(forward, measured, mesh)
    log_probs_V = unigram_log_probs(prepared.token_counts)
    scheme = masking.scheme(data, tokenizer, prepared.token_counts)
    label_probs_V = context_free.label_probs(scheme, prepared.token_counts)

    def evaluate(params: Any) -> dict[str, float]:
        sums = {name: {"weight": 0.0} for name in measured}
        unigram = alone = 0.0
        for batch in eval_batches(data, prepared, tokenizer, seed=seed, rows=rows):
            for name, kinds in jax.device_get(eval_step(params, sharding.put_batch(batch, mesh))).items():
                sums[name] = {kind: sums[name].get(kind, 0.0) + float(value) for kind, value in kinds.items()}
            unigram -= float(np.sum(batch["mlm_weights"] * log_probs_V[batch["mlm_labels"]]))
            used_BP = batch["mlm_weights"] > 0
            shown_k = np.take_along_axis(batch["tokens"], batch["mlm_positions"], axis=1)[used_BP]
            alone += float(context_free.losses(scheme, label_probs_V, shown_k, batch["mlm_labels"][used_BP]).sum())
        result: dict[str, float] = {}
        for name, kinds in sums.items():
            weight = max(kinds.pop("weight"), 1.0)
            result |= {f"{name}_{kind}": value / weight for kind, value in kinds.items()}
            if name == "mlm":
                result |= {"unigram_loss": unigram / weight, "context_free_loss": alone / weight}
                result["context_gain"] = result["context_free_loss"] - result["mlm_loss"]
        return result

    return evaluate


def unigram_log_probs(counts_V: np.ndarray) -> np.ndarray:
    """Log-probabilities [V] of the tokens by their counts, each count raised by one so that none is zero."""
    return np.log((counts_V + 1.0) / (counts_V.sum() + len(counts_V)))
