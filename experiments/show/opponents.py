"""Figures of discriminators that met recorded generators, one after another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, colour_of, wrapped
from experiments.show.groups import Group, without_arms_of
from experiments.show.memory import is_joint, joint_runs, key_of_all
from experiments.show.plotting import (
    completed,
    draw_curve,
    keep,
    leftmost,
    lines,
    of_units,
    panels,
    progress,
    rows,
    unfinished,
    units,
)
from experiments.show.references import SUPERVISED
from experiments.show.sequential import mark_tasks
from forgetting.measures import Logged, accuracy_matrix, meets_fakes

JOINT = "joint"  # as an arm: the baseline, with all generators at once
PER_LINE = 5  # matrices
TICKS = 4  # at most, of generators
# Heights in inches: matrices, of a line's width and beside it; curves and an entry of their legend;
# an arm's row, and what is around all of them.
LINE, BESIDE, HIGHEST = 5.5, 0.65, 2.05
CURVES, ENTRY = 2.2, 0.14
ROW, AROUND = 0.27, 1.05


# ------------------------------------------------------------------ which runs a figure shows


def with_joint(found: Sequence[Group]) -> list[Group]:
    """The groups of runs that met recorded generators, in each the joint reference as one more arm
    where there is one; what is the reference alone is no group."""
    of_fakes = keep(found, lambda run: meets_fakes(run.config) and run.arm != SUPERVISED)
    joint = joint_runs(run for group in of_fakes for run in group.runs)
    result = []
    for group in of_fakes:
        if all(map(is_joint, group.runs)):
            continue
        keys = dict.fromkeys(map(key_of_all, group.runs))
        references = [joint[key] for key in keys if key in joint]
        own = {run.folder for run in group.runs}
        beside = [replace(run, arm=JOINT) for run in references if run.folder not in own]
        result.append(Group([*group.runs, *beside], group.differs))
    return result


def in_turn(found: Sequence[Group]) -> list[Group]:
    """The groups of `with_joint`; of those that were planted, or whose generators all stay, the
    arms that no group like them has: what is planted, and kept where all stay, is in the figure
    `planted`."""

    def plain(group: Group) -> bool:
        return not group.planted and group.readable_settings().get("stream.switch") != "none"

    shown = with_joint(found)
    first = [group for group in shown if plain(group)]
    rest = [group for group in shown if not plain(group)]
    return [*first, *without_arms_of(rest, first, ("plant_updates", "stream.switch"))]


def _arms(group: Group) -> list[str]:
    """The reference last."""
    return sorted(arms_of(group), key=lambda arm: arm == JOINT)


def _whole_arms(group: Group) -> list[str]:
    """Those with a run that is complete."""
    return [arm for arm in _arms(group) if completed(group.of_arm(arm))]


def _name(group: Group, arm: str, width: int) -> str:
    """In lines of about `width` characters; with how many recordings it is of, where that is not
    all of the group's."""
    count = units(completed(group.of_arm(arm)))
    few = "" if count == units(completed(group.runs)) else f", {count}"
    return wrapped(("joint (all at once)" if arm == JOINT else arm) + few, width)


def _colour(arm: str) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if arm == JOINT else colour_of(arm)


# ------------------------------------------------------------------ the figures


def opponents(found: Sequence[Group]) -> Figure:
    """R of AUC of the last cycle, a panel an arm, mean over recordings, and what colour alone
    tells; below, AUC on the first generator over iterations, an arm a line."""

    def draw(part, group):
        above, below = part.subfigures(2, 1, height_ratios=[_of_matrices(group), _of_curves(group)])
        arms = _whole_arms(group)
        axes = panels(above, len(arms) + 1, PER_LINE)
        for axis, arm in zip(axes, arms, strict=False):
            values = of_units(completed(group.of_arm(arm)), last_cycle).mean(0)
            _draw_matrix(axis, values, outlined=arm != JOINT)
            axis.set_title(_name(group, arm, 24), fontsize="x-small")
        of_colour_alone = of_units(completed(group.runs) or group.runs, of_colour).mean(0)
        mesh = _draw_matrix(axes[-1], of_colour_alone, outlined=True)
        axes[-1].set_title("colour alone (no net)", fontsize="x-small")
        for axis in leftmost(axes):
            axis.set_ylabel("after generator", fontsize="x-small")
        axes[-1].set_ylabel("fitted on generator", fontsize="x-small")
        bar = above.colorbar(mesh, ax=axes)
        bar.set_label("AUC, real images against\nfakes (0.5 is chance)", fontsize="x-small")
        bar.ax.tick_params(labelsize="x-small")
        _draw_first(panels(below, 1)[0], group)

    shows = "mean over seeds, 95 % t band"
    return rows(
        found, "opponents, sequential tasks", lambda g: _of_matrices(g) + _of_curves(g), draw, shows
    )


def _of_matrices(group: Group) -> float:
    n = len(_whole_arms(group)) + 1
    high = lines(n, PER_LINE)
    return high * min(HIGHEST, BESIDE + LINE / lines(n, high))


def _of_curves(group: Group) -> float:
    return max(CURVES, 0.7 + ENTRY * sum(name.count("\n") + 1 for name, _ in _curves(group)))


def _curves(group: Group) -> list[tuple[str, list[StoredRun]]]:
    """Name and runs of each: the arms', and those of runs that are not complete."""
    whole = [(_name(group, a, 30), completed(group.of_arm(a))) for a in _whole_arms(group)]
    return whole + [
        (f"{wrapped(run.arm, 30)}, {progress(run)}", [run])
        for arm in _arms(group)
        for run in unfinished(group.of_arm(arm))
    ]


def last_cycle(run: StoredRun) -> np.ndarray:
    """R (T, T) of AUC: the discriminator after a generator's turn (rows), against each."""
    return accuracy_matrix(Logged(run.metrics, run.config), run.config["cycles"] - 1, "auc")


def of_colour(run: StoredRun) -> np.ndarray:
    """(T, T) AUC of colour alone, fitted on one generator's fakes (rows), against each; as they
    come."""
    order = Logged(run.metrics, run.config).order
    return np.array(run.info["recording"]["colour_auc"])[np.ix_(order, order)]


def _draw_matrix(axis, values: np.ndarray, outlined: bool):
    # The map is perceptually uniform to either side of chance.
    mesh = axis.imshow(values, cmap="vlag_r", vmin=0, vmax=1)
    for i in range(len(values) if outlined else 0):
        axis.add_patch(
            Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="0.2", linewidth=0.6)
        )
    ticks = np.arange(0, len(values), -(-len(values) // TICKS))
    axis.set_xticks(ticks, ticks + 1, fontsize="xx-small")
    axis.set_yticks(ticks, ticks + 1, fontsize="xx-small")
    axis.set_xlabel("against generator", fontsize="x-small")
    return mesh


def _draw_first(axis, group: Group) -> None:
    """AUC on the generator that is met first, over iterations."""
    run = group.runs[0]
    turn, tasks = run.config["iterations_per_task"], len(Logged(run.metrics, run.config).order)
    per_cycle, total = mark_tasks(axis, run.config, tasks)
    for start in range(0, total, per_cycle):
        axis.axvspan(start, start + turn, color="0.93", zorder=-1)
    for name, runs in _curves(group):
        arm = runs[0].arm
        line = {"label": name, "color": _colour(arm), "linestyle": "--" if arm == JOINT else "-"}
        draw_curve(axis, [_on_the_first(run) for run in runs], "auc/first", linewidth=1, **line)
    axis.set_title(
        "AUC on the generator met first (shaded: its turns; higher is better)", fontsize="small"
    )
    axis.set_ylabel("AUC")
    axis.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))


def _on_the_first(run: StoredRun) -> StoredRun:
    first = Logged(run.metrics, run.config).order[0]
    return replace(run, metrics={"auc/first": run.metrics[f"auc/task_{first}"]})
