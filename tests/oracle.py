"""The model once more, in NumPy float64 with plain loops, written from the papers and not from `bertjax.model.network`.

Rows are processed one at a time, layers one after another, attention one head at a time.
"""

import math

import numpy as np

erf = np.vectorize(math.erf)


def gelu(x, activation):
    if activation == "relu":
        return np.maximum(x, 0.0)
    if activation == "silu":
        return x / (1.0 + np.exp(-x))
    if activation == "gelu_erf":
        return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def norm(x, p, model):
    if model.norm == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + model.layer_norm_eps) * p["scale"]
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    y = (x - mean) / np.sqrt(variance + model.layer_norm_eps) * p["scale"]
    return y + p["bias"] if model.norm == "layer" else y


def biased(y, p, *index):
    """With the bias, where there is one."""
    return y + p["bias"][index] if "bias" in p else y


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def turned(x, positions, base, pairs):
    """Number i of a head and number i + D/2, or 2i and 2i + 1, as one complex number, turned by position /
    base^(2i/D).
    """
    half = x.shape[-1] // 2
    angles = positions[:, None] / base ** (2 * np.arange(half) / (2 * half))
    if pairs == "neighbours":
        z = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
        return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def layer_params(params, model, layer):
    """The parameters of one layer: shared ones by its group, its own ones by its place in the group."""
    groups = params["groups"]
    if "first" in params:
        if layer == 0:
            return params["first"]
        layer -= 1
    stack = groups["attention"] if "attention" in groups else groups["layers"]["attention"]
    count = len(stack["query"]["kernel"])
    group, place = divmod(layer, (model.num_layers - ("first" in params)) // count)
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
    if "norm" in e:
        x = norm(x, e["norm"], model)
    if "to_hidden" in e:
        x = biased(x @ e["to_hidden"]["kernel"], e["to_hidden"])
    pre = model.norm_place == "pre"
    for layer in range(model.num_layers):
        p = layer_params(params, model, layer)
        a, f = p["attention"], p["ffn"]
        y = norm(x, a["norm"], model) if pre and "norm" in a else x
        y = biased(attended(y, a, model, layer, positions[:length]), a["out"])
        x = x + y if pre else norm(x + y, a["norm"], model)
        y = norm(x, f["norm"], model) if pre else x
        inner = biased(y @ f["up"]["kernel"], f["up"])
        if "gate" in f:
            inner = gelu(biased(y @ f["gate"]["kernel"], f["gate"]), model.activation) * inner
        else:
            inner = gelu(inner, model.activation)
        y = biased(inner @ f["down"]["kernel"], f["down"])
        x = x + y if pre else norm(x + y, f["norm"], model)
    return norm(x, params["norm"], model) if pre else x


def attended(x, a, model, layer, positions):
    """The sum of what the heads give, before the bias of the output."""
    length, out = len(x), np.zeros_like(x)
    local = model.window > 0 and layer % model.global_every > 0
    base = model.rotary_base_local if local and model.rotary_base_local else model.rotary_base
    size = model.hidden_size // model.num_heads
    for head in range(model.num_heads):
        own = slice(head * size, (head + 1) * size)
        q, k, v = (biased(x @ a[n]["kernel"][:, own], a[n], own) for n in ("query", "key", "value"))
        if model.positions == "rotary":
            q, k = (turned(y, positions, base, model.rotary_pairs) for y in (q, k))
        scores = q @ k.T / math.sqrt(q.shape[-1])
        for i in range(length):
            for j in range(length):
                if local and abs(i - j) > model.window:
                    scores[i, j] = -np.inf
        out += softmax(scores) @ v @ a["out"]["kernel"][own]
    return out


def pretrain_outputs(params, model, batch, row):
    """Hidden states of the real tokens, MLM logits of the used slots and pair logits of one row."""
    length = int((batch["segments"][row] > 0).sum())
    slots = batch["mlm_positions"][row][batch["mlm_weights"][row] > 0]
    x = encode(
        params["encoder"], model, batch["tokens"][row], batch["positions"][row], batch["token_types"][row], length
    )
    head, y = params["mlm_head"], x[slots]
    if "dense" in head:
        y = norm(gelu(biased(y @ head["dense"]["kernel"], head["dense"]), model.activation), head["norm"], model)
    decoder = head["word"] if "word" in head else params["encoder"]["embeddings"]["word"]
    outputs = {"hidden": x, "mlm_logits": biased(y @ decoder.T, head)}
    if "pair_head" in model.heads:
        pooled = np.tanh(biased(x[0] @ params["pooler"]["kernel"], params["pooler"]))
        outputs["pair_logits"] = biased(pooled @ params["pair_head"]["dense"]["kernel"], params["pair_head"]["dense"])
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
