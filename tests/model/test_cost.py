"""`bertjax.model.cost`: FLOPs against published sums."""

import numpy as np
import pytest

from bertjax.config.schema import DataConfig, ModelConfig
from bertjax.model.cost import flops_per_token, peak_tflops, predicted_share, training_bytes


@pytest.mark.parametrize(
    ("model", "seq_len", "giga"),
    [
        # Sums of the matrix products at 15 % predictions, per token, forward and backward.
        (ModelConfig(), 128, 0.5454),
        (ModelConfig(), 512, 0.5879),
        (ModelConfig(num_layers=24, hidden_size=1024, embedding_size=1024, ffn_size=4096, num_heads=16), 512, 1.9920),
        (ModelConfig(vocab_size=30_000, embedding_size=128, share="all"), 512, 0.570),
    ],
)
def test_flops_per_token(model, seq_len, giga):
    parts = flops_per_token(model, seq_len, predicted=0.15)
    np.testing.assert_allclose(parts["total"], giga * 1e9, rtol=1e-3)
    assert parts["total"] == sum(v for k, v in parts.items() if k != "total")


def test_a_window_and_a_gate_are_counted():
    """ModernBERT-base on rows of 1,024: 8 layers see all of it, 14 see 129 tokens; three matrices in its FFN."""
    model = ModelConfig(num_layers=22, ffn_size=1152, ffn="gated", window=64, vocab_size=50_368)
    parts = flops_per_token(model, 1024, predicted=0.3)
    np.testing.assert_allclose(parts["encoder"], 6 * 22 * (4 * 768**2 + 3 * 768 * 1152))
    np.testing.assert_allclose(parts["attention"], 12 * 768 * (8 * 1024 + 14 * 129))
    assert flops_per_token(model, 100, predicted=0.3)["attention"] == 12 * 768 * 22 * 100


def test_the_heads_of_each_token_are_counted_and_no_mlm_head_that_is_not_there():
    plain = ModelConfig(heads=("pooler", "classifier"), labels=("a", "b"))
    parts = flops_per_token(plain, 128, predicted=0.15)
    assert parts["mlm_head"] == 0.0 and parts["total"] == parts["encoder"] + parts["attention"]
    tagger = ModelConfig(heads=("tagger",), labels=tuple("abcde"))
    assert flops_per_token(tagger, 128, predicted=0.15)["tagger"] == 6 * 768 * 5
    span = ModelConfig(heads=("span_head",), token_transform=True)
    assert flops_per_token(span, 128, predicted=0.15)["total"] == parts["total"] + 6 * 768 * (768 + 2)
    sizes = {"rows": 8, "seq_len": 128, "predictions": 20, "bytes_of_number": 4}
    with_mlm, without, many = (training_bytes(m, **sizes) for m in (ModelConfig(), plain, tagger))
    assert with_mlm - without == 8 * 4 * 3 * 30522 * 20 and many - without == 8 * 4 * 3 * 128 * 5


def test_fewer_slots_cost_less():
    few, many = (predicted_share(DataConfig(seq_len=512, max_predictions=p)) for p in (20, 77))
    cost = [flops_per_token(ModelConfig(), 512, predicted=share)["mlm_head"] for share in (few, many)]
    np.testing.assert_allclose(cost[0] / cost[1], (20 / 512) / 0.15)
    assert predicted_share(DataConfig(seq_len=128, mask_count=4, packing=2)) == 8 / 128
    falling = DataConfig(seq_len=128, mask_rate=0.3, final_mask_rate=0.1, max_predictions=38)
    np.testing.assert_allclose(predicted_share(falling), 0.2)  # the mean over a run


def test_peaks():
    assert peak_tflops("NVIDIA H100 80GB HBM3", 0.0) == 989.0
    assert peak_tflops("cpu", 0.0) == 0.0
    assert peak_tflops("cpu", 0.5) == 0.5
