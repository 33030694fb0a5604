"""The model once more, in NumPy float64 with plain loops, written from the papers and not from `bertjax.model.network`.

Rows are processed one at a time, layers one after another, attention one head at a time.
"""

import math

import numpy as np

erf = np.vectorize(math.erf)


def gelu(x, activation):
    if activation == "relu":
        return np.maximum(x, 0.0)
    if activation == "gelu_erf":
        return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x, p):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * p["scale"] + p["bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def turned(x, positions, base):
    """Number i of a head and number i + D/2 as one complex number, turned by position / base^(2i/D)."""
    half = x.shape[-1] // 2
    angles = positions[:, None] / base ** (2 * np.arange(half) / (2 * half))
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def layer_params(groups, model, layer):
    """The parameters of one layer: shared ones by its group, its own ones by its place in the group."""
    repeats = model.num_layers // model.copies
    group, place = divmod(layer, repeats)
    parts = {}
    for part in ("attention", "ffn"):
        stack, index = (groups[part], group) if part in groups else (groups["layers"][part], (group, place))
        parts[part] = {k: {n: a[index] for n, a in leaf.items()} for k, leaf in stack.items()}
    return parts


def encode(params, model, tokens, positions, token_types, length):
    """Hidden states of the first `length` tokens of one row: what stands behind them is not even looked at."""
    e = params["embeddings"]
    x = e["word"][tokens[:length]]
    if model.positions == "learned":
        x = x + e["position"][positions[:length]]
    if model.token_types:
        x = x + e["token_type"][token_types[:length]]
    x = layer_norm(x, e["norm"])
    if "to_hidden" in e:
        x = x @ e["to_hidden"]["kernel"] + e["to_hidden"]["bias"]
    for layer in range(model.num_layers):
        p = layer_params(params["groups"], model, layer)
        a, f = p["attention"], p["ffn"]
        out = np.zeros_like(x)
        for head in range(model.num_heads):
            q, k, v = (x @ a[n]["kernel"][:, head] + a[n]["bias"][head] for n in ("query", "key", "value"))
            if model.positions == "rotary":
                q, k = (turned(y, positions[:length], model.rotary_base) for y in (q, k))
            context = softmax(q @ k.T / math.sqrt(q.shape[-1])) @ v
            out += context @ a["out"]["kernel"][head]
        x = layer_norm(x + out + a["out"]["bias"], a["norm"])
        inner = gelu(x @ f["up"]["kernel"] + f["up"]["bias"], model.activation)
        x = layer_norm(x + inner @ f["down"]["kernel"] + f["down"]["bias"], f["norm"])
    return x


def pretrain_outputs(params, model, batch, row):
    """Hidden states of the real tokens, MLM logits of the used slots and pair logits of one row."""
    length = int((batch["segments"][row] > 0).sum())
    slots = batch["mlm_positions"][row][batch["mlm_weights"][row] > 0]
    x = encode(
        params["encoder"], model, batch["tokens"][row], batch["positions"][row], batch["token_types"][row], length
    )
    head = params["mlm_head"]
    y = layer_norm(gelu(x[slots] @ head["dense"]["kernel"] + head["dense"]["bias"], model.activation), head["norm"])
    outputs = {"hidden": x, "mlm_logits": y @ params["encoder"]["embeddings"]["word"].T + head["bias"]}
    if "pair_head" in model.heads:
        pooled = np.tanh(x[0] @ params["pooler"]["kernel"] + params["pooler"]["bias"])
        outputs["pair_logits"] = pooled @ params["pair_head"]["dense"]["kernel"] + params["pair_head"]["dense"]["bias"]
    return outputs


def adam_step(w, g, m, v, t, *, lr, b1, b2, eps, decay, bias_correction, trust, stable=False):
    """One update of one layer's tensor: AdamW, LAMB where `trust`, or StableAdamW. Returns w, m, v."""
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    m_hat, v_hat = (m / (1 - b1**t), v / (1 - b2**t)) if bias_correction else (m, v)
    if stable:
        lr = lr / max(1.0, math.sqrt((g**2 / np.maximum(v_hat, eps**2)).mean()))
    u = m_hat / (np.sqrt(v_hat) + eps) + decay * w
    ratio = 1.0
    if trust:
        norm_w, norm_u = np.sqrt((w * w).sum()), np.sqrt((u * u).sum())
        ratio = norm_w / norm_u if norm_w > 0 and norm_u > 0 else 1.0
    return w - lr * ratio * u, m, v


def muon_step(w, g, m, t, *, lr, beta, decay):
    """One update of one matrix [rows, columns] by Muon, as large as AdamW's. Returns w, m.

    Nesterov: the moment that the next step would have with the same gradient, each part without its bias.
    """
    m = beta * m + (1 - beta) * g
    x = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (np.sqrt((x * x).sum()) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    u = 0.2 * math.sqrt(max(w.shape)) * (x.T if tall else x)
    return w - lr * (u + decay * w), m
