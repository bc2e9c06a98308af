"""The figure `cures`: what each method does against forgetting, and what it costs."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.figure import Figure

from experiments import PROJECT
from experiments.benchmarks import MEMORY as PEAK_MEMORY
from experiments.benchmarks import TIME, cost
from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, baseline, colour_of, in_order, wrapped
from experiments.show.compare import by_learner, measures_of
from experiments.show.groups import Group
from experiments.show.intervals import Learners, by_unit, mean_interval
from experiments.show.memory import REACHABLE
from experiments.show.opponents import JOINT, with_joint
from experiments.show.plotting import leftmost, lines, panels, rows
from experiments.show.texts import units
from forgetting.measures import KEPT, MEMORY, ROUND_ROBIN_AUC, TAUGHT, meets_fakes
from gan.models import MODELS

BENCH = PROJECT / "results/bench.json"
OPPONENTS, GAN = "sequential_tasks", "gan_probe"
PLAIN = baseline(OPPONENTS)
LIVE = ROUND_ROBIN_AUC
DISTANCE = "distance"  # a subject of measures: each name is its extractor's
PER_LINE = 4  # columns
ROW, AROUND = 0.2, 0.85  # inches: an arm's row, and what is around a line of columns


class Source(NamedTuple):
    """Whose runs columns are of: a study's for which wanted(run). columns: measure -> title."""

    study: str
    wanted: Callable[[StoredRun], bool]
    columns: Mapping[str, str]


SOURCES = (
    Source(
        OPPONENTS,
        lambda run: meets_fakes(run.config) and not run.config.get("plant_updates"),
        {
            MEMORY.name: "recorded: memory\nAUC, met minus never met",
            "past_auc": "recorded: AUC at the end,\nall but the last",
        },
    ),
    Source(
        OPPONENTS,
        lambda run: meets_fakes(run.config) and bool(run.config.get("plant_updates")),
        {
            KEPT.name: "planted: kept\nprobe's accuracy",
            TAUGHT.name: "planted: taught\nprobe's accuracy",
        },
    ),
    Source(
        GAN,
        lambda run: True,
        {
            LIVE: "live GAN: AUC, past\nfakes of all methods",
            DISTANCE: "live GAN: {}\nlower is better",
        },
    ),
)


class Column(NamedTuple):
    """Of a group's runs: an arm's values, minus the baseline's, by its name as a method."""

    measure: str
    title: str
    differences: Mapping[str, list[float]]
    reference: float | None
    of: str  # "10 recordings"


@dataclass(frozen=True, eq=False)
class SideBySide(Group):
    """All runs of which the columns are."""

    columns: Sequence[Column]

    @property
    def beside_its_preset(self) -> str:
        return self.differs  # put together of each column's


def as_method(arm: str) -> str | None:
    """uncond+ewc(weight=10) -> ewc(weight=10), ssgan -> rotation, uncond -> vanilla; None for what
    is no unconditional GAN. What is an arm of sequential tasks comes back as it is."""
    name, bracket, own = arm.partition("(")
    first, *rest = name.split("+")
    if first in MODELS and MODELS[first].kind != MODELS[baseline(GAN)].kind:
        return None
    names = [*(MODELS[first].methods if first in MODELS else [first]), *rest]
    return ("+".join(sorted(names)) or PLAIN) + bracket + own


def with_cures(found: Sequence[Group]) -> list[Group]:
    """For each data set and preset that has an arm beside the baseline, the runs of all columns."""
    of_data: dict[tuple, list[Group]] = {}
    for group in [*with_joint(found), *(g for g in found if g.runs[0].study == GAN)]:
        of_data.setdefault((group.runs[0].data, group.runs[0].preset), []).append(group)
    result = []
    for groups in of_data.values():
        runs, columns, differs = {}, [], []
        for source in SOURCES:
            best = _with_most_arms(groups, source)
            of_source = _columns(best, source) if best else []
            if of_source:
                runs |= {run.folder: run for run in best.runs}
                columns += of_source
                title = of_source[0].title.partition(":")[0]
                told = best.beside_its_preset
                differs += [f"{title}: {told}"] if told else []
        if columns:
            result.append(SideBySide([*runs.values()], "; ".join(differs), columns))
    return result


def _with_most_arms(groups: Sequence[Group], source: Source) -> Group | None:
    """Of the source's groups that with the most arms that have its first measure, then the next:
    the others are in the table `differences`."""

    def arms(group: Group) -> list[int]:
        names = [{measure, *_names(group, measure)} for measure in source.columns]
        return [len({run.arm for run in group.runs if of & {*run.result}}) for of in names]

    of = [g for g in groups if g.runs[0].study == source.study and all(map(source.wanted, g.runs))]
    return max(of, key=arms, default=None)


def _names(group: Group, measure: str) -> list[str]:
    """The measures of a subject; of a measure itself."""
    return [m.name for m in measures_of(group.runs) if measure in (m.name, m.subject)]


def _columns(group: Group, source: Source) -> list[Column]:
    plain, found = baseline(source.study), []
    for measure, title in source.columns.items():
        for name in _names(group, measure):
            base = by_learner(group.of_arm(plain), name)
            differences = {
                method: _apart(by_learner(group.of_arm(arm), name), base)
                for arm in arms_of(group)
                if arm not in (plain, JOINT) and (method := as_method(arm))
            }
            differences = {method: values for method, values in differences.items() if values}
            if differences:
                most = max(map(len, differences.values()))
                joint = _apart(_joint(group, plain, name), base)
                reference = mean_interval(joint).mean if joint else None
                of = units(most, group.runs[0])
                found.append(Column(name, title.format(name), differences, reference, of))
    return found


def _joint(group: Group, plain: str, measure: str) -> Learners:
    """What joint training reaches; of memory: above the baseline's twins."""
    if measure == MEMORY.name:
        return by_learner(group.of_arm(plain), REACHABLE)
    return by_learner(group.of_arm(JOINT), measure)


def _apart(some: Learners, others: Learners) -> list[float]:
    """some - others, paired by learner: the mean of each unit."""
    return by_unit({key: some[key] - others[key] for key in sorted(some.keys() & others.keys())})


def cures(found: Sequence[SideBySide]) -> Figure:
    """A forest plot: a method a row, in columns what it changes, minus the baseline's; a dot a
    recording or seed. Behind them what it costs, times the baseline's."""

    def draw(part, group):
        methods = _methods(group)
        costs = _all_costs(methods)
        axes = panels(part, len(group.columns) + len(costs), PER_LINE, sharey=True)
        for axis, column in zip(axes, group.columns, strict=False):
            _draw_column(axis, column, methods)
            title = f"{column.title}\nminus {PLAIN}'s, {column.of}"
            axis.set_title(title, fontsize="x-small", pad=9)
        for axis, (title, of) in zip(axes[len(group.columns) :], costs.items(), strict=True):
            for method, (ratio, low, high) in of.items():
                y, colour = methods.index(method), colour_of(method)
                error = [[ratio - low], [high - ratio]]
                axis.errorbar(ratio, y, xerr=error, fmt="s", color=colour, markersize=4, capsize=2)
            axis.axvline(1, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
            axis.set_title(title, fontsize="x-small", pad=9)
        for axis in axes:
            axis.tick_params(axis="x", labelsize="x-small")
            axis.locator_params(axis="x", nbins=4)
            axis.grid(axis="y", color="0.93", linewidth=0.6)
            axis.set_axisbelow(True)
        axes[0].set_yticks(range(len(methods)), [wrapped(method, 24) for method in methods])
        axes[0].set_ylim(len(methods) - 0.4, -0.6)
        for axis in leftmost(axes):
            axis.tick_params(axis="y", labelsize="x-small")

    shows = f"paired with {PLAIN}: mean over seeds and a dot each, 95 % t interval"
    return rows(found, "cures", _height, draw, shows)


def _methods(group: SideBySide) -> list[str]:
    return in_order(OPPONENTS, {m for column in group.columns for m in column.differences})


def _height(group: SideBySide) -> float:
    names = [wrapped(method, 24) for method in _methods(group)]
    high = AROUND + ROW * sum(1 + name.count("\n") / 2 for name in names)
    return 0.4 + high * lines(len(group.columns) + len(_all_costs(_methods(group))), PER_LINE)


def _draw_column(axis, column: Column, methods: Sequence[str]) -> None:
    for method, values in column.differences.items():
        interval, y, colour = mean_interval(values), methods.index(method), colour_of(method)
        axis.plot(values, [y + 0.27] * len(values), ".", color=colour, alpha=0.5, markersize=3)
        look = {"fmt": "o", "color": colour, "markersize": 4, "capsize": 2}
        axis.errorbar(interval.mean, y, xerr=interval.error, **look)
    axis.axvline(0, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
    if column.reference is not None:
        axis.axvline(column.reference, color="black", linestyle="--", linewidth=0.9, zorder=0)
        at_top = axis.get_xaxis_transform()
        axis.text(column.reference, 1.01, JOINT, transform=at_top, ha="center", fontsize="xx-small")


def _all_costs(methods: Sequence[str]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Title -> what a method costs, as `_costs` has it; none of what was not measured."""
    found = {
        "a step's time,\ntimes the baseline's": _costs(methods, TIME),
        "peak memory,\ntimes the baseline's": _costs(methods, PEAK_MEMORY),
    }
    return {title: of for title, of in found.items() if of}


def _costs(methods: Sequence[str], what: str) -> dict[str, tuple[float, float, float]]:
    """Method -> ratio, smallest and largest, on a CPU at the `cpu` preset's sizes; of a method with
    settings of its own as at its defaults."""
    table = json.loads(BENCH.read_text(encoding="utf-8"))["rows"] if BENCH.exists() else []
    on_cpu = {
        row["name"]: (row["ratio"], *row["spread"]) for row in table if row["device"] == "cpu"
    }
    named = {method: cost(re.sub(r"\(.*", "", method), what) for method in methods}
    return {method: on_cpu[name] for method, name in named.items() if name in on_cpu}
