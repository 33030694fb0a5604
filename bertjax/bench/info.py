"""What a configuration costs, before it runs: parameters by part, FLOPs, memory. From shapes alone, at any size."""

import math
from typing import Any

import jax
import numpy as np

from bertjax.config.schema import Config
from bertjax.model.cost import flops_per_token, predicted_share
from bertjax.model.heads import HEADS
from bertjax.model.network import abstract_params
from bertjax.train.optim import make_optimizer


def info(config: Config) -> dict[str, Any]:
    """`parameters` by part, `flops_per_token` (forward and backward), `memory_bytes` of what training keeps.

    Memory is of the whole state in float32: parameters, what the optimizer keeps (moments, the average of the weights),
    gradients; activations are not in it. Under mesh.fsdp each device holds its share.
    """
    params = abstract_params(config.model)
    counts = {part: _count(params.get(part, {})) for part in ("encoder", *HEADS)}
    total = sum(counts.values())
    size = np.dtype(np.float32).itemsize
    optimizer = make_optimizer(config.optim, steps=config.run.steps)
    kept = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, params)) if leaf.shape)
    return {
        "parameters": counts | {"total": total},
        "flops_per_token": flops_per_token(config.model, config.data.seq_len, predicted=predicted_share(config.data)),
        "memory_bytes": {"parameters": size * total, "optimizer": size * kept, "gradients": size * total},
    }


def table(values: dict[str, Any]) -> str:
    """The same for a person: one line a number."""
    lines = []
    for section, numbers in values.items():
        lines.append(section.replace("_", " "))
        lines += [f"  {name:<22}{value:>22,.0f}" for name, value in numbers.items()]
    return "\n".join(lines)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
