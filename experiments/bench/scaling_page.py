"""What scaling.py's results look like: lines of a table, a plot an axis, the part of REPORT.md."""

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import pages
from experiments.bench import table, tasks
from vaegan_jax import plots

COLOURS = ("#2563a8", "#e08a1e", "#d1495b", "#3a8f6b", "#7d5ba6")  # of tasks.TASKS
FOLDER = table.RESULTS / "scaling"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Axis:
    """panels: (label, whether steps per second are multiplied by the axis's value)."""

    title: str
    label: str
    panels: tuple[tuple[str, bool], ...] = (("steps per second", False),)


AXES = {
    "batch": Axis("Batch size", "examples a batch", (("steps per second", False), ("examples per second", True))),
    "image": Axis("Image size, batch of 64", "pixels a side"),
    "seeds": Axis("Seeds side by side", "seeds", (("steps per second, all seeds together", True),)),
    "data": Axis("Data set size", "examples in the data set"),
    "devices": Axis("Devices that share a batch", "forced host devices"),
}


def title(name: str) -> str:
    return tasks.TASKS[name].title.removesuffix(" 28x28")


def lines(axis: str, rows: Sequence[Row]) -> list[list[str]]:
    """A line a point, for table.text."""
    extra = [label for label, times in AXES[axis].panels if times]
    talk = ["GFLOP a device", "collectives a step, of how many arrays"] if axis == "devices" else []
    found = [["", AXES[axis].label, "steps/s: median (range)", *extra, *talk]]
    for row in rows:
        if row["skipped"]:
            cells = [f"not run: {row['skipped']}", *["-"] * (len(extra) + len(talk))]
        else:
            cells = [table.spread(row["turns"], 1), *[_rate(row["at"] * row["steps_per_second"]) for _ in extra]]
            cells += [f"{row['gflop_a_device']:.3g}", _talk(row["collectives"])] if talk else []
        found.append([row["curve"], f"{row['at']:,}", *cells])
    return found


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _talk(found: Sequence[Row]) -> str:
    """`5 all-reduce of 13 with gradients (6.6 million values), 50 all-reduce of 2`"""
    counts: Counter[tuple[str, int, str]] = Counter()
    for c in found:
        kinds = f" with gradients ({_count(c['values'])} values)" if c["gradients"] else ""
        counts[c["kind"], c["operands"], kinds] += c["times"]
    return ", ".join(f"{n} {kind} of {arrays}{kinds}" for (kind, arrays, kinds), n in counts.items()) or "none"


def _count(n: int) -> str:
    return f"{n / 1e6:.1f} million" if n >= 1e6 else f"{n:,}"


def draw(axis: str, rows: Sequence[Row], device: str, path: Path) -> None:
    """The axis's panels side by side: a curve's medians, and its range over the turns as a band."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    chosen, colours = AXES[axis], dict(zip(map(title, tasks.TASKS), COLOURS, strict=True))
    figure = plots.new_figure(5.6 if len(chosen.panels) == 1 else 9.6, 4.0)
    turns = max((len(row["turns"]) for row in rows if not row["skipped"]), default=0)
    heading = f"{chosen.title}: median and range of {turns} turns\n{device}"
    figure.suptitle(heading, fontsize=9, x=0.02, ha="left", linespacing=1.4)
    places = sorted({row["at"] for row in rows})
    curves = list(dict.fromkeys(row["curve"] for row in rows))
    panels = figure.subplots(1, len(chosen.panels), squeeze=False)[0]
    for panel, (label, times) in zip(panels, chosen.panels, strict=True):
        for curve in curves:
            colour = colours.get(curve, "0.4")
            own = [row for row in rows if row["curve"] == curve and not row["skipped"]]
            at = [row["at"] for row in own]
            scale = np.array(at if times else [1] * len(at), float)
            low, middle, high = (scale * [f(row["turns"]) for row in own] for f in (min, statistics.median, max))
            panel.plot(at, middle, color=colour, marker="o", markersize=4, linewidth=1.5, label=curve)
            panel.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set(xscale="log", xlabel=chosen.label, ylabel=label, xlim=(places[0] / 1.2, places[-1] * 1.2))
        panel.set_xticks(places, [f"{n:,}" for n in places])
        panel.xaxis.set_minor_locator(NullLocator())
        if axis == "data":
            panel.set_ylim(bottom=0)  # flat or not is seen from zero
        else:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plots.thousands(value)))
        plots.clean(panel)
    left_out = {c: [f"{r['at']:,}" for r in rows if r["curve"] == c and r["skipped"]] for c in curves}
    note = "; ".join(f"{curve} at {', '.join(at)}" for curve, at in left_out.items() if at)
    style: dict[str, Any] = {"frameon": False, "fontsize": 8, "columnspacing": 1.2, "ncols": min(3, len(curves))}
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", **style)
    legend.set_title(f"not run: {note}" if note else None, {"size": 8})
    legend.get_title().set_color("0.4")
    plots.render(figure, path)


def page(folder: Path = FOLDER) -> str:
    """What REPORT.md says: of every machine whether cost is flat in the data, what devices say, and the plots."""
    parts = []
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        where = folder.resolve().relative_to(pages.BENCH.parent).as_posix()
        found = result["runs"]
        for run in dict.fromkeys(found.values()):
            own = [axis for axis in AXES if found.get(axis) == run]
            parts.append(run)
            if "data" in own and result["flat"]:
                parts.append(result["flat"]["text"])
            if "devices" in own:
                parts.append(table.markdown(lines("devices", result["axes"]["devices"])))
            parts += [f"![{AXES[axis].title}]({where}/{file.stem}-{axis}.png)" for axis in own]
    return "\n\n".join(parts)
