"""The figure `cures_in_short`: of `cures` what a reader can take in at a glance."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from experiments.show.arms import colour_of, in_order, words, wrapped
from experiments.show.cures import LIVE, OPPONENTS, Column, SideBySide, with_cures
from experiments.show.groups import Group
from experiments.show.intervals import mean_interval
from experiments.show.plotting import panels, rows
from forgetting.measures import KEPT, MEMORY

# For who has read nothing else: vanilla, and joint training.
BASELINE, AT_ONCE = "plain training", "all generators at once"
# In the order in which a method's rows are sorted: by the first that it has.
IN_WORDS = {
    MEMORY.name: ("Remembers recorded opponents", "AUC, met minus never met"),
    KEPT.name: ("Keeps what was planted", "probe's accuracy"),
    LIVE: ("Tells past fakes, live", "AUC, fakes of all methods"),
}
LETTERS = 72  # of the titles beside each other


def with_answer(found: Sequence[Group]) -> list[SideBySide]:
    """Where one of these was measured with an interval: those columns, of the runs they are of."""
    result = []
    for group in with_cures(found):
        of = {column.measure: column for column in group.columns}
        columns = [of[name] for name in IN_WORDS if name in of]
        live = LIVE in of
        runs = [run for run in group.runs if run.study == OPPONENTS or live]
        if any(len(values) > 1 for column in columns for values in column.differences.values()):
            result.append(SideBySide(runs, "", columns))
    return result


def cures_in_short(found: Sequence[SideBySide]) -> Figure:
    """A method a row, the best first; what it adds to the baseline, with its interval."""

    def draw(part, group):
        columns, methods = group.columns, _best_first(group.columns)
        axes = panels(part, len(columns), sharey=True)
        for axis, column in zip(axes, columns, strict=True):
            for y, method in enumerate(methods):
                if method in column.differences:
                    at = mean_interval(column.differences[method])
                    colour = colour_of(method)
                    axis.errorbar(at.mean, y, xerr=at.error, fmt="o", color=colour, capsize=3)
                else:
                    axis.annotate("  not measured", (0, y), color="0.5", va="center", size="small")
            axis.axvline(0, color="0.6", linestyle=":", linewidth=1, zorder=0)
            if column.reference is not None:
                axis.axvline(column.reference, color="black", linestyle="--", zorder=0)
                text = {"ha": "right", "va": "bottom", "fontsize": "small"}
                axis.text(column.reference, len(methods) - 0.45, f"{AT_ONCE} ", **text)
            title, unit = IN_WORDS[column.measure]
            axis.set_title(wrapped(title, LETTERS // len(columns)))
            axis.set_xlabel(f"{unit},\nminus {BASELINE}'s;\n{column.of}")
            axis.grid(axis="y", color="0.93", linewidth=0.6)
            axis.set_axisbelow(True)
        known = [wrapped(_in_words(method), 28) for method in methods]
        axes[0].set_yticks(range(len(methods)), known)
        axes[0].set_ylim(len(methods) - 0.4, -0.6)

    shows = f"what each method adds to {BASELINE}, means and 95 % t intervals"
    return rows(found, "cures_in_short", _height, draw, shows)


def _best_first(columns: Sequence[Column]) -> list[str]:
    """The methods, by their mean in the first column that has them."""

    def rank(method: str) -> tuple[int, float]:
        i = next(i for i, column in enumerate(columns) if method in column.differences)
        return i, -mean_interval(columns[i].differences[method]).mean

    return sorted(in_order(OPPONENTS, {m for c in columns for m in c.differences}), key=rank)


def _in_words(arm: str) -> str:
    return ", ".join(words(OPPONENTS, method) for method in arm.split("+"))


def _height(group: SideBySide) -> float:
    return 1.8 + 0.27 * len(_best_first(group.columns))
