"""The figure `planted`, and its table: what nets keep of planted knowledge, and what training
teaches them."""

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from experiments.run.stored import StoredRun
from experiments.run.study import studies
from experiments.show.arms import arms_of, colour_of, wrapped
from experiments.show.compare import by_learner, with_curves
from experiments.show.groups import Group, alike, groups
from experiments.show.intervals import by_unit, mean_interval
from experiments.show.planted import planted as beside_twins
from experiments.show.plotting import draw_curve, rows
from experiments.show.references import SUPERVISED, draw_references
from experiments.show.texts import frame, shown, units, where
from forgetting.measures import FINAL_LAYER, HALF_LIFE, KEPT, TAUGHT

LIVE = "live"
STREAMS = {
    "abrupt": "moving",
    "gradual": "moving gradually",
    "none": "all at once",
    LIVE: "with its generator",
}
TOLD = ("plant_updates", "stream.blend")
DIFFER = (*TOLD, "stream.switch")
NAME = 20  # characters of an arm's name in a line
SHARE = "of turn 1's"
END = "planted, at the end"


def with_planted(found: Sequence[Group]) -> list[Group]:
    """Groups put together that differ in whether they were planted and in how the task moves alone,
    where some of their runs were planted and have a twin. Other lengths of planting, and of a
    gradual switch, are others."""
    together: list[list[Group]] = []
    for group in found:
        fits = [of for of in together if all(alike(group, other, DIFFER) for other in of)]
        if fits:
            fits[0].append(group)
        else:
            together.append([group])
    result = []
    for those, told in _told_apart(together):
        runs = {run.folder: run for group in those for run in group.runs}
        probed = [run for run in runs.values() if FINAL_LAYER in run.metrics]
        # Of an arm that was never planted there is nothing to be kept.
        arms = {run.arm for run in probed if KEPT.name in run.result}
        probed = [run for run in probed if run.arm in arms | {SUPERVISED}]
        if arms:
            differs = [part for part in those[0].differs.split(", ") if part]
            left = [part for part in differs if not part.startswith(DIFFER)]
            result.append(Group(probed, ", ".join([*left, *told])))
    return result


def _told_apart(found: Iterable[Sequence[Group]]) -> Iterator[tuple[list[Group], list[str]]]:
    """The groups by the updates of their planting and by how long a gradual switch takes, each with
    the bare ones and those whose task moves otherwise; and in words what tells them."""
    for those in found:
        told = [tuple(g.readable_settings().get(key) for key in TOLD) for g in those]
        planted = sorted({updates for updates, _ in told if updates})
        for updates in planted:
            blends = sorted({blend for of, blend in told if of == updates and blend is not None})
            for chosen in blends or [None]:
                some = [
                    group
                    for group, (of, blend) in zip(those, told, strict=True)
                    if of in (None, 0, updates) and blend in (None, chosen)
                ]
                words = [f"plant_updates={updates}"] if len(planted) > 1 else []
                yield some, words + ([f"stream.blend={chosen}"] if len(blends) > 1 else [])


def planted(found: Sequence[Group]) -> Figure:
    """Left the final layer's probe, planted full and not planted dashed, a panel a stream; right
    what is kept and what is taught, an arm a point with both intervals. Of more arms than can be
    told apart those of claims, and the baseline, have curves."""

    def draw(part, group):
        own = [arm for arm in arms_of(group) if arm != SUPERVISED]
        arms = with_curves(group, own)
        said = "" if arms == own else ", of the claims' arms"
        switches = [s for s in STREAMS if any(_switch(run) == s for run in group.runs)]
        axes = part.subplots(1, len(switches) + 1, squeeze=False)[0]
        for axis, switch in zip(axes, switches, strict=False):
            _draw_curves(axis, group, arms, switch)
            axis.set_title(f"{STREAMS[switch]}: full planted,\ndashed not{said}", fontsize="small")
            axis.sharey(axes[0])
        axes[0].set_ylabel("linear probe of the final layer,\ntest accuracy")
        _draw_plane(axes[-1], group, switches)

    return rows(found, "planted", _height, draw, "mean over seeds, 95 % t band")


def _height(group: Group) -> float:
    """Inches: the legend has a line and more for each arm."""
    lines = sum(wrapped(arm, NAME).count("\n") + 1 for arm in arms_of(group))
    return max(3.4, 1.1 + 0.14 * lines)


def _switch(run: StoredRun) -> str:
    return run.identity.get("stream.switch", LIVE)


def _draw_curves(axis, group: Group, arms: Sequence[str], switch: str) -> None:
    for arm in arms:
        of_arm = [run for run in group.of_arm(arm) if _switch(run) == switch]
        for plants, style in ((True, "-"), (False, "--")):
            runs = [run for run in of_arm if bool(run.config["plant_updates"]) == plants]
            if runs:
                line = {"color": colour_of(arm), "linestyle": style, "linewidth": 1}
                opacity = 0.25 if plants else 0.1  # where both are drawn, bands lie on each other
                draw_curve(axis, runs, FINAL_LAYER, opacity, **line)
    draw_references(axis, group.runs, FINAL_LAYER)
    axis.set_xlabel("updates of the generator" if switch == LIVE else "iterations")
    axis.locator_params(axis="x", nbins=4)


def _draw_plane(axis, group: Group, switches: Sequence[str]) -> None:
    """Filled where the opponents move abruptly, else open; how many recordings an arm is of, where
    that is not all of the group's."""
    for arm in arms_of(group):
        own, all_units = ({run.unit for run in of} for of in (group.of_arm(arm), group.runs))
        few = f", {units(len(own), group.runs[0])}" if len(own) < len(all_units) else ""
        label = wrapped(arm + few, NAME)
        for switch in switches:
            runs = [run for run in group.of_arm(arm) if _switch(run) == switch]
            kept, taught = (
                by_unit(by_learner([r for r in runs if KEPT.name in r.result], measure.name))
                for measure in (KEPT, TAUGHT)
            )
            if not kept:
                continue
            x, y = mean_interval(kept), mean_interval(taught)
            colour = colour_of(arm)
            axis.errorbar(
                x.mean,
                y.mean,
                xerr=x.error,
                yerr=y.error,
                fmt="o",
                color=colour,
                markerfacecolor=colour if switch in ("abrupt", LIVE) else "white",
                markersize=4,
                linewidth=0.8,
                label=label,
            )
            label = None  # said once
    axis.axvline(0, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
    axis.axhline(0, color="0.6", linestyle=":", linewidth=0.8, zorder=0)
    axis.set(xlabel="kept (planted minus not)", ylabel="taught (above untrained)")
    axis.locator_params(axis="x", nbins=3)
    if len(switches) > 1:
        axis.set_title("filled: moving; open: not", fontsize="small")
    axis.legend(frameon=False, fontsize="xx-small", loc="upper left", bbox_to_anchor=(1, 1))


def planted_of(runs: Sequence[StoredRun]) -> list[Group]:
    """The groups of `with_planted`, of every study."""
    return [group for study in studies() for group in with_planted(groups(runs, study))]


def table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """By arm and by how its task moves: what was planted, what is kept of it and how long, what
    training taught the twins that were not planted, and what the planted nets have at the end above
    the untrained ones."""
    rows = []
    for group in planted_of(runs):
        for arm in arms_of(group):
            for switch, task in STREAMS.items():
                some = [run for run in group.of_arm(arm) if _switch(run) == switch]
                if cells := _cells(some):
                    rows.append(where(group) | {"task": task, "arm": arm} | cells)
    columns = [
        "data",
        "preset",
        "settings",
        "task",
        "arm",
        "planted",
        "kept",
        SHARE,
        "half-life",
        "taught",
        END,
    ]
    return frame(rows, [*columns, "over"])


def _cells(of_arm: Sequence[StoredRun]) -> dict[str, str]:
    """The row of an arm; none where nothing was planted beside a twin."""
    pairs = beside_twins(of_arm)
    if not pairs:
        return {}
    start = {(of.run.unit, of.run.seed): float(of.kept[0]) for of in pairs}
    ends = {(of.run.unit, of.run.seed): float(of.planted[-1] - of.bare[0]) for of in pairs}
    found = {"planted": start, END: ends}
    for name, measure in (("kept", KEPT), ("half-life", HALF_LIFE), ("taught", TAUGHT)):
        found[name] = by_learner([of.run for of in pairs], measure.name)
    shares = {(of.run.unit, of.run.seed): of.share_of_first_turn() for of in pairs}
    found[SHARE] = {key: share for key, share in shares.items() if share is not None}
    cells = {}
    for name, learners in found.items():
        # A share is told of all or of none: those that had nothing left would be missing.
        if learners and (name != SHARE or len(learners) == len(pairs)):
            interval = mean_interval(by_unit(learners))
            of_updates = name == "half-life"
            sign = "" if name == SHARE else "+"
            cells[name] = shown(interval, digits=0) if of_updates else shown(interval, sign)
    return cells | {"over": units(len(by_unit(start)), pairs[0].run)}
