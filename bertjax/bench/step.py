"""A training step timed on synthetic batches, alone or in turn with the torch model of Hugging Face on the same work.

Each side lives in a process of its own and only one works at a time, A B A B, so that a drift of the machine's speed
meets both: the figure to quote is the ratio of neighbouring runs.

Shape letters: B rows, L positions of a row, P prediction slots.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bertjax import batch
from bertjax.config.schema import Config
from bertjax.errors import ConfigError

Batch = dict[str, np.ndarray]


def bench(config: Config, *, peer: str, repeats: int) -> dict[str, Any]:
    """Time `repeats` training steps, after two that are not counted; with `peer` = "torch" in turn with that model.

    Returns for each side `seconds` (median), `fastest`, `slowest` and `tokens_per_second`, and `ratio`, the median of
    bertjax's speed over the peer's, pair by pair. Raises ConfigError if the peer cannot do the same work.
    """
    if peer:
        _check_peer(config)
    sides = {"bertjax": _bertjax_step} | ({"torch": _torch_step} if peer else {})
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        connections = {}
        for name, make in sides.items():
            connections[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, config, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a side that fails is seen, and not waited for
            stack.callback(process.terminate)
            connections[name].recv()  # built and warm, before the other side starts
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, connection in connections.items():
                connection.send("run")
                times[name].append(connection.recv())
    tokens = config.data.batch_size * config.data.seq_len
    result: dict[str, Any] = {
        name: {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "tokens_per_second": tokens / statistics.median(seconds),
        }
        for name, seconds in times.items()
    }
    if peer:
        pairs = zip(times[peer], times["bertjax"], strict=True)
        result["ratio"] = statistics.median(theirs / ours for theirs, ours in pairs)
    return result


def synthetic(config: Config) -> Batch:
    """Full rows of random tokens: every slot is predicted, every example has a pair label."""
    rng = np.random.default_rng(config.run.seed)
    B, L, P, K = config.data.batch_size, config.data.seq_len, config.data.max_predictions, config.data.packing
    rows: Batch = {name: np.zeros(field.shape, field.dtype) for name, field in batch.spec(config.data).items()}
    rows["tokens"][:] = rng.integers(5, config.model.vocab_size, size=(B, L))
    size = -(-L // K)  # of each example of a row
    rows["segments"][:] = 1 + np.arange(L) // size
    rows["positions"][:] = np.arange(L) % size
    rows["token_types"][:] = (np.arange(L) % size >= size // 2) if config.model.token_types else 0
    rows["pair_positions"][:] = np.arange(K) * size
    rows["mlm_positions"][:] = np.sort(rng.permuted(np.tile(np.arange(L), (B, 1)), axis=1)[:, :P], axis=1)
    rows["mlm_labels"][:] = rng.integers(5, config.model.vocab_size, size=(B, P))
    rows["mlm_weights"][:] = 1.0
    rows["pair_labels"][:] = rng.integers(0, 2, size=(B, K))
    rows["pair_weights"][:] = 1.0
    return rows


def _serve(make: Callable[[Config], Callable[[], None]], config: Config, connection: Connection) -> None:
    step = make(config)
    for _ in range(2):  # the first compiles
        step()
    connection.send("ready")
    while connection.recv():
        start = time.perf_counter()
        step()
        connection.send(time.perf_counter() - start)


def _bertjax_step(config: Config) -> Callable[[], None]:
    import jax

    from bertjax.parallel import sharding
    from bertjax.tasks import teacher
    from bertjax.train.step import init_state, make_train_step

    mesh = sharding.make_mesh(config.mesh)
    sharding.check(config, mesh)
    train_step = make_train_step(config, mesh, teacher.load(config, None, mesh))
    rows = sharding.put_batch(synthetic(config), mesh)
    state = init_state(config, mesh)

    def step() -> None:
        nonlocal state
        state, metrics = train_step(state, rows)
        jax.block_until_ready((state, metrics))

    return step


def _check_peer(config: Config) -> None:
    m = config.model
    if m.share != "none" or m.embedding_size != m.hidden_size or not (m.token_types and m.pair_head):
        raise ConfigError("--peer=torch: compares BERT with both heads; name a recipe of configs/bert.py")
    o = config.optim
    if o.name != "adamw" or o.accumulate != 1 or m.dtype != "float32" or config.data.packing != 1:
        fix = "leave those at their defaults"
        raise ConfigError(f"--peer=torch: compares float32 AdamW without accumulation or packing; {fix}")
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError("--peer=torch: needs the extra, `pip install 'bertjax[hf]'`") from error


def _torch_step(config: Config) -> Callable[[], None]:
    """Hugging Face's `BertForPreTraining` with torch's AdamW and gradient clipping, as its users run it."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    m, rows = config.model, synthetic(config)
    model = BertForPreTraining(
        BertConfig(
            vocab_size=m.vocab_size,
            hidden_size=m.hidden_size,
            num_hidden_layers=m.num_layers,
            num_attention_heads=m.num_heads,
            intermediate_size=m.ffn_size,
            hidden_act={"gelu_tanh": "gelu_new", "gelu_erf": "gelu", "relu": "relu"}[m.activation],
            hidden_dropout_prob=m.dropout,
            attention_probs_dropout_prob=m.attention_dropout,
            max_position_embeddings=m.max_positions,
            type_vocab_size=m.token_types,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    labels_BL = np.full_like(rows["tokens"], -100)
    np.put_along_axis(labels_BL, rows["mlm_positions"], rows["mlm_labels"], axis=1)
    inputs = {
        "input_ids": rows["tokens"],
        "token_type_ids": rows["token_types"],
        "attention_mask": rows["segments"],
        "labels": labels_BL,
        "next_sentence_label": rows["pair_labels"][:, 0],
    }
    tensors = {name: torch.from_numpy(array).long() for name, array in inputs.items()}

    def step() -> None:
        loss = model(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step
