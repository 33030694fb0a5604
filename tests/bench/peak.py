"""A process that trains a few steps of a recipe and prints what it was told that takes, and what it took."""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def status(name: str) -> int:
    """Bytes, of a line of /proc/self/status."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def recipe(text: str):
    from bertjax.config.recipe import from_dict

    name, _, argument = text.partition(":")
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_dict(module.get_config(*([argument] if argument else [])))


def main(text: str, sections: str, available: str) -> None:
    """`available` bytes give the batch, unless they are 0."""
    import jax

    from bertjax import batch
    from bertjax.bench import memory
    from bertjax.config.recipe import override
    from bertjax.parallel import sharding

    config = override(recipe(text), **json.loads(sections))
    if int(available):
        config = override(config, data={"batch_size": memory.largest_batch(config, int(available))})
    plan = memory.plan(config)
    told = memory.measured(plan)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    state = plan.engine.fresh(0)
    rows = sharding.put_batch(batch.synthetic(config), plan.mesh)
    for _ in range(2):
        state, values = plan.engine.step(state, rows)
        jax.block_until_ready((state, values))
    numbers = {"rows": config.data.batch_size, "step": told.step, "training": told.training, "before": before}
    print(json.dumps(numbers | {"peak": status("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
