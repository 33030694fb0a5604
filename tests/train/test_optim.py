"""`bertjax.train.optim` against NumPy float64 oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import adam_step, muon_step

from bertjax.config.schema import Config, ModelConfig, OptimConfig, RunConfig
from bertjax.model import network
from bertjax.train.optim import decay_mask, make_optimizer, stacked_axes


def optimizer_of(config, *, steps, model=None):
    return make_optimizer(Config(model=model or ModelConfig(), optim=config, run=RunConfig(steps=steps)))


def random_params(rng):
    """A shape of each kind: plain, stacked over groups, stacked over groups and layers; matrices, biases, norms."""

    def part(*stack):
        return {
            "dense": {"kernel": rng.normal(size=(*stack, 3, 4)), "bias": rng.normal(size=(*stack, 4))},
            "norm": {"scale": rng.normal(size=(*stack, 4)), "bias": rng.normal(size=(*stack, 4))},
        }

    return {
        "encoder": {
            "embeddings": {"word": rng.normal(size=(7, 4)), "zero": np.zeros((2, 4))},
            "groups": {"attention": part(3), "layers": {"ffn": part(3, 2)}},
        },
        "mlm_head": {"bias": rng.normal(size=(7,))},
    }


def above(model, path, index):
    """How many layers are above one of the parts of a leaf, by going through the layers that use it."""
    if "embeddings" in path:
        return model.num_layers
    if "groups" not in path and "first" not in path:
        return 0
    users = []
    for layer in range(model.num_layers):
        group, place = divmod(layer - model.apart, model.repeats)
        if layer < model.apart:
            uses = "first" in path
        else:
            uses = "groups" in path and index[0] == group and ("layers" not in path or index[1] == place)
        users += [layer] * uses
    return model.num_layers - 1 - max(users)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "adamw"},
        {"name": "adamw", "bias_correction": True},
        {"name": "adamw", "decay_by_lr": False},
        {"name": "lamb"},
        {"name": "lamb", "bias_correction": True},
        {"name": "stableadamw", "bias_correction": True},
        {"name": "stableadamw", "bias_correction": True, "decay_by_lr": False},
        {"name": "lamb", "layer_decay": 0.7},
        {"name": "adamw", "decay_by_lr": False, "layer_decay": 0.7},
    ],
    ids=str,
)
def test_twenty_steps_equal_numpy(fields):
    """Each layer of each stack is updated as if it were alone; biases and norms are neither decayed nor adapted.

    Gradients of some steps are a hundred times larger, in one layer each: a layer that is unlike the others.
    """
    rng = np.random.default_rng(0)
    params = random_params(rng)
    config = OptimConfig(lr=0.05, warmup_steps=4, clip_norm=0.0, **fields)
    model = ModelConfig(num_layers=6, share="attention", num_groups=3)  # of which these could be the parameters
    optimizer = optimizer_of(config, steps=25, model=model)
    ours = jax.tree.map(jnp.float32, params)
    state = optimizer.init(ours)
    flat, tree = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    moments = [(np.zeros_like(x), np.zeros_like(x)) for x in flat]
    update = jax.jit(optimizer.update)
    for step in range(20):
        grads = [rng.normal(size=x.shape) for x in flat]
        for g in grads:
            g[0] *= 100.0 if step % 7 == 3 else 1.0
        updates, state = update(jax.tree.map(jnp.float32, jax.tree.unflatten(tree, grads)), state, ours)
        ours = optax.apply_updates(ours, updates)
        lr = 0.05 * step / 4 if step < 4 else 0.05 * (1 - step / 25)
        for i, path in enumerate(paths):
            adapted = "bias" not in path and "scale" not in path
            depth = ("groups" in path) + ("layers" in path)
            decay = 0.01 * adapted / (1.0 if config.decay_by_lr else 0.05)
            for index in np.ndindex(flat[i].shape[:depth]):
                m, v = moments[i]
                rate = lr * config.layer_decay ** above(model, path, index)
                flat[i][index], m[index], v[index] = adam_step(
                    flat[i][index], grads[i][index], m[index], v[index], step + 1,
                    lr=rate, b1=0.9, b2=0.999, eps=1e-6, decay=decay, bias_correction=config.bias_correction,
                    trust=adapted and config.name == "lamb", stable=config.name == "stableadamw",
                )  # fmt: skip
    for path, expected, got in zip(paths, flat, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=path)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"share": "all"},
        {"share": "all", "num_groups": 2},
        {"share": "attention", "num_groups": 3},
        {"share": "ffn", "num_groups": 2},
        {"norm_place": "pre", "first_norm": False, "num_layers": 7},
    ],
    ids=str,
)
def test_the_rate_of_each_layer_of_real_parameters(fields):
    """Whatever layers share, half of it for each layer above."""
    sizes = {"hidden_size": 8, "embedding_size": 4, "num_heads": 2, "ffn_size": 8, "vocab_size": 12, "num_layers": 6}
    model = ModelConfig(**sizes | {"max_positions": 8} | fields)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), network.abstract_params(model))
    updates = []
    for layer_decay in (1.0, 0.5):
        config = OptimConfig(lr=1.0, warmup_steps=0, weight_decay=0.0, power=0.0, layer_decay=layer_decay)
        optimizer = optimizer_of(config, steps=10, model=model)
        updates.append(jax.jit(lambda p, o=optimizer: o.update(p, o.init(p), p, norm=optax.tree.norm(p))[0])(params))
    seen = set()
    leaves = zip(jax.tree_util.tree_leaves_with_path(updates[0]), jax.tree.leaves(updates[1]), strict=True)
    for (path, whole), decayed in leaves:
        path = jax.tree_util.keystr(path)
        for index in np.ndindex(whole.shape[: ("groups" in path) + ("layers" in path)]):
            seen.add(halvings := above(model, path, index))
            np.testing.assert_array_equal(decayed[index], whole[index] * 0.5**halvings, err_msg=f"{path} {index}")
    assert {0, model.num_layers} <= seen
    assert len(seen) == {"all": 1 + model.num_groups}.get(model.share, model.num_layers + 1)


def layered_params(rng):
    """The leaves of two groups of layers with shared attention and three ffn each, and one of each kind beside them."""

    def affine(*shape, bias):
        return {"kernel": rng.normal(size=shape), "bias": rng.normal(size=bias)}

    attention = {"query": affine(2, 6, 8, bias=(2, 8)), "out": affine(2, 8, 6, bias=(2, 6))}
    ffn = {"up": affine(2, 3, 6, 10, bias=(2, 3, 10)), "down": affine(2, 3, 10, 6, bias=(2, 3, 6))}
    norm = {"norm": {"scale": rng.normal(size=(2, 6))}}
    return {
        "encoder": {
            "embeddings": {"word": rng.normal(size=(7, 6)), "to_hidden": affine(6, 6, bias=(6,))},
            "groups": {"attention": attention | norm, "layers": {"ffn": ffn}},
            "first": {"attention": {"key": affine(6, 8, bias=(8,)), "out": affine(8, 6, bias=(6,))}},
        },
        "mlm_head": {"dense": affine(6, 6, bias=(6,))},
    }


MATRICES = {  # as (stacked axes, rows of the matrix)
    "['encoder']['groups']['attention']['query']['kernel']": (1, 6),
    "['encoder']['groups']['attention']['out']['kernel']": (1, 8),
    "['encoder']['first']['attention']['key']['kernel']": (0, 6),
    "['encoder']['first']['attention']['out']['kernel']": (0, 8),
    "['encoder']['groups']['layers']['ffn']['up']['kernel']": (2, 6),
    "['encoder']['groups']['layers']['ffn']['down']['kernel']": (2, 10),
}


def test_muon_equals_numpy_in_loops():
    """The kernels of the layers matrix by matrix, all else by AdamW, with one rate and decay."""
    rng = np.random.default_rng(0)
    params = layered_params(rng)
    config = OptimConfig(name="muon", lr=0.05, warmup_steps=0, power=0.0, bias_correction=True, clip_norm=0.0)
    optimizer = optimizer_of(config, steps=10)
    ours = jax.tree.map(jnp.float32, params)
    state = optimizer.init(ours)
    flat, tree = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert set(MATRICES) < set(paths)
    moments = [(np.zeros_like(x), np.zeros_like(x)) for x in flat]
    update = jax.jit(optimizer.update)
    for step in range(1, 9):
        grads = [rng.normal(size=x.shape) for x in flat]
        updates, state = update(jax.tree.map(jnp.float32, jax.tree.unflatten(tree, grads)), state, ours)
        ours = optax.apply_updates(ours, updates)
        for w, g, (m, v), path in zip(flat, grads, moments, paths, strict=True):
            decayed = 0.01 * ("bias" not in path and "scale" not in path)
            stacked, rows = MATRICES.get(path, (0, None))
            for index in np.ndindex(w.shape[:stacked]):
                if rows:
                    one = (x[index].reshape(rows, -1) for x in (w, g, m))
                    made = muon_step(*one, step, lr=0.05, beta=0.95, decay=decayed)
                    w[index], m[index] = (x.reshape(w[index].shape) for x in made)
                else:
                    w[...], m[...], v[...] = adam_step(
                        w, g, m, v, step, lr=0.05, b1=0.9, b2=0.999, eps=1e-6, decay=decayed, bias_correction=True,
                        trust=False,
                    )  # fmt: skip
    for path, expected, got in zip(paths, flat, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5, err_msg=path)


def test_masks_go_by_name_not_by_rank():
    params = random_params(np.random.default_rng(0))
    excluded = [k for k, keep in jax.tree_util.tree_leaves_with_path(decay_mask(params)) if not keep]
    assert {str(path[-1].key) for path in excluded} == {"bias", "scale"}
    assert len(excluded) == 7
    depth = stacked_axes(params)
    assert depth["encoder"]["groups"]["layers"]["ffn"]["dense"]["kernel"] == 2
    assert depth["encoder"]["groups"]["attention"]["norm"]["scale"] == 1
    assert depth["encoder"]["embeddings"]["word"] == 0


def test_clip_acts_on_the_global_norm():
    config = OptimConfig(lr=1.0, warmup_steps=0, clip_norm=1.0, weight_decay=0.0, b1=0.0, b2=0.0, eps=1.0, power=0.0)
    optimizer = optimizer_of(config, steps=10)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}  # norm 5
    updates, _ = optimizer.update(grads, optimizer.init(params), params, norm=jnp.float32(5.0))
    np.testing.assert_allclose(updates["a"], [-0.6 / 1.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [0.0, -0.8 / 1.8], rtol=1e-6)


def test_the_average_equals_numpy_at_every_step_and_changes_no_update():
    """Of the parameters after each update, the last with the most weight; the initial ones count nothing."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(jnp.float32, random_params(rng))
    fields = {"lr": 0.1, "warmup_steps": 0, "freeze": ("encoder/embeddings",)}
    plain, averaged = (optimizer_of(OptimConfig(**fields, ema=ema), steps=20) for ema in (0.0, 0.9))
    state, other = plain.init(params), averaged.init(params)
    updates, updates_too = (
        jax.jit(lambda g, s, p, o=one: o.update(g, s, p, norm=optax.tree.norm(g))) for one in (plain, averaged)
    )
    seen = []
    for step in range(1, 13):
        grads = jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), params)
        made, state = updates(grads, state, params)
        same, other = updates_too(grads, other, params)
        jax.tree.map(np.testing.assert_array_equal, made, same)
        params = optax.apply_updates(params, made)
        seen.append(jax.tree.map(np.float64, params))
        weights = 0.9 ** np.arange(step)[::-1]
        expected = jax.tree.map(lambda *x, w=weights: np.average(x, axis=0, weights=w), *seen)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), other.average, expected)
