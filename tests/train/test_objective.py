"""`bertjax.train.objective`: values by hand, and denominators over the whole batch."""

import jax
import numpy as np

from bertjax.train import objective

MLM = objective.classification("mlm_logits", "mlm_labels", "mlm_weights")
PAIR = objective.classification("pair_logits", "pair_labels", "pair_weights")


def example(seed=0):
    rng = np.random.default_rng(seed)
    outputs = {
        "mlm_logits": rng.normal(size=(3, 4, 11)).astype(np.float32),
        "pair_logits": rng.normal(size=(3, 1, 2)).astype(np.float32),
    }
    batch = {
        "mlm_labels": rng.integers(0, 11, size=(3, 4)),
        "mlm_weights": np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32),
        "pair_labels": rng.integers(0, 2, size=(3, 1)),
        "pair_weights": np.array([[1], [0], [1]], np.float32),
    }
    return outputs, batch


def numpy_mean(logits, labels, weights):
    """Mean over the items with weight, of -log p(label) and of argmax == label, in float64."""
    logits = logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    items = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    used = weights > 0
    return items[used].mean(), (logits.argmax(-1) == labels)[used].mean()


def test_losses_equal_numpy():
    outputs, batch = example()
    terms = {"mlm": (2.0, MLM), "pair": (0.5, PAIR)}
    values = objective.normalise(objective.weighted_sums(terms, outputs, batch), objective.total_weights(terms, batch))
    for name in ("mlm", "pair"):
        loss, accuracy = numpy_mean(outputs[f"{name}_logits"], batch[f"{name}_labels"], batch[f"{name}_weights"])
        np.testing.assert_allclose(values[name]["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(values[name]["accuracy"], accuracy, rtol=1e-6)
    expected = 2.0 * values["mlm"]["loss"] + 0.5 * values["pair"]["loss"]
    np.testing.assert_allclose(objective.total_loss(terms, values), expected, rtol=1e-6)


def test_a_batch_without_items_has_loss_0():
    outputs, batch = example()
    batch["pair_weights"][:] = 0.0
    terms = {"mlm": (1.0, MLM), "pair": (1.0, PAIR)}
    values = objective.normalise(objective.weighted_sums(terms, outputs, batch), objective.total_weights(terms, batch))
    assert values["pair"]["loss"] == 0.0
    assert np.isfinite(objective.total_loss(terms, values))


def test_the_z_loss_and_its_gradient_equal_numpy():
    """In the total with its coefficient, at the used slots; its gradient is 2 z softmax, and 0 at the others."""
    outputs, batch = example()
    terms = {"mlm": (1.0, MLM), "z": (1e-2, objective.log_partition("mlm_logits", "mlm_weights"))}

    def total(terms, logits):
        values = objective.weighted_sums(terms, {"mlm_logits": logits}, batch)
        return objective.total_loss(terms, objective.normalise(values, objective.total_weights(terms, batch)))

    logits = outputs["mlm_logits"].astype(np.float64) + 3.0
    sums = np.exp(logits).sum(-1)
    share = batch["mlm_weights"] / batch["mlm_weights"].sum()
    (with_z, gradient), (without, plain) = (
        jax.value_and_grad(lambda x, t=t: total(t, x))(logits.astype(np.float32))
        for t in (terms, {"mlm": terms["mlm"]})
    )
    np.testing.assert_allclose(with_z - without, 1e-2 * (share * np.log(sums) ** 2).sum(), rtol=1e-5)
    expected = 1e-2 * (share * 2 * np.log(sums) / sums)[..., None] * np.exp(logits)
    np.testing.assert_allclose(gradient - plain, expected, rtol=1e-4, atol=1e-8)
