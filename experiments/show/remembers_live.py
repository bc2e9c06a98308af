"""The figure `remembers_live`: does a method that remembers recorded opponents remember live?"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.show.arms import colour_of
from experiments.show.cures import LIVE, PLAIN, Column, SideBySide, with_cures
from experiments.show.groups import Group
from experiments.show.intervals import mean_interval
from experiments.show.plotting import panels, rows
from forgetting.measures import MEMORY

RECORDED = (MEMORY.name, "past_auc")  # a method without twins has the second alone


def with_both(found: Sequence[Group]) -> list[SideBySide]:
    """Where methods met recorded opponents and were tried in a live GAN, too."""
    return [group for group in with_cures(found) if _pairs(group)]


def _pairs(group: SideBySide) -> list[tuple[Column, Column, list[str]]]:
    """(recorded, live, methods that have both)."""
    of = {column.measure: column for column in group.columns}
    pairs = [(of[name], of[LIVE]) for name in RECORDED if name in of and LIVE in of]
    both = [(a, b, [m for m in a.differences if m in b.differences]) for a, b in pairs]
    return [pair for pair in both if pair[2]]


def remembers_live(found: Sequence[SideBySide]) -> Figure:
    """A method a point, both minus the baseline: recorded opponents across, the live GAN up."""

    def draw(part, group):
        pairs = _pairs(group)
        for axis, (recorded, live, methods) in zip(panels(part, len(pairs)), pairs, strict=True):
            for method in methods:
                x, y = (mean_interval(of.differences[method]) for of in (recorded, live))
                look = {"fmt": "o", "markersize": 4, "color": colour_of(method)}
                axis.errorbar(x.mean, y.mean, xerr=x.error, yerr=y.error, **look)
                axis.annotate(
                    *(method, (x.mean, y.mean)),
                    xytext=(3, 3),
                    textcoords="offset points",
                    fontsize="xx-small",
                )
            for line in (axis.axvline, axis.axhline):
                line(0, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
            axis.locator_params(nbins=4)
            axis.set_xlabel(f"{recorded.title}\nminus {PLAIN}'s, {recorded.of}", fontsize="x-small")
            axis.set_ylabel(f"{live.title}\nminus {PLAIN}'s, {live.of}", fontsize="x-small")

    shows = f"a method a point, minus {PLAIN}: means and 95 % t intervals"
    return rows(found, "remembers_live", 2.8, draw, shows)
