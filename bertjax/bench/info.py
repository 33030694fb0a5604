"""What a configuration costs, before it runs: parameters by part, FLOPs, memory. From shapes alone, at any size."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bertjax import batch
from bertjax.config.schema import Config
from bertjax.train.metrics import flops_per_token
from bertjax.model.network import Pretrainer


def info(config: Config) -> dict[str, Any]:
    """`parameters` by part, `flops_per_token` (forward and backward), `memory_bytes` of what training keeps.

    Memory is of the whole state in float32: parameters, two moments, gradients; activations are not in it. Under
    mesh.fsdp each device holds its share.
    """
    fields = batch.spec(config.data, rows=1)
    example = {name: jax.ShapeDtypeStruct(f.shape, f.dtype) for name, f in fields.items()}
    variables = jax.eval_shape(partial(Pretrainer(config.model).init, jax.random.key(0)), example)
    params = nn.meta.unbox(variables)["params"]
    counts = {part: _count(params.get(part, {})) for part in ("encoder", "pooler", "mlm_head", "pair_head")}
    total = sum(counts.values())
    size = jnp.dtype(jnp.float32).itemsize
    return {
        "parameters": counts | {"total": total},
        "flops_per_token": flops_per_token(config.model, config.data),
        "memory_bytes": {"parameters": size * total, "optimizer": 2 * size * total, "gradients": size * total},
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
