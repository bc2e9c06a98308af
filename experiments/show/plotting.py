"""What all figures share: one look, and rows of panels, a row a group of runs."""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.run.stored import StoredRun
from experiments.show import texts
from experiments.show.arms import words, wrapped
from experiments.show.groups import Group
from experiments.show.intervals import band
from forgetting.measures import meets_fakes
from forgetting.names import natural, printable

WIDTH = 7.0  # inches: the text width of a two-column paper
PER_LINE = 4  # panels beside each other
MOST_NAMED = 3  # recordings in a caption


def style() -> None:
    """One look for all figures, legible at a paper's column width, whatever matplotlibrc says."""
    matplotlib.rcdefaults()
    matplotlib.use("Agg")
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


def completed(runs: Iterable[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.completed]


def unfinished(runs: Iterable[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if not run.completed]


def units(runs: Sequence[StoredRun]) -> str:
    """How many there are of what was drawn at random: "3 seeds", "10 recordings"."""
    return texts.units(len({run.unit for run in runs}), runs[0])


def label(runs: Sequence[StoredRun], width: int, in_words: bool = False) -> str:
    """The runs' arm, its name in lines of about `width` characters, and how many seeds or
    recordings they are of; each run that is not complete by itself."""
    arm = words(runs[0].study, runs[0].arm) if in_words else runs[0].arm
    whole = completed(runs)
    counts = [units(whole)] if whole else []
    return ", ".join([wrapped(arm, width), *counts, *map(progress, unfinished(runs))])


def progress(run: StoredRun) -> str:
    """Of a run that is not complete: "seed 3 running", "uncond_4, seed 0 interrupted"."""
    of = run.info.get("recording")
    return (f"{printable(of['name'])}, " if of else "") + f"seed {run.seed} {run.status}"


def caption(group: Group, text: str) -> str:
    """What is shown, from where, and which runs: "reference: 8 runs" or "runs 3, 5"."""
    of = [group.title, recordings(group), text, sources(completed(group.runs))]
    if dashed := unfinished(group.runs):
        of.append(f"dashed, not complete: {', '.join(map(which, dashed))}")
    return "; ".join(filter(None, of))


def which(run: StoredRun) -> str:
    """Of a run that is not complete: "runs/7 (seed 3 running)"."""
    return f"{printable(run.folder.parent.name)}/{run.id} ({progress(run)})"


def recordings(group: Group) -> str:
    """Whose opponents were met: "10 recordings, uncond_1 to uncond_10"; "" where there are none."""
    of = [run for run in group.runs if meets_fakes(run.config)]
    if not of:
        return ""
    names = {printable(run.info["recording"]["name"]) for run in of}
    ordered = sorted(names, key=natural)
    named = ", ".join(ordered) if len(ordered) <= MOST_NAMED else f"{ordered[0]} to {ordered[-1]}"
    return f"{units(of)}, {named}"


def sources(runs: Iterable[StoredRun]) -> str:
    """The runs by their folders' (or zips') names and ids, the many of one counted."""
    by_folder: dict[str, list[str]] = {}
    for run in runs:
        by_folder.setdefault(printable(run.collection), []).append(run.id)
    return ", ".join(
        f"{folder}/{', '.join(ids)}"
        if len(ids) < 7 and all(map(str.isdigit, ids))
        else f"{len(ids)} runs in {folder}"
        for folder, ids in by_folder.items()
    )


def keep(found: Sequence[Group], wanted: Callable[[StoredRun], bool]) -> list[Group]:
    """The groups, of each the runs for which wanted(run)."""
    kept = [Group([run for run in group.runs if wanted(run)], group.differs) for group in found]
    return [group for group in kept if group.runs]


def rows(
    found: Sequence[Group],
    what: str,
    height: float | Callable[[Group], float],
    draw: Callable[[Figure, Group], None],
    shows: str,
    count: Callable[[Group], int] = lambda group: 1,
) -> Figure:
    """A figure with panels for every group of runs, in lines `height` inches high, or all of a
    group's in height(group).

    what: its name in words, for when there is no run; shows: what a group's caption says of it;
    count: how many panels a group has, where they may be more than stand in a line.
    """
    if not found:
        return empty(f"{what}: no completed run")
    heights = [
        height(group) if callable(height) else height * lines(count(group)) for group in found
    ]
    figure = plt.figure(figsize=(WIDTH, sum(heights)))
    parts = figure.subfigures(len(found), squeeze=False, height_ratios=heights)[:, 0]
    for part, group in zip(parts, found, strict=True):
        whole = [completed(group.of_arm(arm)) for arm in group.arms()]
        counts = {len({run.unit for run in runs}) for runs in whole if runs}
        said = shows
        if not counts:
            said = ""
        elif "95 % t band" in shows and min(counts) < 3:
            said = "mean over seeds, 95 % t band from three on, below it each seed's line"
        if "95 %" in shows and counts == {1}:
            said = "one seed, so no interval"
        units = dict.fromkeys(run.unit_is for run in group.runs)
        one, several = (" or ".join(unit + s for unit in units) for s in ("", "s"))
        said = re.sub("seeds?", lambda of, one=one, s=several: s if of[0] == "seeds" else one, said)
        text = textwrap.fill(caption(group, said), 118, break_on_hyphens=False)
        part.suptitle(text, fontsize="small", x=0.01, ha="left")
        draw(part, group)
    return figure


def lines(n: int, per_line: int = PER_LINE) -> int:
    """How many lines n panels take."""
    return -(-n // per_line)


def panels(part: Figure, n: int, per_line: int = PER_LINE, **options) -> list:
    """n axes, in lines of at most `per_line` and as even as can be."""
    across = lines(n, lines(n, per_line))
    grid = part.subplots(lines(n, per_line), across, squeeze=False, **options).ravel()
    for axis in grid[n:]:
        axis.remove()
    return list(grid[:n])


def leftmost(axes: Sequence) -> list:
    """Those with which a line of panels begins."""
    return [axis for axis in axes if axis.get_subplotspec().is_first_col()]


def of_units(runs: Iterable[StoredRun], values: Callable[[StoredRun], ArrayLike]) -> np.ndarray:
    """(n, ...) values(run), for each unit the mean over its runs."""
    found: dict[str | int, list] = {}
    for run in runs:
        found.setdefault(run.unit, []).append(values(run))
    return np.stack([np.mean(those, axis=0) for those in found.values()])


def draw_curve(axis, runs: Sequence[StoredRun], metric: str, opacity: float = 0.25, **line) -> None:
    """A metric's mean over runs of equal settings, with its 95 % t band of this opacity; a thin
    line a seed where there are two, whose band would be 13 standard errors wide to either side. Of
    runs that are not complete a dashed line each."""
    whole = completed(runs)
    if whole:
        steps = whole[0].metrics[metric][0]
        curves = of_units(whole, lambda run: run.metrics[metric][1])
        mean, low, high = band(curves)
        axis.plot(steps, mean, **line)
        if len(curves) == 2:
            axis.plot(steps, curves.T, color=line["color"], alpha=0.5, linewidth=0.4)
        else:
            axis.fill_between(steps, low, high, color=line["color"], alpha=opacity, linewidth=0)
    for i, run in enumerate(unfinished(runs)):
        named = {"label": None} if whole or i else {}  # one entry of a legend
        axis.plot(*run.metrics[metric], **line | named | {"linestyle": "--"})


def draw_arm(axis, runs: Sequence[StoredRun], metric: str, width: int, **line) -> None:
    """Likewise, of an arm's runs and in a legend's words; of runs that are not complete an entry
    each."""
    apart = [completed(runs), *([run] for run in unfinished(runs))]
    for those in filter(None, apart):
        draw_curve(axis, those, metric, label=label(those, width, in_words=True), **line)


def legend(axis, arms: int) -> None:
    """Beside the axes where it would cover the curves of so many arms."""
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if arms > PER_LINE else {}
    axis.legend(frameon=False, fontsize="x-small", **beside)


def empty(reason: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = plt.figure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center")
    return figure
