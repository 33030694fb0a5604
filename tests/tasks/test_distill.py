"""`bertjax.tasks.distill`: the taught terms against NumPy in float64, and what they leave alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from oracle import softmax
from small import fresh_state, one_device_mesh, random_batch, task_of, tiny, train_step_of

from bertjax.config.recipe import override
from bertjax.config.schema import ComputeConfig, Config, ModelConfig, ObjectiveConfig, TeacherConfig
from bertjax.errors import ConfigError
from bertjax.model import network
from bertjax.model.cost import flops_per_token
from bertjax.parallel import sharding
from bertjax.tasks import distill
from bertjax.tasks.teacher import Teacher
from bertjax.tasks.terms import held_out_terms
from bertjax.train import objective
from bertjax.train.optim import make_optimizer
from bertjax.train.step import make_eval_step

QUIET = {"dropout": 0.0, "attention_dropout": 0.0, "num_layers": 2}
TAUGHT = {"soft": 5.0, "cosine": 1.0, "logit_mse": 0.5, "hidden_mse": 0.25}
PATH = {"path": "somewhere", "dtype": "float32"}


def distilling(objective=None, teacher=None, **sections) -> Config:
    sections["model"] = QUIET | sections.get("model", {})
    return tiny(objective=TAUGHT | (objective or {}), teacher=PATH | (teacher or {}), **sections)


def draw(shape, seed):
    leaves, tree = jax.tree.flatten(network.abstract_params(shape))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(0, 0.2, leaf.shape).astype(leaf.dtype) for leaf in leaves])


def teacher_of(config, *, layers=4, seed=7, **changes):
    shape = replace(config.model, num_layers=layers, **changes)
    return Teacher(shape, ComputeConfig(), draw(shape, seed), "digest")


def taught(config, params, teacher, batch):
    """The normalised losses of the terms and their weighted sum."""
    task = task_of(config, teacher)
    sums = objective.weighted_sums(task.terms, task.forward(params, batch, None), batch)
    values = objective.normalise(sums, objective.total_weights(task.terms, batch))
    return objective.total_loss(task.terms, values), values


# Each term and its gradient by its inputs, in NumPy float64 ----------------------------------------------------------


def soft(mine, theirs, T):
    p, q = softmax(theirs / T), softmax(mine / T)
    return T**2 * (p * (np.log(p) - np.log(q))).sum(-1), T * (q - p)


def logit_mse(mine, theirs, T):
    return ((mine - theirs) ** 2).mean(-1), 2 * (mine - theirs) / mine.shape[-1]


def cosine(mine, theirs):
    a, b = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (mine, theirs))
    cos = (mine * theirs).sum(-1, keepdims=True) / (a * b)
    return 1 - cos[..., 0], -(theirs / (a * b) - cos * mine / a**2)


def hidden_mse(mine, theirs):
    return ((mine - theirs) ** 2).mean(-1), 2 * (mine - theirs) / mine.shape[-1]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_words_equal_the_oracle(temperature):
    rng = np.random.default_rng(0)
    mine, theirs, weights = rng.normal(size=(3, 5, 11)), rng.normal(size=(3, 5, 11)), rng.integers(0, 2, (3, 5))
    for name, oracle in (("soft", soft), ("logit_mse", logit_mse)):
        o = ObjectiveConfig(**{name: 1.0})

        def total(x, name=name, o=o):
            found = distill.compare_words(o, TeacherConfig(temperature=temperature), x, theirs.astype(np.float32))
            assert set(found) == {name}
            return (found[name] * weights).sum(), found[name]

        gradient, items = jax.grad(total, has_aux=True)(mine.astype(np.float32))
        expected, slope = oracle(mine, theirs, temperature)
        np.testing.assert_allclose(items, expected, atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(gradient, slope * weights[..., None], atol=1e-6)


def test_hidden_states_equal_the_oracle():
    rng = np.random.default_rng(0)
    mine, theirs, weights = rng.normal(size=(2, 3, 5, 8)), rng.normal(size=(2, 3, 5, 8)), rng.integers(0, 2, (3, 5))
    for name, oracle in (("cosine", cosine), ("hidden_mse", hidden_mse)):
        o = ObjectiveConfig(**{name: 1.0})

        def total(x, name=name, o=o):
            found = distill.compare_states(o, x, theirs.astype(np.float32))
            assert set(found) == {name}
            return (found[name] * weights).sum(), found[name]

        gradient, items = jax.grad(total, has_aux=True)(mine.astype(np.float32))
        expected, slope = oracle(mine, theirs)
        np.testing.assert_allclose(items, expected.mean(0), atol=1e-6)
        np.testing.assert_allclose(gradient, slope * weights[None, :, :, None] / 2, atol=1e-6)


def test_the_gradient_hardly_depends_on_the_temperature():
    """For logits that are small against it, which is why the loss is multiplied by its square (Hinton et al. 2015)."""
    rng = np.random.default_rng(0)
    mine, theirs = 0.01 * rng.normal(size=(2, 4, 6, 50)).astype(np.float32)
    slopes = [
        jax.grad(
            lambda x, T=T: distill.compare_words(ObjectiveConfig(soft=1.0), TeacherConfig(temperature=T), x, theirs)[
                "soft"
            ].sum()
        )(mine)
        for T in (1.0, 4.0)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], atol=0.03 * np.abs(slopes[0]).max())


# In the step ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch():
    rows = random_batch(tiny())
    rows["segments"][:, 16:] *= 2  # two examples a row
    return rows


@pytest.mark.parametrize("tokens", ["masked", "real"])
@pytest.mark.parametrize("layers", [(), (0, 1)])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(batch, tokens, layers):
    config = distilling(teacher={"tokens": tokens, "layers": layers})
    teacher = teacher_of(config, layers=2)
    loss, values = jax.jit(lambda p: taught(config, p, teacher, batch))(teacher.params)
    for name in TAUGHT:
        np.testing.assert_allclose(values[name]["loss"], 0.0, atol=1e-6)
    np.testing.assert_allclose(loss, values["mlm"]["loss"] + values["pair"]["loss"], atol=1e-5)


@pytest.mark.parametrize("tokens", ["masked", "real"])
def test_terms_are_means_over_the_positions_that_count(batch, tokens):
    """Uneven masks, padding, two examples a row; a teacher of other depth, against NumPy on its outputs."""
    config = distilling(teacher={"tokens": tokens, "layers": (1, 3)})
    teacher, params = teacher_of(config), draw(config.model, 3)
    every = batch | {"mlm_positions": np.tile(np.arange(32), (8, 1))} if tokens == "real" else batch
    apply = jax.jit(network.apply, static_argnums=(0, 1), static_argnames="every_layer")
    mine, theirs = (
        jax.device_get(apply(m, ComputeConfig(), p, every, every_layer=True))
        for m, p in ((config.model, params), (teacher.model, teacher.params))
    )
    real = batch["segments"] > 0
    weights = batch["mlm_weights"] if tokens == "masked" else real
    words = [x["mlm_logits"].astype(np.float64) for x in (mine, theirs)]
    states = [mine["layers"].astype(np.float64), theirs["layers"][[1, 3]].astype(np.float64)]
    expected = {
        "soft": (soft(*words, 2.0)[0] * weights).sum() / weights.sum(),
        "logit_mse": (logit_mse(*words, 2.0)[0] * weights).sum() / weights.sum(),
        "cosine": (cosine(*states)[0].mean(0) * real).sum() / real.sum(),
        "hidden_mse": (hidden_mse(*states)[0].mean(0) * real).sum() / real.sum(),
    }
    _, values = jax.jit(lambda p: taught(config, p, teacher, batch))(params)
    for name, value in expected.items():
        np.testing.assert_allclose(values[name]["loss"], value, rtol=2e-5, err_msg=name)


def test_all_words_in_chunks_are_all_words(batch, monkeypatch):
    config = distilling(objective={"cosine": 0.0, "hidden_mse": 0.0})
    teacher, params = teacher_of(config), draw(config.model, 3)
    whole, cut = [], []
    for size, found in ((32, whole), (5, cut)):  # 4 divides 32, 5 does not
        monkeypatch.setattr(distill, "_CHUNK", size)
        found += jax.tree.leaves(jax.jit(jax.value_and_grad(lambda p: taught(config, p, teacher, batch)[0]))(params))
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_no_gradient_reaches_the_teacher(batch):
    config = distilling(teacher={"layers": (1, 3)})
    teacher, params = teacher_of(config), draw(config.model, 3)
    slopes = jax.jit(jax.grad(lambda t: taught(config, params, replace(teacher, params=t), batch)[0]))(teacher.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(slopes))


def update(config, mesh, teacher, batch):
    teacher = replace(teacher, params=jax.device_put(teacher.params, network.param_shardings(teacher.model, mesh)))
    step = train_step_of(config, mesh, teacher)
    state, values = step(fresh_state(config, mesh, teacher), sharding.put_batch(batch, mesh))
    return jax.device_get((state.params, values))


def test_microbatches_and_meshes_give_the_same_update(batch):
    """Uneven masks; Adam's eps as in test_step: the rounding of a gradient near 0 must not become its sign."""
    optim = {"eps": 1e-3, "warmup_steps": 0}
    config = distilling(teacher={"layers": (1, 3)}, optim=optim)
    teacher = teacher_of(config)
    one = update(config, one_device_mesh(config), teacher, batch)
    cut = override(config, optim={"accumulate": 4}, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    other = update(cut, sharding.make_mesh(cut.mesh), teacher, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), one, other)


def test_a_projection_is_learnt_and_what_is_frozen_stays(batch):
    freeze = {"freeze": ("encoder/embeddings/position", "pooler"), "lr": 0.1, "warmup_steps": 0}
    config = distilling(teacher={"projection": 16}, optim=freeze)
    mesh, teacher = one_device_mesh(config), teacher_of(config, hidden_size=16, embedding_size=16)
    before = jax.device_get(fresh_state(config, mesh, teacher).params)
    assert before["projection"]["kernel"].shape == (32, 16)
    after, values = update(config, mesh, teacher, batch)
    same = jax.tree.map(np.array_equal, before, after)
    assert same["encoder"]["embeddings"]["position"] and all(same["pooler"].values())
    assert not same["encoder"]["embeddings"]["word"] and not same["pair_head"]["dense"]["kernel"]
    assert not any(same["projection"].values()) and np.isfinite(values["loss"])
    evaluate = make_eval_step(network.forward(config.model, config.compute), held_out_terms(config.objective), mesh)
    held_out = evaluate(jax.device_put(after), sharding.put_batch(batch, mesh))
    assert held_out["mlm"]["weight"] == batch["mlm_weights"].sum() and set(held_out) == {"mlm", "pair"}
    with pytest.raises(ConfigError, match="no parameter is in encoder/embedding; there are encoder/embeddings"):
        make_optimizer(override(config, optim={"freeze": ("encoder/embedding",)})).init(before)


def test_flops_of_a_step_with_a_teacher():
    """Half of BERT-base's layers learning from all of it: the teacher's forward pass is a third of its cost."""
    parts = {"model": {"num_layers": 6}, "objective": {"soft": 1.0, "pair": 0.0}}
    config = override(Config(), **parts, teacher={"path": "x", "tokens": "masked"})
    base = Teacher(ModelConfig(), ComputeConfig(), None, "")

    def cost(config, teacher=None):
        return task_of(config, teacher).flops_per_token

    mine = flops_per_token(config.model, 128, predicted=0.15)
    assert cost(config) == mine["total"]
    masked = cost(config, base)
    assert masked == mine["total"] + flops_per_token(ModelConfig(), 128, predicted=0.15)["total"] / 3
    everywhere = override(config, teacher={"tokens": "real"})
    head = 6 * (768 * 768 + 768 * 30522)
    assert cost(everywhere, base) - masked == pytest.approx(head + head * 0.85 / 3)
    states = override(config, objective={"soft": 0.0, "cosine": 1.0})
    assert masked - cost(states, base) == pytest.approx(mine["mlm_head"] / 3)


def test_a_teacher_changes_nothing_of_the_task_beside_it():
    config = distilling()
    alone, beside = task_of(config), task_of(config, teacher_of(config))
    assert set(beside.terms) == set(alone.terms) | set(TAUGHT)
    assert beside.identity == alone.identity | {"teacher": "digest"}
    assert beside.evaluations == alone.evaluations
