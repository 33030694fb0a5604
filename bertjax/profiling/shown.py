"""The table of the time of a step as text and as a picture."""

from pathlib import Path
from typing import Any

from bertjax.ahead.operations import KINDS


def text(report: dict[str, Any]) -> str:
    """For a person: how long a step took and by whom that is known; the time by kind, by part, and by operation."""
    seconds = report["step_seconds"]
    where = f"{report['devices']:,} x {report['device']}" if report["steps"] else report["device"]
    lines = [f"{where}: {_ms(seconds)} a step, {_by(report)}"]
    if report["steps"]:
        lines.append(f"without the trace {_ms(report['untraced_seconds'])}, the mean of as many steps")
        lines.append(
            f"operations are at work in {report['covered']:.1%} of the time, {report['at_once']:.2f} at once; a moment"
            " is divided among those at work in it"
        )
        lines += ["of several devices, the mean"] * (report["devices"] > 1)
    for name in ("kinds", "parts"):
        lines += ["", f"{'by ' + name.removesuffix('s'):<24}{'ms a step':>12}{'share':>9}{'executed':>10}"]
        for what, sums in report[name].items():
            row = f"  {what:<22}{1000 * sums['seconds']:>12,.2f}{sums['share']:>9.1%}{sums['times']:>10,.0f}"
            lines.append(f"{row}  {KINDS[what]}" if name == "kinds" else row)
        if report["steps"]:
            rest = 1.0 - report["covered"]
            lines.append(f"  {'no operation at work':<22}{1000 * rest * seconds:>12,.2f}{rest:>9.1%}")
    lines += ["", f"{'by operation':<24}{'ms a step':>12}{'share':>9}{'executed':>10}"]
    for one in report["operations"]:
        lines.append(
            f"  {one['kind']:<22}{1000 * one['seconds']:>12,.2f}{one['share']:>9.1%}{one['times']:>10,.0f}"
            f"  {one['place']} ({one['name']})"
        )
    if report["others"]["count"]:
        others = report["others"]
        lines.append(
            f"  {others['count']:,} others{'':<{15 - len(format(others['count'], ','))}}"
            f"{1000 * others['seconds']:>12,.2f}{others['share']:>9.1%}"
        )
    if report["assumptions"]:
        lines += ["", "this assumes", *(f"  {line}" for line in report["assumptions"])]
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars: the time by kind, by part, and by operation; in the format of the file's ending."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    figure = Figure(figsize=(14.0, 7.0), layout="constrained")
    kinds, parts, operations = figure.subplots(1, 3, width_ratios=(1, 1, 2))
    for axes, name in ((kinds, "kinds"), (parts, "parts")):
        axes.barh(list(report[name]), [1000 * sums["seconds"] for sums in report[name].values()])
        axes.set(title=f"by {name.removesuffix('s')}")
    longest = report["operations"]
    axes = operations
    axes.barh(range(len(longest)), [1000 * one["seconds"] for one in longest])
    axes.set_yticks(range(len(longest)), [f"{one['place']} ({one['name']})" for one in longest])
    axes.set(title="by operation")
    for axes in (kinds, parts, operations):
        axes.invert_yaxis()
        axes.set(xlabel="ms a step")
        axes.tick_params(axis="y", labelsize=8)
    figure.suptitle(f"{report['device']}: {_ms(report['step_seconds'])} a step, {_by(report)}")
    figure.savefig(path, dpi=110)


def _by(report: dict[str, Any]) -> str:
    """By whom it is known."""
    if report["steps"]:
        return f"{report['steps']:,} of them traced by {report['by']}"
    return f"estimated by {report['by']}; nothing was run"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms"
