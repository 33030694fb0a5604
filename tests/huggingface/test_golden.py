"""ModernBERT, nomic-bert and heads for labels as torch computes them, also where torch is not installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from directories import hf, ours, stored, write

from bertjax.config.schema import ComputeConfig
from bertjax.model import network

spec = importlib.util.spec_from_file_location("golden", Path(__file__).with_name("golden.py"))
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


@pytest.mark.parametrize("kind", golden.KINDS)
def test_equals_what_torch_computed(kind):
    config, params = ours(kind)
    batch = golden.batch_of()
    rows, positions = np.array(golden.PLACES).T
    batch["mlm_positions"] = np.stack([positions[rows == row] for row in (0, 1)])
    outputs = network.apply(config, ComputeConfig(), params, batch)
    found = {"hidden": outputs["hidden"][rows, positions], "logits": outputs["mlm_logits"].reshape(4, -1)[:, :20]}
    for name, kept in golden.read()[kind].items():
        np.testing.assert_allclose(found[name], kept, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("kind", golden.LABELLED)
def test_a_head_for_labels_gives_what_torch_computed(kind):
    config, params = ours(kind)
    outputs = network.apply(config, ComputeConfig(), params, golden.batch_of())
    (name,) = {"class_logits", "tag_logits", "span_logits"} & set(outputs)
    rows, positions = np.array(golden.PLACES).T
    found = outputs[name][:, 0] if name == "class_logits" else outputs[name][rows, positions]
    found = found.T if kind.endswith("choice") else found
    np.testing.assert_allclose(found, golden.read()[kind]["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", golden.KINDS + golden.LABELLED)
def test_torch_still_computes_that(kind):
    hf()
    for name, x in (golden.computed if kind in golden.KINDS else golden.logits)(kind).items():
        np.testing.assert_allclose(x, golden.read()[kind][name], atol=2e-6, rtol=0, err_msg=name)


def test_fused_tensors_hold_their_parts_in_the_order_of_torch(tmp_path):
    """Wi is what is activated, then what it is multiplied with; Wqkv is query, key, value. Layer 1 is the first of the
    groups.
    """
    config, params = ours("modernbert")
    layer, tensors = params["encoder"]["groups"], stored(write(tmp_path / "model", "modernbert"))

    def rows(part, *names):
        return np.concatenate([layer[part][name]["kernel"][0].reshape(config.hidden_size, -1).T for name in names])

    np.testing.assert_array_equal(tensors["model.layers.1.mlp.Wi.weight"], rows("ffn", "gate", "up"))
    np.testing.assert_array_equal(
        tensors["model.layers.1.attn.Wqkv.weight"], rows("attention", "query", "key", "value")
    )
