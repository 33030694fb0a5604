"""The report on a program for another machine, as text and as a picture."""

from pathlib import Path
from typing import Any

_PARTS = ("arguments", "temporaries", "code")
_WIDTH = 44


def text(report: dict[str, Any]) -> str:
    """For a person: whether it fits, what it sends, and how long a step is estimated to take, with by whom and how."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in report["mesh"].items())
    lines = [
        f"{report['topology']}: {report['chips']:,} chips, mesh {mesh}; {report['rows_per_chip']:,} rows a chip"
        f" at a time, {report['accumulate']} times a step; remat {report['remat']}",
        f"compiled in {report['compile_seconds']:.0f} s: {'fits' if report['fits'] else 'DOES NOT FIT'}",
        "",
        "bytes of each chip, by the compiler",
    ]
    indented = ("parameters", "optimizer")  # which are arguments
    for name, value in report["bytes_per_chip"].items():
        shown = "not known" if value is None else f"{value / 1e9:,.3f} GB"
        lines.append(f"  {'  ' * (name in indented) + name:<{_WIDTH}}{shown:>14}")
    lines += ["", "exchanges of a step, by the compiler"]
    for kind, sums in report["collectives"].items():
        split = f"{sums['split']} of them beside other work" if sums["split"] else "none of them beside other work"
        lines.append(f"  {kind:<{_WIDTH}}{sums['bytes'] / 1e9:>11,.3f} GB   {sums['count']:,}, {split}")
    if not report["collectives"]:
        lines.append("  none" if report["estimated"] else f"  not known: {report['refused']}")
    lines += ["", f"model FLOPs of a step{report['flops_per_step']:>{_WIDTH - 4}.3g}"]
    return "\n".join([*lines, *(_estimated(report) if report["estimated"] else [])])


def _estimated(report: dict[str, Any]) -> list[str]:
    found = report["estimated"]
    seconds = found["step_seconds"]
    rate = report["tokens_per_step"] / seconds
    lines = [
        f"estimated, by {found['by']}: {1000 * seconds:,.1f} ms a step, MFU {found['mfu']:.1%}, {rate:,.0f} tokens"
        " a second, if every row is full",
        f"  exchanges take {1000 * found['exchange_seconds']:,.1f} ms, of which other work covers all but"
        f" {1000 * found['exposed_seconds']:,.1f} ms",
        "",
    ]
    width = max(_WIDTH, *(len(name) for name in found["operations"]))
    for name, value in found["operations"].items():
        lines.append(f"  {name:<{width}}{1000 * value:>11,.2f} ms{value / seconds:>8.1%}")
    return [*lines, "", "this assumes", *(f"  {line}" for line in found["assumptions"])]


def tried(lines: list[dict[str, Any]], flags: list[str]) -> str:
    """What a search tried, for a person, and what it suggests."""
    shown = ["tried, each with what is best of what stands above it"]
    for line in lines:
        change = ", ".join(f"{s}.{n} = {v}" for s, values in line["change"].items() for n, v in values.items())
        total = "" if line["total"] is None else f"{line['total'] / 1e9:,.2f} GB"
        seconds = "does not fit" if line["step_seconds"] is None else f"{1000 * line['step_seconds']:,.1f} ms"
        why = f"   {line['refused']}" if "refused" in line else ""
        shown.append(f"  {change or 'the config as it is':<60}{total:>12}{seconds:>16}{why}")
    return "\n".join(
        [*shown, "", f"least estimated time of those that fit: {' '.join(flags) or 'the config as it is'}"]
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars: the memory of a chip, the exchanges by kind, the time by operation; in the format of the file's ending."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    operations = report["estimated"]["operations"] if report["estimated"] else {}
    figure = Figure(figsize=(12.0, max(3.5, 0.28 * len(operations) + 1.2)), layout="constrained")
    memory, sent, time = figure.subplots(1, 3, width_ratios=(1, 1, 3))
    sizes, below = report["bytes_per_chip"], 0.0
    for part in _PARTS:
        value = (sizes[part] or 0) / 1e9
        memory.bar(["a chip"], [value], bottom=below, label=part)
        below += value
    memory.axhline(sizes["capacity"] / 1e9, color="black", linestyle="--", label="capacity")
    memory.set(ylabel="GB, by the compiler", title="fits" if report["fits"] else "does not fit")
    memory.legend(fontsize=8)
    kinds = report["collectives"]
    sent.bar(list(kinds), [sums["bytes"] / 1e9 for sums in kinds.values()])
    sent.set(ylabel="GB of a step and chip", title="exchanges")
    sent.tick_params(axis="x", rotation=30, labelsize=8)
    time.barh(list(operations), [1000 * value for value in operations.values()])
    time.invert_yaxis()
    time.tick_params(axis="y", labelsize=8)
    if report["estimated"]:
        found = report["estimated"]
        title = f"{1000 * found['step_seconds']:,.1f} ms a step, MFU {found['mfu']:.1%}"
        time.set(xlabel=f"ms, estimated by {found['by']}", title=title)
    figure.suptitle(f"{report['topology']}: {report['chips']:,} chips")
    figure.savefig(path, dpi=110)
