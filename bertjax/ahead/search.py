"""Which mesh, how many rows at a time and which remat train fastest on a machine that is not here, by estimate.

The batch stays as it is, so that each candidate does the same work: fewer rows at a time means more microbatches.
"""

from collections.abc import Iterator
from typing import Any

from bertjax.ahead.compile import report
from bertjax.config.recipe import override
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import ConfigError

REMATS = ("none", "dots", "full")
Change = dict[str, dict[str, Any]]


def search(config: Config, machine: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report of the candidate with the least estimated time of those that fit, and what was tried: for each its
    `change` of the config, `fits`, bytes `total` and `step_seconds` (None where it does not fit), or the `refused`.

    One thing is changed at a time, and the best of it kept: first the mesh, then rows at a time with remat. Each
    candidate compiles, which takes a minute or more. Raises ConfigError where nothing fits, and as `report` does.
    """
    first = report(config, machine)  # whose own mistakes are the caller's
    tried, best, best_config = [_line({}, first)], first, config
    for candidates in (_meshes, _rows_and_remat):
        for change in list(candidates(best_config, best)):
            candidate = override(best_config, **change)
            say(f"{_shown(change)}: compiling ...")
            try:
                found = report(candidate, machine)
            except ConfigError as error:
                tried.append({"change": change, "fits": False, "total": None, "step_seconds": None} | _why(error))
                continue
            tried.append(_line(change, found))
            if _rank(found) < _rank(best):
                best, best_config = found, candidate
    if not best["fits"]:
        raise ConfigError(
            f"--topology={machine}: nothing that was tried fits; a larger machine, or a smaller data.batch_size,"
            " data.seq_len or model"
        )
    return best, tried


def suggestion(config: Config, report: dict[str, Any]) -> list[str]:
    """The flags that make `config` the one that was compiled for this report."""
    wanted = {f"mesh.{axis}": size for axis, size in report["mesh"].items()}
    wanted |= {"optim.accumulate": report["accumulate"], "compute.remat": report["remat"]}
    return [f"--config.{path}={value}" for path, value in wanted.items() if _value(config, path) != value]


def _meshes(config: Config, found: dict[str, Any]) -> Iterator[Change]:
    """Others: data parallel, state split over 8 chips or over all, heads split over 2 or 4."""
    chips, now = found["chips"], found["mesh"]
    shapes = [(chips, 1, 1), *((chips // n, n, 1) for n in (8, chips)), *((chips // n, 1, n) for n in (2, 4))]
    for data, fsdp, tensor in dict.fromkeys(shapes):
        mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
        if data * fsdp * tensor == chips and mesh != now:
            yield {"mesh": mesh}


def _rows_and_remat(config: Config, found: dict[str, Any]) -> Iterator[Change]:
    """Half of the rows at a time, as they are and twice as many, with each remat."""
    parts = config.optim.accumulate
    rows = config.data.batch_size // (found["mesh"]["data"] * found["mesh"]["fsdp"])
    for count in sorted({max(1, parts // 2), parts, 2 * parts}):
        for remat in REMATS:
            if rows % count == 0 and (count, remat) != (parts, config.compute.remat):
                yield {"optim": {"accumulate": count}, "compute": {"remat": remat}}


def _rank(found: dict[str, Any]) -> tuple[bool, float]:
    """The less, the better: what fits by its time, what does not by its bytes."""
    if found["fits"]:
        return False, found["estimated"]["step_seconds"]
    return True, found["bytes_per_chip"]["total"] or float("inf")


def _line(change: Change, found: dict[str, Any]) -> dict[str, Any]:
    seconds = found["estimated"]["step_seconds"] if found["fits"] else None
    return {"change": change, "fits": found["fits"], "total": found["bytes_per_chip"]["total"], "step_seconds": seconds}


def _why(error: ConfigError) -> dict[str, Any]:
    return {"refused": " ".join(str(error).split("\n"))}


def _shown(change: Change) -> str:
    fields = [f"{section}.{name} = {value}" for section, values in change.items() for name, value in values.items()]
    return ", ".join(fields)


def _value(config: Config, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(config, section), name)
