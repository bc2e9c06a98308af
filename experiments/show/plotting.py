"""What all figures share: one look, and rows of panels, a row a group of runs."""

import textwrap
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from experiments.run.stored import StoredRun
from experiments.show.groups import Group
from experiments.show.intervals import band

WIDTH = 7.0  # inches: the text width of a two-column paper


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


def caption(group: Group, words: str) -> str:
    """What is shown, from where, and which runs: "reference: 8 runs" or "runs 3, 5"."""
    return f"{group.title}; {words}; {sources(group)}"


def sources(group: Group) -> str:
    """The runs of a group by their folders' names and ids, the many of a folder counted."""
    by_folder: dict[str, list[str]] = {}
    for run in group.runs:
        by_folder.setdefault(run.folder.parent.name, []).append(run.id)
    return ", ".join(
        f"{folder}/{', '.join(ids)}"
        if len(ids) < 7 and all(map(str.isdigit, ids))
        else f"{len(ids)} of {folder}"
        for folder, ids in by_folder.items()
    )


def rows(
    found: Sequence[Group],
    what: str,
    height: float,
    draw: Callable[[Figure, Group], None],
    shows: str,
) -> Figure:
    """A figure with a row of panels, `height` inches high, for every group of runs.

    what: its name in words, for when there is no run; shows: what a row's caption says of it.
    """
    if not found:
        return empty(f"{what}: no completed run")
    figure = plt.figure(figsize=(WIDTH, height * len(found)))
    for part, group in zip(figure.subfigures(len(found), squeeze=False)[:, 0], found, strict=True):
        counts = {len(group.of_arm(arm)) for arm in group.arms()}
        words = shows
        if "95 % t band" in shows and min(counts) < 3:
            words = "mean over seeds, 95 % t band from three on, below it each seed's line"
        if "95 %" in shows and counts == {1}:
            words = "one seed, so no interval"
        text = textwrap.fill(caption(group, words), 118)
        part.suptitle(text, fontsize="small", x=0.01, ha="left")
        draw(part, group)
    return figure


def panels(part: Figure, n: int, **options) -> list:
    """n axes in a row of the figure."""
    return list(part.subplots(1, n, squeeze=False, **options)[0])


def draw_curve(axis, runs: Sequence[StoredRun], metric: str, **line) -> None:
    """A metric's mean over runs of equal settings, with its 95 % t band; a thin line a seed where
    there are two, whose band would be 13 standard errors wide to either side."""
    steps = runs[0].metrics[metric][0]
    curves = np.stack([run.metrics[metric][1] for run in runs])
    mean, low, high = band(curves)
    axis.plot(steps, mean, **line)
    if len(runs) == 2:
        axis.plot(steps, curves.T, color=line["color"], alpha=0.5, linewidth=0.4)
    else:
        axis.fill_between(steps, low, high, color=line["color"], alpha=0.25, linewidth=0)


def empty(reason: str) -> Figure:
    """A figure that says why it shows nothing."""
    figure = plt.figure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center")
    return figure
