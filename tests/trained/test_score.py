"""`bertjax.trained.score`: the score of a sentence is that of a plain loop over its tokens, however it is computed."""

import functools

import directories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import make

import bertjax
from bertjax.config.schema import ComputeConfig, MeshConfig
from bertjax.data.tokenizer import Special
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.trained import score

SPECIAL = Special(pad=0, unk=1, cls=2, sep=3, mask=4)
LENGTHS = (1, 3, 3, 5, 12, 13, 14, 15, 20, 29, 30)
METHODS = ("pll", "unmasked")


def sentences(vocab_size=400, lengths=LENGTHS):
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(5, vocab_size, size=length).tolist()) for length in lengths]


def mesh_of(**axes):
    devices = jax.devices() if axes else jax.devices()[:1]
    return sharding.make_mesh(MeshConfig(**axes), devices)


@functools.cache
def scorer(model, mesh):
    return score.scorer(model, ComputeConfig(), mesh)


def scored(model, params, found, mesh, by):
    params = jax.device_put(params, network.param_shardings(model, mesh))
    plan, seen = score.plan(found, model, SPECIAL, mesh, by=by), []
    scores = scorer(model, mesh)(params, plan, seen.append)
    assert sum(seen) == plan.work
    return scores


def plain(log_probs, ids, by):
    """The definition, in float64: `log_probs` of a row of ids are those [L, V] of each position."""
    row = [SPECIAL.cls, *ids, SPECIAL.sep]
    if by == "unmasked":
        return np.mean([log_probs(row)[t, token] for t, token in enumerate(row)])
    places = range(1, len(row) - 1)
    hidden = {t: [*row[:t], SPECIAL.mask, *row[t + 1 :]] for t in places}
    return sum(log_probs(hidden[t])[t, row[t]] for t in places)


def normalised(logits):
    logits = np.asarray(logits, np.float64)
    return (
        logits
        - np.log(np.sum(np.exp(logits - logits.max(-1, keepdims=True)), -1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


@pytest.mark.parametrize("by", METHODS)
def test_equals_a_loop_over_the_outputs_of_a_loaded_model(tmp_path, by):
    directory = directories.write(tmp_path / "hf")
    loaded = bertjax.load(directory)
    found = scored(loaded.config, loaded.params, sentences(), mesh_of(), by)
    expected = [plain(lambda row: normalised(loaded([row]).mlm_logits[0]), ids, by) for ids in sentences()]
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("by", METHODS)
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_equals_a_loop_in_torch(tmp_path, kind, by):
    transformers, directory = directories.hf(), directories.write(tmp_path / "hf", kind)
    import torch

    theirs = transformers.AutoModelForMaskedLM.from_pretrained(directory).eval()

    def log_probs(row):
        with torch.no_grad():
            return normalised(theirs(input_ids=torch.tensor([row])).logits[0].numpy())

    model, params = directories.ours(kind)
    found = scored(model, params, sentences(), mesh_of(), by)
    np.testing.assert_allclose(found, [plain(log_probs, ids, by) for ids in sentences()], rtol=1e-5)


@pytest.mark.parametrize("by", METHODS)
def test_a_planted_bigram_model_gets_the_scores_of_its_table(by):
    """Its logits at a position are a row of a table, by the token before."""
    table_VV = np.random.default_rng(1).normal(size=(60, 60)).astype(np.float32)

    def forward(params, batch, key):
        before_BP = jnp.take_along_axis(batch["tokens"], jnp.maximum(batch["mlm_positions"] - 1, 0), axis=1)
        return {"mlm_logits": params["table"][before_BP]}

    def log_probs(row):
        return normalised(table_VV[[row[0], *row[:-1]]])

    mesh, found = mesh_of(data=4, tensor=2), sentences(60)
    plan = score.plan(found, directories.ours("bert")[0], SPECIAL, mesh, by=by)
    step = score.row_scorer(jax.tree_util.Partial(forward), mesh)
    params = {"table": jax.device_put(table_VV, sharding.replicated(mesh))}
    scores = score.scores(step, mesh, params, plan, lambda work: None)
    np.testing.assert_allclose(scores, [plain(log_probs, ids, by) for ids in found], rtol=1e-5)


@pytest.mark.parametrize("by", METHODS)
@pytest.mark.parametrize("kind", ["bert", "rotary"])
def test_padding_batching_and_order_change_no_score(kind, by, monkeypatch):
    config, _, params = make(kind)
    found, mesh = sentences(), mesh_of()
    together = scored(config.model, params, found, mesh, by)
    order = np.random.default_rng(2).permutation(len(found))
    np.testing.assert_allclose(scored(config.model, params, [found[i] for i in order], mesh, by), together[order], 1e-5)
    monkeypatch.setattr(score, "TOKENS", {"cpu": 1})  # a row at a time
    np.testing.assert_allclose(scored(config.model, params, found, mesh, by), together, 1e-5)
    monkeypatch.setattr(score.inference, "padded_length", lambda length, most: most)
    np.testing.assert_allclose(scored(config.model, params, found, mesh, by), together, 1e-5)
    alone = np.concatenate([scored(config.model, params, [ids], mesh, by) for ids in found[-3:]])
    np.testing.assert_allclose(alone, together[-3:], 1e-5)


@pytest.mark.parametrize("by", METHODS)
def test_many_devices_give_the_scores_of_one(by):
    config, _, params = make("albert")
    one = scored(config.model, params, sentences(), mesh_of(), by)
    for axes in ({"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}):
        for count in (1, len(one)):  # fewer rows than devices too
            some = scored(config.model, params, sentences()[:count], mesh_of(**axes), by)
            np.testing.assert_allclose(some, one[:count], rtol=1e-5)


def test_few_shapes_are_computed_and_little_in_vain(monkeypatch):
    """One for each padded length; the device is given masked copies, and never more logits than it may hold."""
    monkeypatch.setattr(score, "LOGITS", 100 * 400)
    model, mesh = directories.ours("bert")[0], mesh_of()
    found = sentences(lengths=np.random.default_rng(3).integers(1, 31, size=300))
    for by, most in (("pll", 100), ("unmasked", 100 // 16)):
        plan = score.plan(found, model, SPECIAL, mesh, by=by)
        assert [group.tokens_SL.shape[1] for group in plan.groups] == [16, 32]
        assert all(group.size <= most for group in plan.groups)
    assert score.plan(found[:1], model, SPECIAL, mesh, by="unmasked").groups[0].size == 1
