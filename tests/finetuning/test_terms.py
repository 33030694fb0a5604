"""`bertjax.finetuning.terms`: losses by hand, packed and not, and fine-tuning that follows torch."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from directories import hf, ours, write

from bertjax.config.schema import ComputeConfig, Config, OptimConfig, RunConfig
from bertjax.finetuning.terms import TERMS, choice_logits, span_logits
from bertjax.model import network
from bertjax.train import objective
from bertjax.train.optim import make_optimizer

SEGMENTS = np.array([[1] * 4 + [2] * 3 + [3] * 4 + [0], [1] * 9 + [0] * 3], np.int32)
"""Two rows of 12: three examples, and one."""
STARTS = np.array([[0, 4, 7], [0, 0, 0]], np.int32)
THERE = np.array([[1, 1, 1], [1, 0, 0]], np.float32)


def values_of(kind, outputs, labels, weights):
    """The mean of each value of the term, and the gradient of its loss by the outputs."""
    batch = {"segments": SEGMENTS, "pair_positions": STARTS, "labels": labels, "label_weights": weights}
    terms = {kind: (1.0, TERMS[kind])}

    def loss(outputs):
        sums = objective.weighted_sums(terms, outputs, batch)
        values = objective.normalise(sums, objective.total_weights(terms, batch))
        return values[kind]["loss"], values[kind]

    (_, values), gradient = jax.value_and_grad(loss, has_aux=True)(outputs)
    return values, gradient


def cross_entropy(logits, label):
    logits = logits.astype(np.float64)
    return np.log(np.exp(logits).sum()) - logits[label]


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_labels_of_examples_and_of_tokens():
    logits, labels = draw(2, 3, 4), np.array([[1, 0, 3], [2, 0, 0]])
    values, _ = values_of("classify", {"class_logits": logits}, labels, THERE)
    items = [(logits[b, k], labels[b, k]) for b, k in ((0, 0), (0, 1), (0, 2), (1, 0))]
    np.testing.assert_allclose(values["loss"], np.mean([cross_entropy(*item) for item in items]), rtol=1e-6)
    assert values["accuracy"] == np.mean([x.argmax() == y for x, y in items])

    logits, labels = draw(2, 12, 5), np.full((2, 12), -1)
    labels[0, [1, 5, 6]], labels[1, [2, 3]] = (4, 0, 2), (1, 1)
    values, gradient = values_of("tag", {"tag_logits": logits}, labels, (labels >= 0).astype(np.float32))
    at = np.argwhere(labels >= 0)
    expected = np.mean([cross_entropy(logits[b, i], labels[b, i]) for b, i in at])
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-6)
    assert not np.asarray(gradient["tag_logits"])[labels < 0].any()


def test_numbers():
    """The squared error; a number that is missing is none, whatever stands in its place."""
    logits, labels = draw(2, 3, 1), np.array([[0.5, -2.0, 1.0], [3.0, np.nan, np.nan]], np.float32)
    values, gradient = values_of("regress", {"class_logits": logits}, labels, THERE)
    errors = (logits[..., 0] - labels)[THERE > 0]
    np.testing.assert_allclose(values["loss"], np.mean(errors.astype(np.float64) ** 2), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(gradient["class_logits"])[..., 0][THERE > 0], errors / 2, rtol=1e-6)
    assert not np.asarray(gradient["class_logits"])[..., 0][THERE == 0].any()


def test_answers_are_looked_for_in_their_own_example():
    """The mean of the two cross-entropies over its positions alone; right are both or none."""
    logits = draw(2, 12, 2)
    labels = np.array([[[1, 3], [4, 4], [8, 9]], [[2, 8], [0, 0], [0, 0]]])
    logits[0, 4], logits[0, 1, 0], logits[0, 3, 1] = 9.0, 9.0, 8.0  # the first two are found
    values, gradient = values_of("span", {"span_logits": logits}, labels, THERE)
    losses = []
    for b, k in ((0, 0), (0, 1), (0, 2), (1, 0)):
        mine = np.flatnonzero(SEGMENTS[b] == k + 1)
        both = [cross_entropy(logits[b, mine, i], labels[b, k, i] - mine[0]) for i in (0, 1)]
        losses.append(np.mean(both))
    np.testing.assert_allclose(values["loss"], np.mean(losses), rtol=1e-6)
    assert values["accuracy"] == 0.5
    assert np.isfinite(gradient["span_logits"]).all() and not np.asarray(gradient["span_logits"])[SEGMENTS == 0].any()

    batch = {"segments": SEGMENTS, "pair_positions": STARTS}
    first, last = span_logits({"span_logits": logits}, batch)
    assert first.shape == last.shape == (2, 3, 12)
    np.testing.assert_array_equal(np.asarray(last)[0, 1, 4:7], logits[0, 4:7, 1])
    assert (np.asarray(first)[1, 1] < -1e29).all() and (np.asarray(first)[0, 1, [0, 3, 7, 11]] < -1e29).all()


def test_an_ending_is_chosen_among_those_that_are_there():
    logits, labels = draw(2, 3, 1), np.array([[2], [0]])
    logits[1, 1:] = 50.0  # of endings that are not there
    values, gradient = values_of("choice", {"class_logits": logits}, labels, np.array([[1.0], [1.0]], np.float32))
    np.testing.assert_allclose(values["loss"], cross_entropy(logits[0, :, 0], 2) / 2, rtol=1e-6)
    assert values["accuracy"] == (0.5 if logits[0, :, 0].argmax() != 2 else 1.0)
    assert not np.asarray(gradient["class_logits"])[1].any()
    chosen = choice_logits({"class_logits": logits}, {"segments": SEGMENTS, "pair_positions": STARTS})
    assert chosen.shape == (2, 1, 3)


def test_a_batch_without_labels_has_loss_0():
    outputs = {"class_logits": draw(2, 3, 1), "tag_logits": draw(2, 12, 5), "span_logits": draw(2, 12, 2)}
    shapes = {"classify": (2, 3), "regress": (2, 3), "tag": (2, 12), "span": (2, 3), "choice": (2, 1)}
    assert shapes.keys() == TERMS.keys()
    for kind, shape in shapes.items():
        labels = np.zeros((*shape, 2) if kind == "span" else shape, np.float32 if kind == "regress" else np.int32)
        values, gradient = values_of(kind, outputs, labels, np.zeros(shape, np.float32))
        assert values["loss"] == 0.0 and all(np.isfinite(x).all() for x in gradient.values())


# As torch does it ---------------------------------------------------------------------------------------------------

STEPS = 20
OPTIM = OptimConfig(
    lr=1e-3, warmup_steps=3, bias_correction=True, shift_decay=True, eps=1e-8, weight_decay=0.01, clip_norm=1.0
)


def batches(config, asked):
    """Rows of an example each; three batches in turn. Those of spans are full: torch looks for answers in padding too.

    No token is the padding of a family, whose embedding torch does not train: ModernBERT's is 50283 % 400.
    """
    B, L = 8, 24
    for number in range(STEPS):
        rng = np.random.default_rng(number % 3)
        lengths = np.full(B, L) if asked == "span" else rng.integers(6, L + 1, B)
        real = np.arange(L)[None] < lengths[:, None]
        labels, weights = rng.integers(0, len(config.labels) or 1, (B, 1)), np.ones((B, 1), np.float32)
        if asked == "tag":
            labels, weights = rng.integers(0, len(config.labels), (B, L)), (real & (rng.random((B, L)) < 0.5))
        if asked == "span":
            labels = np.sort(rng.integers(0, L, (B, 1, 2)), axis=-1)
        yield {
            "tokens": np.where(real, rng.integers(5, 50283 % 400, (B, L)), 0).astype(np.int32),
            "segments": real.astype(np.int32),
            "positions": np.where(real, np.arange(L)[None], 0).astype(np.int32),
            "token_types": (real & (np.arange(L)[None] > 10)).astype(np.int32) * (config.token_types > 1),
            "pair_positions": np.zeros((B, 1), np.int32),
            "labels": labels.astype(np.int32),
            "label_weights": weights.astype(np.float32),
        }


def losses_here(config, params, asked):
    optimizer = make_optimizer(Config(optim=OPTIM, run=RunConfig(steps=STEPS)))
    terms = {asked: (1.0, TERMS[asked])}

    def loss(params, batch):
        outputs = network.apply(config, ComputeConfig(attention="reference"), params, batch, jax.random.key(0))
        sums = objective.weighted_sums(terms, outputs, batch)
        return objective.total_loss(terms, objective.normalise(sums, objective.total_weights(terms, batch)))

    @jax.jit
    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params, norm=optax.tree.norm(grads))
        return optax.apply_updates(params, updates), state, value

    found, state = [], optimizer.init(params)
    for batch in batches(config, asked):
        params, state, value = step(params, state, batch)
        found.append(float(value))
    return found


def losses_there(config, directory, asked):
    torch, transformers = pytest.importorskip("torch"), hf()
    (name,) = json.loads((directory / "config.json").read_text())["architectures"]
    model = getattr(transformers, name).from_pretrained(directory)
    plain = [name for name, _ in model.named_parameters() if name.endswith("bias") or "norm" in name.lower()]
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in plain) == is_plain], "weight_decay": decay}
        for is_plain, decay in ((True, 0.0), (False, OPTIM.weight_decay))
    ]
    optimizer = torch.optim.AdamW(groups, lr=OPTIM.lr, betas=(OPTIM.b1, OPTIM.b2), eps=OPTIM.eps)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, OPTIM.warmup_steps, STEPS)
    found = []
    for batch in batches(config, asked):
        inputs = {"input_ids": batch["tokens"], "attention_mask": batch["segments"]}
        if config.token_types:
            inputs["token_type_ids"] = batch["token_types"]
        if asked == "span":
            inputs |= {"start_positions": batch["labels"][:, 0, 0], "end_positions": batch["labels"][:, 0, 1]}
        elif asked == "tag":
            inputs["labels"] = np.where(batch["label_weights"] > 0, batch["labels"], -100)
        else:
            inputs["labels"] = batch["labels"][:, 0]
        outputs = model(**{name: torch.tensor(np.asarray(x, np.int64)) for name, x in inputs.items()})
        optimizer.zero_grad()
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
        optimizer.step()
        schedule.step()
        found.append(outputs.loss.item())
    return found


@pytest.mark.parametrize("asked", ["classify", "tag", "span"])
@pytest.mark.parametrize("family", ["bert", "albert", "distilbert", "modernbert"])
def test_fine_tuning_follows_torch(family, asked, tmp_path):
    """The same head from the same weights on the same batches: the loss of each of 20 steps."""
    hf()
    config, params = ours(f"{family}_{asked}")
    config = dataclasses.replace(config, dropout=0.0, attention_dropout=0.0, classifier_dropout=0.0)
    directory = write(tmp_path / "model", f"{family}_{asked}", config=config)
    found, expected = losses_here(config, params, asked), losses_there(config, directory, asked)
    assert np.mean(expected[-3:]) < 0.95 * np.mean(expected[:3])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
