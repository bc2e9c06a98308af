"""Figures of the sequential-tasks study."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase

import numpy as np
from matplotlib.figure import Figure

from experiments.show.arms import (
    arms_of,
    baseline,
    colour_of,
    defaults,
    in_order,
    is_of_user,
    words,
    wrapped,
)
from experiments.show.compare import by_learner, difference, measures_of
from experiments.show.groups import Group
from experiments.show.intervals import by_unit, mean_interval
from experiments.show.plotting import (
    PER_LINE,
    completed,
    draw_arm,
    draw_curve,
    keep,
    label,
    leftmost,
    legend,
    lines,
    panels,
    progress,
    rows,
    unfinished,
    units,
)
from experiments.show.references import SUPERVISED
from experiments.show.texts import shown
from forgetting.measures import TASKS, TRANSFER, meets_fakes

STUDY = "sequential_tasks"
MEASURES_A_LINE = 7  # of few arms; of more, as many as panels of curves


def figure3(found: Sequence[Group]) -> Figure:
    """Accuracy on the current task over iterations: Figure 3 of Chen et al., arXiv 1811.11212.

    The paper's two panels always, those of other arms where there are runs of them.
    """

    def draw(part, group):
        arms = with_defaults(group)
        across = lines(len(arms), lines(len(arms)))
        axes = panels(part, len(arms), sharey=True)
        for i, (axis, arm) in enumerate(zip(axes, arms, strict=True)):
            draw_current_accuracy(axis, group, arm)
            name = wrapped(words(STUDY, arm), 140 // across)
            letter = ascii_lowercase[i % len(ascii_lowercase)]
            runs = group.of_arm(arm)
            count = units(whole) if (whole := completed(runs)) else "none complete"
            title = f"({letter}) {name}, {count if runs else 'no run'}"
            axis.set_title(title, fontsize="x-small" if across > 2 else "small")
        for axis in leftmost(axes):
            axis.set_ylabel("balanced test accuracy,\ncurrent task")

    shows = "mean over seeds, 95 % t band"
    return rows(
        found, "Figure 3, sequential tasks", 2.3, draw, shows, lambda g: len(with_defaults(g))
    )


def with_defaults(group: Group) -> list[str]:
    """The group's arms and the default ones, of which there may be no run."""
    return in_order(STUDY, {*group.arms(), *defaults(STUDY)})


def draw_current_accuracy(axis, group: Group, arm: str) -> None:
    config = group.runs[0].config
    per_cycle, total = mark_tasks(axis, config, len(group.runs[0].info["data"]["classes"]))
    axis.set_ylim(0, 1)
    axis.locator_params(axis="x", nbins=4)
    runs = group.of_arm(arm)
    if not runs:
        axis.text(0.5, 0.6, "no run of this arm", transform=axis.transAxes, ha="center")
        return
    whole, line = completed(runs), {"color": colour_of(arm), "linewidth": 0.9}
    draw_curve(axis, whole, "accuracy/current", **line)
    for run in unfinished(runs):
        draw_curve(axis, [run], "accuracy/current", label=progress(run), **line)
        axis.legend(frameon=False, fontsize="x-small", loc="lower right", bbox_to_anchor=(1, 0.1))
    if not whole:
        return
    at = {"first_cycle": per_cycle / 2, "last_cycle": total - per_cycle / 2}
    for name, x in list(at.items())[: config["cycles"]]:
        of_runs = [run.result[name] for run in whole if name in run.result]
        if not of_runs:
            continue  # where little was evaluated there is none
        value = np.mean(of_runs)
        axis.text(x, 0.04, f"mean {value:.3f}", ha="center", fontsize="small")


def mark_tasks(axis, config: Mapping, tasks: int) -> tuple[int, int]:
    """Lines at the switches of the task, at a cycle's end and at chance; how many iterations a
    cycle has, and the run."""
    per_cycle = tasks * config["iterations_per_task"]
    total = config["cycles"] * per_cycle
    for switch in range(0, total + 1, config["iterations_per_task"]):
        axis.axvline(switch, color="0.9", linewidth=0.5, zorder=0)
    for end in range(per_cycle, total, per_cycle):
        axis.axvline(end, color="0.3", linestyle="--", linewidth=1)
    axis.axhline(0.5, color="0.6", linestyle=":", linewidth=0.8)
    axis.set(xlabel="iterations", xlim=(0, total))
    return per_cycle, total


def representation(found: Sequence[Group]) -> Figure:
    """Accuracy of a linear probe of the frozen features at each task's end: what they hold."""

    def draw(part, group):
        (axis,) = panels(part, 1)
        config = group.runs[0].config
        tasks = len(group.runs[0].info["data"]["classes"])
        for cycle in range(1, config["cycles"]):
            end = cycle * tasks * config["iterations_per_task"]
            axis.axvline(end, color="0.3", linestyle="--", linewidth=1)
        for arm in arms_of(group):
            runs = group.of_arm(arm)
            line = {"color": colour_of(arm), "marker": ".", "linewidth": 1}
            draw_arm(axis, runs, "probe/final", 40, **line)
        axis.set(xlabel="iterations", ylabel=f"linear probe,\ntest accuracy, {tasks} classes")
        legend(axis, len(group.arms()))

    shows = "mean over seeds, 95 % t band"
    return rows(found, "representation, sequential tasks", 2.4, draw, shows)


def accuracy_matrix(found: Sequence[Group]) -> Figure:
    """Accuracy on every task over time, mean over seeds."""

    def draw(part, group):
        classes = group.runs[0].info["data"]["classes"]
        axes = panels(part, len(group.arms()), sharey=True)
        for axis, arm in zip(axes, arms_of(group), strict=True):
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
            tasks = np.arange(len(classes) + 1)
            mesh = axis.pcolormesh(
                edges, tasks, values, cmap="RdBu", vmin=0, vmax=1, rasterized=True
            )
            axis.set(xlabel="iterations", xlim=(0, steps[-1]), ylim=(len(classes), 0))
            axis.set_yticks(np.arange(len(classes)) + 0.5, classes)
            axis.set_title(label(runs, 24), fontsize="small")
            axis.locator_params(axis="x", nbins=3)
        for axis in leftmost(axes):
            axis.set_ylabel(f"class against all\n({group.runs[0].config['head']} head)")
        part.colorbar(mesh, ax=axes, label="balanced accuracy\n(0.5 is chance)")

    what, shows = "accuracy matrix, sequential tasks", "mean over seeds"
    return rows(found, what, 2.5, draw, shows, lambda group: len(group.arms()))


def summary(found: Sequence[Group]) -> Figure:
    """The measures with 95 % t intervals, by arm; below each, a difference by seed."""
    return figure_of_measures(found, TASKS, "summary, sequential tasks")


def forgetting(found: Sequence[Group]) -> Figure:
    """The literature's measures likewise, for runs with a head a task: with a shared head the
    labels change their meaning, and what falls is not forgotten."""
    return figure_of_measures(found, TRANSFER, "forgetting, sequential tasks with head=per_task")


def head_a_task(found: Sequence[Group]) -> list[Group]:
    return keep(found, lambda run: run.config["head"] == "per_task")


def one_vs_all(found: Sequence[Group]) -> list[Group]:
    return keep(found, lambda run: not meets_fakes(run.config) and run.arm != SUPERVISED)


def probed(found: Sequence[Group]) -> list[Group]:
    return keep(found, lambda run: "probe/final" in run.metrics)


def figure_of_measures(found: Sequence[Group], subject: str, what: str) -> Figure:
    def in_line(group: Group) -> int:
        return MEASURES_A_LINE if len(group.arms()) <= PER_LINE else PER_LINE

    def draw(part, group):
        shown = measures_of(group.runs, subject)
        axes = panels(part, len(shown), in_line(group))
        for axis, measure in zip(axes, shown, strict=True):
            draw_measure(axis, group, measure.name)
            axis.set_title(wrapped(measure.words, 15), fontsize="x-small")

    def count(group: Group) -> int:
        """Panels as wide as those of curves."""
        return lines(len(measures_of(group.runs, subject)), in_line(group)) * PER_LINE

    return rows(found, what, 2.6, draw, "mean over seeds, 95 % t interval", count)


def draw_measure(axis, group: Group, measure: str) -> None:
    arms = arms_of(group)
    for x, arm in enumerate(arms):
        values = by_unit(by_learner(group.of_arm(arm), measure))
        if not values:
            continue
        interval = mean_interval(values)
        axis.plot([x] * len(values), values, ".", color="0.7", markersize=3, zorder=1)
        colour, bar = colour_of(arm), interval.error
        axis.errorbar(x, interval.mean, bar, fmt="o", color=colour, markersize=4, capsize=2)
    axis.set_xticks(range(len(arms)), [wrapped(arm, 20) for arm in arms], rotation=90)
    axis.set_xlim(-0.6, len(arms) - 0.4)
    axis.tick_params(labelsize="x-small")
    axis.locator_params(axis="y", nbins=5)
    first = baseline(STUDY)
    own = filter(is_of_user, arms)
    others = [arm for arm in (*own, *defaults(STUDY), *arms) if arm in arms and arm != first]
    for other in others:
        if apart := difference(group, other, first, measure):
            text = shown(apart, "+").replace(" [", "\n[")
            axis.set_xlabel(f"{wrapped(other, 20)} - {first}\n{text}", fontsize="xx-small")
            break
