"""Figures from stored runs, and from nothing else.

python experiments/figures.py [--runs DIR ...] [--out DIR] [--only figure3,summary]
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from experiments.intervals import band, mean_interval, paired_interval
from experiments.results import Group, groups, stored_runs
from forgetting.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
WIDTH = 7.0  # inches: the text width of a two-column paper
SEQUENTIAL_ARMS = {
    "vanilla": "vanilla classifier",
    "rotation": "with rotation loss",
    "augment": "control: rotated images, no rotation loss",
}
COLOURS = dict(zip(SEQUENTIAL_ARMS, sns.color_palette("colorblind"), strict=False))
MEASURES = {
    "first_cycle": "mean accuracy,\nfirst cycle",
    "last_cycle": "mean accuracy,\nlast cycle",
    "cycle_gain": "last cycle\nminus first",
    "recovery": "recovery: first\n100 iterations",
    "switch_fall": "fall at\na switch",
    "probe_end": "linear probe\nat the end",
    "average_accuracy/cycle_1": "average accuracy,\ncycle 1",
    "forgetting/cycle_1": "forgetting,\ncycle 1",
    "backward_transfer/cycle_1": "backward\ntransfer, cycle 1",
    "forward_transfer/cycle_1": "forward\ntransfer, cycle 1",
}


def style() -> None:
    """One look for all figures, legible at a paper's column width."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=0.9)
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "text.parse_math": False,  # a folder's name may hold a $
            "figure.constrained_layout.use": True,
        }
    )


def seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def empty(reason: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = plt.figure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center")
    return figure


def figure3(found: Sequence[Group]) -> Figure:
    """Accuracy on the current task over iterations: Figure 3 of Chen et al., arXiv 1811.11212."""
    if not found:
        return empty("Figure 3: no completed run of sequential_tasks")
    panels = {group: shown_arms(group) for group in found}
    columns = max(len(arms) for arms in panels.values())
    figure = plt.figure(figsize=(WIDTH, 2.3 * len(found)))
    for part, group in zip(figure.subfigures(len(found), squeeze=False)[:, 0], found, strict=True):
        part.suptitle(
            f"{group.title}; mean over seeds, 95 % t band", fontsize="small", x=0.01, ha="left"
        )
        axes = part.subplots(1, columns, sharey=True)
        arms = panels[group]
        for axis, arm, letter in zip(axes, arms, "abc", strict=False):
            draw_current_accuracy(axis, group, arm)
            n = len(group.of_arm(arm))
            axis.set_title(f"({letter}) {SEQUENTIAL_ARMS[arm]}, {seeds(n)}", fontsize="small")
        for axis in axes[len(arms) :]:
            axis.set_visible(False)
        axes[0].set_ylabel("balanced test accuracy,\ncurrent task")
    return figure


def shown_arms(group: Group) -> list[str]:
    """The paper's two panels always, the control's where there are runs of it."""
    return [arm for arm in SEQUENTIAL_ARMS if arm in group.arms() or arm != "augment"]


def draw_current_accuracy(axis, group: Group, arm: str) -> None:
    config = group.runs[0].config
    tasks = len(group.runs[0].info["data"]["classes"])
    per_cycle = tasks * config["iterations_per_task"]
    total = config["cycles"] * per_cycle
    for switch in range(0, total + 1, config["iterations_per_task"]):
        axis.axvline(switch, color="0.9", linewidth=0.5, zorder=0)
    for end in range(per_cycle, total, per_cycle):
        axis.axvline(end, color="0.3", linestyle="--", linewidth=1)
    axis.axhline(0.5, color="0.6", linestyle=":", linewidth=0.8)
    axis.set(xlabel="iterations", xlim=(0, total), ylim=(0, 1))
    runs = group.of_arm(arm)
    if not runs:
        axis.text(0.5, 0.5, "no run of this arm", transform=axis.transAxes, ha="center")
        return
    steps = runs[0].metrics["accuracy/current"][0]
    mean, low, high = band(np.stack([run.metrics["accuracy/current"][1] for run in runs]))
    axis.plot(steps, mean, color=COLOURS[arm], linewidth=0.9)
    axis.fill_between(steps, low, high, color=COLOURS[arm], alpha=0.3, linewidth=0)
    cycles = [np.mean([run.result[k] for run in runs]) for k in ("first_cycle", "last_cycle")]
    middles = (per_cycle / 2, total - per_cycle / 2)
    for x, value in list(zip(middles, cycles, strict=True))[: config["cycles"]]:
        axis.text(x, 0.04, f"mean {value:.3f}", ha="center", fontsize="small")


def accuracy_matrix(found: Sequence[Group]) -> Figure:
    """Accuracy on every task over time, mean over seeds."""
    if not found:
        return empty("accuracy matrix: no completed run of sequential_tasks")
    columns = max(len(group.arms()) for group in found)
    figure = plt.figure(figsize=(WIDTH, 2.5 * len(found)))
    for part, group in zip(figure.subfigures(len(found), squeeze=False)[:, 0], found, strict=True):
        head = group.runs[0].config["head"]
        part.suptitle(f"{group.title}; {head} head", fontsize="small", x=0.01, ha="left")
        axes = part.subplots(1, columns, sharey=True, squeeze=False)[0]
        classes = group.runs[0].info["data"]["classes"]
        mesh = None
        arms = [arm for arm in SEQUENTIAL_ARMS if arm in group.arms()]
        for axis, arm in zip(axes, arms, strict=False):
            runs = group.of_arm(arm)
            steps = runs[0].metrics["accuracy/task_0"][0]
            values = np.stack(
                [
                    np.mean([run.metrics[f"accuracy/task_{task}"][1] for run in runs], axis=0)
                    for task in range(len(classes))
                ]
            )
            # A value holds from its evaluation to the next.
            edges = np.append(steps, 2 * steps[-1] - steps[-2])
            mesh = axis.pcolormesh(
                edges,
                np.arange(len(classes) + 1),
                values,
                cmap="RdBu",
                vmin=0,
                vmax=1,
                rasterized=True,
            )
            axis.set(xlabel="iterations", xlim=(0, steps[-1]), ylim=(len(classes), 0))
            axis.set_yticks(np.arange(len(classes)) + 0.5, classes)
            axis.set_title(f"{arm}, {seeds(len(runs))}", fontsize="small")
        for axis in axes[len(arms) :]:
            axis.set_visible(False)
        axes[0].set_ylabel("task: class against all")
        part.colorbar(mesh, ax=axes, label="balanced accuracy\n(0.5 is chance)")
    return figure


def summary(found: Sequence[Group]) -> Figure:
    """The measures with 95 % t intervals, by arm; below each, rotation minus vanilla by seed."""
    if not found:
        return empty("summary: no completed run of sequential_tasks")
    figure = plt.figure(figsize=(WIDTH, 2.6 * len(found)))
    for part, group in zip(figure.subfigures(len(found), squeeze=False)[:, 0], found, strict=True):
        part.suptitle(
            f"{group.title}; mean over seeds, 95 % t interval", fontsize="small", x=0.01, ha="left"
        )
        measures = [m for m in MEASURES if m in group.runs[0].result]
        axes = part.subplots(1, len(measures), squeeze=False)[0]
        arms = [arm for arm in SEQUENTIAL_ARMS if arm in group.arms()]
        for axis, measure in zip(axes, measures, strict=True):
            draw_measure(axis, group, arms, measure)
    return figure


def draw_measure(axis, group: Group, arms: Sequence[str], measure: str) -> None:
    for x, arm in enumerate(arms):
        values = [run.result[measure] for run in group.of_arm(arm)]
        interval = mean_interval(values)
        axis.plot([x] * len(values), values, ".", color="0.7", markersize=3, zorder=1)
        error = None if interval.n < 2 else [[interval.mean - interval.low]] * 2
        axis.errorbar(x, interval.mean, error, fmt="o", color=COLOURS[arm], markersize=4, capsize=2)
    axis.set_xticks(range(len(arms)), arms, rotation=90)
    axis.set_xlim(-0.6, len(arms) - 0.4)
    axis.set_title(MEASURES[measure], fontsize="x-small")
    axis.tick_params(labelsize="x-small")
    axis.locator_params(axis="y", nbins=5)
    by_seed = {
        arm: {run.seed: run.result[measure] for run in group.of_arm(arm)}
        for arm in ("vanilla", "rotation")
    }
    difference = paired_interval(by_seed["rotation"], by_seed["vanilla"])
    if difference:
        text = f"{difference.mean:+.3f}"
        if difference.n > 1:
            text += f"\n[{difference.low:+.3f}, {difference.high:+.3f}]"
        axis.set_xlabel(f"rotation - vanilla\n{text}", fontsize="xx-small")


FIGURES: dict[str, tuple[str, Callable[[Sequence[Group]], Figure]]] = {
    "figure3": ("sequential_tasks", figure3),
    "accuracy_matrix": ("sequential_tasks", accuracy_matrix),
    "summary": ("sequential_tasks", summary),
}


def draw(folders: Sequence[str | Path], out: str | Path, only: Sequence[str] = ()) -> list[Path]:
    """Write the figures as PNG and PDF into `out`; the PNGs' paths."""
    style()
    runs = stored_runs(*folders)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot write to {out}: {error.strerror}") from None
    written = []
    for name in only or FIGURES:
        study, function = FIGURES[name]
        figure = function(groups(runs, study))
        for suffix in ("png", "pdf"):
            # No date inside: the same runs draw the same file.
            figure.savefig(
                out / f"{name}.{suffix}", metadata={} if suffix == "png" else {"CreationDate": None}
            )
        plt.close(figure)
        written.append(out / f"{name}.png")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the figures from stored runs.")
    default = [PROJECT / "results/runs", PROJECT / "results/reference"]
    parser.add_argument("--runs", action="append", metavar="DIR", help="a folder of Sacred runs")
    parser.add_argument("--out", default=PROJECT / "results/figures", metavar="DIR")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(FIGURES))
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    try:
        for name in only:
            if name not in FIGURES:
                raise UserError(f"--only: no figure {name!r}; there are {', '.join(FIGURES)}")
        for folder in options.runs or []:
            if not Path(folder).is_dir():
                raise UserError(f"--runs: there is no folder {folder}")
        for path in draw(options.runs or default, options.out, only):
            print(os.path.relpath(path))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
