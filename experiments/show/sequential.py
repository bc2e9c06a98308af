"""Figures of the sequential-tasks study."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from experiments.show.groups import Group
from experiments.show.intervals import mean_interval, paired_interval
from experiments.show.plotting import draw_curve, panels, rows, seeds

ARMS = {
    "vanilla": "vanilla classifier",
    "rotation": "with rotation loss",
    "augment": "control: rotated, no rotation loss",
}
COLOURS = dict(zip(ARMS, sns.color_palette("colorblind"), strict=False))
MEASURES = {
    "first_cycle": "mean accuracy,\nfirst cycle",
    "last_cycle": "mean accuracy,\nlast cycle",
    "cycle_gain": "last cycle\nminus first",
    "recovery": "recovery: first\n100 iterations",
    "switch_fall": "fall at\na switch",
    "probe_end": "linear probe\nat the end",
    "probe_gain": "linear probe,\nlast cycle\nminus first",
}
# Of the continual-learning literature, for a head a task.
TRANSFER_MEASURES = {
    f"{measure}/cycle_{cycle}": f"{words},\ncycle {cycle}"
    for cycle in (1, 2)
    for measure, words in (
        ("average_accuracy", "average acc."),
        ("forgetting", "forgetting"),
        ("backward_transfer", "backward tr."),
        ("forward_transfer", "forward tr."),
    )
}


def figure3(found: Sequence[Group]) -> Figure:
    """Accuracy on the current task over iterations: Figure 3 of Chen et al., arXiv 1811.11212.

    The paper's two panels always; the control's where there are runs of it.
    """

    def draw(part, group):
        arms = [arm for arm in ARMS if arm in group.arms() or arm != "augment"]
        axes = panels(part, len(arms), sharey=True)
        for axis, arm, letter in zip(axes, arms, "abc", strict=False):
            draw_current_accuracy(axis, group, arm)
            title = f"({letter}) {ARMS[arm]}, {seeds(len(group.of_arm(arm)))}"
            axis.set_title(title, fontsize="x-small" if len(arms) > 2 else "small")
        axes[0].set_ylabel("balanced test accuracy,\ncurrent task")

    return rows(found, "Figure 3, sequential tasks", 2.3, draw, "mean over seeds, 95 % t band")


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
    axis.locator_params(axis="x", nbins=4)
    runs = group.of_arm(arm)
    if not runs:
        axis.text(0.5, 0.6, "no run of this arm", transform=axis.transAxes, ha="center")
        return
    draw_curve(axis, runs, "accuracy/current", color=COLOURS[arm], linewidth=0.9)
    cycles = [np.mean([run.result[k] for run in runs]) for k in ("first_cycle", "last_cycle")]
    middles = (per_cycle / 2, total - per_cycle / 2)
    for x, value in list(zip(middles, cycles, strict=True))[: config["cycles"]]:
        axis.text(x, 0.04, f"mean {value:.3f}", ha="center", fontsize="small")


def representation(found: Sequence[Group]) -> Figure:
    """Accuracy of a linear probe of the frozen features at each task's end: what they hold."""

    def draw(part, group):
        (axis,) = panels(part, 1)
        config = group.runs[0].config
        tasks = len(group.runs[0].info["data"]["classes"])
        for cycle in range(1, config["cycles"]):
            end = cycle * tasks * config["iterations_per_task"]
            axis.axvline(end, color="0.3", linestyle="--", linewidth=1)
        for arm in (arm for arm in ARMS if arm in group.arms()):
            runs = group.of_arm(arm)
            label = f"{ARMS[arm]}, {seeds(len(runs))}"
            draw_curve(
                axis, runs, "probe/final", label=label, color=COLOURS[arm], marker=".", linewidth=1
            )
        axis.set(xlabel="iterations", ylabel=f"linear probe,\ntest accuracy, {tasks} classes")
        axis.legend(frameon=False, fontsize="x-small")

    shows = "mean over seeds, 95 % t band"
    return rows(found, "representation, sequential tasks", 2.4, draw, shows)


def accuracy_matrix(found: Sequence[Group]) -> Figure:
    """Accuracy on every task over time, mean over seeds."""

    def draw(part, group):
        classes = group.runs[0].info["data"]["classes"]
        arms = [arm for arm in ARMS if arm in group.arms()]
        axes = panels(part, len(arms), sharey=True)
        for axis, arm in zip(axes, arms, strict=True):
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
            lines = np.arange(len(classes) + 1)
            mesh = axis.pcolormesh(
                edges, lines, values, cmap="RdBu", vmin=0, vmax=1, rasterized=True
            )
            axis.set(xlabel="iterations", xlim=(0, steps[-1]), ylim=(len(classes), 0))
            axis.set_yticks(np.arange(len(classes)) + 0.5, classes)
            axis.set_title(f"{arm}, {seeds(len(runs))}", fontsize="small")
            axis.locator_params(axis="x", nbins=3)
        axes[0].set_ylabel(f"class against all\n({group.runs[0].config['head']} head)")
        part.colorbar(mesh, ax=axes, label="balanced accuracy\n(0.5 is chance)")

    return rows(found, "accuracy matrix, sequential tasks", 2.5, draw, "mean over seeds")


def summary(found: Sequence[Group]) -> Figure:
    """The measures with 95 % t intervals, by arm; below each, rotation minus vanilla by seed."""
    return measures_of(found, MEASURES, "summary, sequential tasks")


def forgetting(found: Sequence[Group]) -> Figure:
    """The literature's measures likewise, for runs with a head a task: with a shared head the
    labels change their meaning, and what falls is not forgotten."""
    return measures_of(found, TRANSFER_MEASURES, "forgetting, sequential tasks with head=per_task")


def head_a_task(found: Sequence[Group]) -> list[Group]:
    return [group for group in found if group.runs[0].config["head"] == "per_task"]


def measures_of(found: Sequence[Group], measures: dict[str, str], what: str) -> Figure:
    def draw(part, group):
        logged = {m: words for m, words in measures.items() if m in group.runs[0].result}
        arms = [arm for arm in ARMS if arm in group.arms()]
        for axis, (measure, words) in zip(panels(part, len(logged)), logged.items(), strict=True):
            draw_measure(axis, group, arms, measure)
            axis.set_title(words, fontsize="x-small")

    return rows(found, what, 2.6, draw, "mean over seeds, 95 % t interval")


def draw_measure(axis, group: Group, arms: Sequence[str], measure: str) -> None:
    for x, arm in enumerate(arms):
        values = [run.result[measure] for run in group.of_arm(arm)]
        interval = mean_interval(values)
        axis.plot([x] * len(values), values, ".", color="0.7", markersize=3, zorder=1)
        error = None if interval.n < 2 else [[interval.mean - interval.low]] * 2
        axis.errorbar(x, interval.mean, error, fmt="o", color=COLOURS[arm], markersize=4, capsize=2)
    axis.set_xticks(range(len(arms)), arms, rotation=90)
    axis.set_xlim(-0.6, len(arms) - 0.4)
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
