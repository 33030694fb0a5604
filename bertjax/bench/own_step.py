"""The training step of a config as a side of a comparison (`bertjax.bench.turns`), and what it costs to compile."""

import os
import resource
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from typing import Any

from bertjax import batch
from bertjax.bench.turns import Count, Rows, Work
from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.model.cost import peak_tflops

_PACKAGES = ("bertjax", "jax", "jaxlib", "flax", "optax")
_COMPILED = "/jax/core/compile/backend_compile_duration"


def work(config: Config, rows: Rows | None, *, cache: str, shared: bool) -> Work:
    """Trains on `rows`, None = on full ones of random tokens. Programs are kept in the directory `cache`, which is
    empty; `shared` leaves memory of a GPU to other processes.

    Tells device, versions, flops_per_token (also by XLA), peak (FLOP/s of all devices, 0 = not known) and
    compile_seconds; and in the end recompiles and peak_bytes.
    """
    if shared:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from bertjax.bench.made import MadeStep
    from bertjax.bench.memory import plan

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compiled = _compilations()
    made = plan(config)
    rows = rows or [batch.synthetic(made.config)]
    train, counts = MadeStep(made, rows), cycle([Count.of(one["segments"]) for one in rows])
    jax.clear_caches()
    cached = _seconds(train.compile_again)
    by_xla = None if config.teacher.path else flops_by_xla(config)

    def step() -> Count:
        train()
        return next(counts)

    def begun() -> dict[str, Any]:
        compiled.clear()
        return {
            "device": _device(made.mesh),
            "versions": versions(_PACKAGES),
            "flops_per_token": made.task.flops_per_token,
            "flops_per_token_by_xla": by_xla,
            "peak": 1e12 * peak_tflops(made.mesh.devices.flat[0].device_kind, config.run.peak_tflops) * made.mesh.size,
            "compile_seconds": {"cold": train.compile_seconds, "cached": cached},
        }

    return Work(step, begun, lambda: {"recompiles": len(compiled), "peak_bytes": _peak_bytes(made.mesh)})


def flops_by_xla(config: Config) -> float:
    """XLA's own count of the FLOPs of a training step, for each slot of full rows: of the same step with its layers
    unrolled, without recomputation and kernels that XLA does not look into, on one device, before it is optimised.
    """
    import jax

    from bertjax.bench.memory import plan
    from bertjax.tasks import fit

    rows = max(1, config.data.batch_size // config.optim.accumulate // max(1, jax.device_count()))
    alone = override(
        config,
        compute={"scan": False, "remat": "none", "attention": "reference"},
        data={"batch_size": rows},
        optim={"accumulate": 1},
        mesh={"data": 1, "fsdp": 1, "tensor": 1},
    )
    made = plan(alone, jax.devices()[:1])
    cost = made.engine.step.lower(made.engine.shapes, fit.shapes(made.config, rows)).cost_analysis()
    return float(cost["flops"]) / (rows * config.data.seq_len)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its sources
            continue
    return found


def peak_of_process() -> int:
    """The most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _compilations() -> list[float]:
    """Seconds of each program that is compiled from here on."""
    import jax

    found: list[float] = []

    def heard(event: str, duration_secs: float, **more: Any) -> None:
        if event == _COMPILED:
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
    return found


def _device(mesh: Any) -> str:
    from bertjax.parallel import machine

    first = mesh.devices.flat[0]
    kind = f"{machine.cores()} processor cores" if first.platform == "cpu" else first.device_kind
    return kind if mesh.size == 1 else f"{mesh.size} x {kind}"


def _peak_bytes(mesh: Any) -> int:
    stats = mesh.devices.flat[0].memory_stats() or {}
    return int(stats.get("peak_bytes_in_use", 0)) or peak_of_process()


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
