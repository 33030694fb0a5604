"""What a model costs, from its numbers alone: FLOPs, and the peaks of devices that a rate is measured against."""

from bertjax.config.schema import DataConfig, ModelConfig

PEAK_TFLOPS: dict[str, float] = {
    "TPU v3": 123.0 / 2,  # JAX shows each of the two cores of a chip as a device
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA B200": 2250.0,
}
"""Dense bf16 TFLOP/s by the beginning of JAX's device kind, as the vendors state them; the first that fits counts."""


def peak_tflops(device_kind: str, configured: float) -> float:
    """Peak of one device: `configured` if above 0, else by its kind; 0.0 if unknown (no MFU is then reported)."""
    known = [peak for kind, peak in PEAK_TFLOPS.items() if device_kind.startswith(kind)]
    return configured or (known[0] if known else 0.0)


def predicted_share(data: DataConfig) -> float:
    """The share of the tokens of full rows that the MLM head predicts."""
    mean = (data.mask_rate + data.last_mask_rate) / 2  # over a run
    rate = data.mask_count * data.packing / data.seq_len if data.mask_count else mean
    return min(rate, data.max_predictions / data.seq_len)


def flops_per_token(model: ModelConfig, seq_len: int, *, predicted: float) -> dict[str, float]:
    """Model FLOPs of forward and backward for one real token of a full row, by part and in total.

    Three times the forward pass, two FLOPs a multiply-add, matrix products only: encoder, attention scores and values
    over the row (no causal halving; of a local layer, over its window), the MLM head at the share `predicted` of the
    tokens, and the heads of each token. Recomputation, padding, look-ups, the pooler and what stands on it (one per
    example) are not counted. Sharing saves parameters, not FLOPs; nor does a window where the kernel computes all
    scores and hides some.
    """
    H, F, L, V, E = model.hidden_size, model.ffn_size, model.num_layers, model.vocab_size, model.embedding_size
    far = len(range(0, L, model.global_every)) if model.window else L
    seen = far * seq_len + (L - far) * min(seq_len, 2 * model.window + 1)
    parts = {
        "encoder": 6.0 * L * (4 * H * H + (3 if model.ffn == "gated" else 2) * H * F),
        "attention": 12.0 * H * seen,
        "mlm_head": 6.0 * predicted * (H * E * model.mlm_transform + E * V) * ("mlm_head" in model.heads),
        "embedding_projection": 6.0 * E * H if E != H else 0.0,
    }
    classes = token_classes(model)
    parts |= {head: 6.0 * H * (H * model.token_transform + C) for head, C in classes.items()}
    return parts | {"total": sum(parts.values())}


def token_classes(model: ModelConfig) -> dict[str, int]:
    """How many logits each head gives of each token."""
    classes = {"tagger": len(model.labels), "span_head": 2}
    return {head: classes[head] for head in classes if head in model.heads}


def training_bytes(model: ModelConfig, *, rows: int, seq_len: int, predictions: int, bytes_of_number: int) -> float:
    """Roughly the most memory of a training step of so many rows, each with so many predicted tokens, in bytes: of
    parameters, gradients and two moments, and of activations, whose numbers have so many bytes. Counted, without
    recomputation: a compiled step takes from half of it to all of it.
    """
    H, F, L, V, E = model.hidden_size, model.ffn_size, model.num_layers, model.vocab_size, model.embedding_size
    layer = 4 * H * H + (3 if model.ffn == "gated" else 2) * H * F
    parameters = layer * (model.copies + model.apart) + E * V + H * E
    kept = L * (16 * H + (6 if model.ffn == "gated" else 5) * F + 3 * model.num_heads * seq_len)
    logits = 3 * V * predictions * ("mlm_head" in model.heads) + 3 * seq_len * sum(token_classes(model).values())
    return 16.0 * parameters + rows * (bytes_of_number * seq_len * kept + 4 * logits)
