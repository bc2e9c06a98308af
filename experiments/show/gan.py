"""Figures of the discriminator-probe study."""

import io
import itertools
import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.run.packed import Folder
from experiments.run.stored import READ_ERRORS, StoredRun, sample_grids
from experiments.show import grids
from experiments.show.arms import arms_of, colour_of, wrapped
from experiments.show.compare import distance_metrics, with_curves
from experiments.show.groups import Group, alike
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
    rows,
    units,
)
from experiments.show.references import SUPERVISED, draw_references
from forgetting.measures import BEST_BLOCK, FINAL_LAYER

DOTS = {"marker": ".", "markersize": 3, "linewidth": 1}
ROTATIONS = (0, 90, 180, 270)
LAYERS = {FINAL_LAYER: "final layer", BEST_BLOCK: "best block"}


# ------------------------------------------------------------------ which runs a figure shows


def probed(found: Sequence[Group]) -> list[Group]:
    """Without runs on unlabelled images, which have no probe."""
    return keep(found, lambda run: "probe/best" in run.metrics)


def measured(found: Sequence[Group]) -> list[Group]:
    """Those whose samples' quality was measured."""
    return keep(found, lambda run: bool(distance_metrics([run])))


def measured_by_scale(found: Sequence[Group]) -> list[Group]:
    """The same, a grid's settings together."""
    return grids.pooled(measured(found))


def with_past_fakes(found: Sequence[Group]) -> list[Group]:
    """Those with a whole matrix of past fakes; rotation_only has no fakes."""
    columns = {"discriminator", "generator", "accuracy", "auc"}
    return keep(
        found, lambda run: "past_fakes/auc" in run.metrics and whole(run, PAST_FAKES, columns)
    )


def with_rotations(found: Sequence[Group]) -> list[Group]:
    """Of each group the first GAN with a rotation loss that kept its predictions."""
    columns = {"image", "kind", "degrees", *(f"q_{degrees}" for degrees in ROTATIONS)}
    shown = []
    for group in keep(found, lambda run: {"loss/g", "accuracy/rotation"} <= run.metrics.keys()):
        runs = [run for model in arms_of(group) for run in group.of_arm(model)]
        kept = (run for run in runs if whole(run, "rotations.csv", columns))
        shown += [Group([run], group.differs) for run in itertools.islice(kept, 1)]
    return shown


def first_seeds(found: Sequence[Group]) -> list[Group]:
    """A run a model, of its first seed, of a completed run where there is one."""
    return [
        Group(
            [min(group.of_arm(a), key=lambda run: not run.completed) for a in arms_of(group)],
            group.differs,
        )
        for group in keep(found, lambda run: bool(sample_grids(run.folder)))
    ]


PAST_FAKES = "past_fakes.csv"


def whole(run: StoredRun, name: str, columns: set[str]) -> bool:
    """Whether a run's table can be read and has these columns; else the file is named."""
    try:
        missing = columns - set(run.table(name).columns)
        if missing or run.table(name).empty:
            raise ValueError(f"it lacks {sorted(missing) or 'rows'}")
        return True
    except READ_ERRORS as error:
        print(f"passed over {run.folder / name}: {error}", file=sys.stderr)
        return False


# ------------------------------------------------------------------ the figures


def figure2(found: Sequence[Group]) -> Figure:
    """Linear-probe accuracy over GAN iterations: Figure 2 of Chen et al., arXiv 1811.11212."""

    def draw(part, group):
        metrics = [name for name in LAYERS if any(name in run.metrics for run in group.runs)]
        axes = panels(part, len(metrics))
        # A planted net's references are those of the same net that was not.
        bare = [run for of in found if _bare_of(of, group) for run in of.runs]
        models = with_curves(group, [model for model in arms_of(group) if model != SUPERVISED])
        for axis, metric in zip(axes, metrics, strict=True):
            for model in models:
                runs = [run for run in group.of_arm(model) if metric in run.metrics]
                if not runs:
                    continue
                draw_arm(axis, runs, metric, 30, color=colour_of(model), **DOTS)
                if metric == BEST_BLOCK:
                    mark_unconverged(axis, runs, metric, colour_of(model))
            if FINAL_LAYER in metrics:
                draw_references(axis, [*group.runs, *bare], metric)
            axis.set_xlabel("generator updates")
            axis.set_ylabel(f"linear probe of the\n{LAYERS[metric]}, test accuracy")
        # Beside the axes: the bands of five arms leave no room in them.
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        axes[-1].legend(frameon=False, fontsize="x-small", **beside)

    in_turn = sorted(found, key=lambda group: (group.planted, -len(group.arms())))
    return rows(in_turn, "Figure 2, GAN probe", 2.6, draw, "mean over seeds, 95 % t band")


def _bare_of(one: Group, planted: Group) -> bool:
    """Whether its nets are those of the other, not planted."""
    return bool(planted.planted) and not one.planted and alike(one, planted, ["plant_updates"])


def mark_unconverged(axis, runs: Sequence[StoredRun], metric: str, colour) -> None:
    """A cross where a probe of some completed run did not converge."""
    runs = completed(runs)
    if not runs:
        return
    block = metric.removeprefix("probe/block_")
    if metric == "probe/best":
        converged = np.min([_best_converged(run) for run in runs], axis=0)
    else:
        converged = np.min([run.metrics[f"probe/converged_{block}"][1] for run in runs], axis=0)
    steps, values = runs[0].metrics[metric][0], [run.metrics[metric][1] for run in runs]
    failed = converged < 1
    if failed.any():
        axis.plot(steps[failed], np.mean(values, 0)[failed], "x", color=colour, markersize=6)


def _best_converged(run: StoredRun) -> np.ndarray:
    """Whether the probe of the block that is best did converge, at each probe."""
    blocks = [m for m in run.metrics if m.startswith("probe/block_")]
    accuracy = np.array([run.metrics[m][1] for m in blocks])
    converged = np.array([run.metrics[m.replace("block", "converged")][1] for m in blocks])
    return np.take_along_axis(converged, accuracy.argmax(0)[None], axis=0)[0]


def probe_by_block(found: Sequence[Group]) -> Figure:
    """Linear-probe accuracy of every block over training, a panel a model."""

    def draw(part, group):
        axes = panels(part, len(group.arms()), sharey=True)
        for axis, model in zip(axes, arms_of(group), strict=True):
            runs = group.of_arm(model)
            blocks = sorted(m for m in runs[0].metrics if m.startswith("probe/block_"))
            colours = sns.color_palette("viridis", len(blocks))
            for metric, colour in zip(blocks, colours, strict=True):
                name = metric.removeprefix("probe/").replace("_", " ")
                draw_curve(axis, runs, metric, label=name, color=colour, **DOTS)
                mark_unconverged(axis, runs, metric, colour)
            axis.set_title(label(runs, 24), fontsize="small")
            axis.set_xlabel("generator updates")
            axis.locator_params(axis="x", nbins=4)
        for axis in leftmost(axes):
            axis.set_ylabel("linear probe,\ntest accuracy")
        axes[0].legend(frameon=False, fontsize="x-small")

    shows = "mean over seeds, 95 % t band"
    return rows(found, "probe by block, GAN probe", 2.4, draw, shows, panel_an_arm)


def panel_an_arm(group: Group) -> int:
    return len(group.arms())


def past_fakes(found: Sequence[Group]) -> Figure:
    """Accuracy of the discriminator at t on the fakes of the generator at s <= t, over seeds."""
    of_colours = "real against fakes, balanced\naccuracy at logit 0 (0.5: chance)"
    return _past_fakes(found, "accuracy", of_colours)


def past_fakes_auc(found: Sequence[Group]) -> Figure:
    """The same by the area under the ROC curve, which asks for no threshold."""
    return _past_fakes(found, "auc", "real against fakes,\narea under the ROC curve")


def _past_fakes(found: Sequence[Group], measure: str, of_colours: str) -> Figure:
    def draw(part, group):
        axes = panels(part, len(group.arms()), sharey=True)
        for axis, model in zip(axes, arms_of(group), strict=True):
            runs = group.of_arm(model)
            matrix = past_fakes_matrix(runs, measure)
            mesh = axis.pcolormesh(matrix.to_numpy(), cmap="RdBu", vmin=0, vmax=1)
            ticks = np.arange(0, len(matrix), max(1, len(matrix) // 4))
            axis.set_xticks(ticks[::2] + 0.5, matrix.columns[ticks[::2]])  # four panels are narrow
            axis.set_yticks(ticks + 0.5, matrix.index[ticks])
            axis.set_xlabel("generator at update")
            axis.set_title(label(runs, 24), fontsize="small")
        for axis in leftmost(axes):
            axis.set_ylabel("discriminator at update")
        part.colorbar(mesh, ax=axes, label=of_colours)

    return rows(found, "past fakes, GAN probe", 2.6, draw, "mean over seeds", panel_an_arm)


def past_fakes_matrix(runs: Sequence[StoredRun], measure: str = "accuracy") -> pd.DataFrame:
    """Accuracy or auc by discriminator (rows) and generator (columns), mean over runs; NaN for
    s > t."""
    table = pd.concat([run.table(PAST_FAKES) for run in runs])
    return table.pivot_table(index="discriminator", columns="generator", values=measure)


def figure4(found: Sequence[Group]) -> Figure:
    """The samples' distance to the test images at the end of training, a point a run: Figure 4 of
    Chen et al., arXiv 1811.11212."""

    def counted(runs):
        cells = len({grids.cell(run) for run in runs})
        return units(runs) if cells == 1 else f"{cells} settings,\n{len(runs)} runs"

    def draw(part, group):
        metrics = distance_metrics(group.runs)
        for axis, metric in zip(panels(part, len(metrics)), metrics, strict=True):
            for x, model in enumerate(arms_of(group)):
                values = [run.result[metric] for run in group.of_arm(model)]
                axis.boxplot(
                    [values],
                    positions=[x],
                    widths=0.5,
                    showfliers=False,
                    medianprops={"color": colour_of(model)},
                )
                axis.plot([x] * len(values), values, ".", color=colour_of(model), alpha=0.7)
            width = max(8, 60 // len(group.arms()) // len(metrics))
            counts = [f"{wrapped(m, width)}\n{counted(group.of_arm(m))}" for m in arms_of(group)]
            axis.set_xticks(range(len(counts)), counts)
            axis.set_ylabel("FID" if metric == "fid" else f"Fréchet distance\n{metric}")

    what = "Figure 4, distance of the samples, GAN probe"
    return rows(found, what, 2.4, draw, "median, quartiles and every run")


def quality(found: Sequence[Group]) -> Figure:
    """The same distance over training."""

    def draw(part, group):
        metrics = distance_metrics(group.runs)
        for axis, metric in zip(panels(part, len(metrics)), metrics, strict=True):
            for model in arms_of(group):
                runs = group.of_arm(model)
                draw_arm(axis, runs, metric, 30, color=colour_of(model), **DOTS)
            axis.set_xlabel("generator updates")
            axis.set_ylabel("FID" if metric == "fid" else f"Fréchet distance\n{metric}")
            legend(axis, len(group.arms()))

    return rows(found, "quality of samples, GAN probe", 2.4, draw, "mean over seeds, 95 % t band")


def samples(found: Sequence[Group]) -> Figure:
    """Samples of the same latents over training, of each model's first seed: a line a model, or
    models beside each other where each has one grid, as published runs do."""

    def across(group):
        return max(len(sample_grids(run.folder)) for run in group.runs)

    def cells(group):
        """(run, path of a grid) in lines, or None where a line has fewer."""
        of_runs = [[(run, path) for path in sample_grids(run.folder)] for run in group.runs]
        return [cell for of in of_runs for cell in (*of, *[None] * (across(group) - len(of)))]

    def per_line(group):
        return across(group) if across(group) > 1 else PER_LINE

    def draw(part, group):
        shown = cells(group)
        for axis, cell in zip(panels(part, len(shown), per_line(group)), shown, strict=True):
            axis.set_axis_off()
            if cell:
                run, path = cell
                axis.imshow(picture(path))
                state = "" if run.completed else f" ({run.status})"
                title = f"{wrapped(run.arm, 30)}, {updates(path)} updates{state}"
                axis.set_title(title, fontsize="x-small")

    def height(group):
        return 2.2 * lines(len(cells(group)), per_line(group))

    return rows(found, "samples, GAN probe", height, draw, "first seed, the same latents")


def picture(path: Folder) -> np.ndarray:
    """The PNG in a file, in a zip or not."""
    return plt.imread(io.BytesIO(path.read_bytes()))


def updates(grid: Folder) -> int:
    """samples-000400.png -> 400."""
    return int(grid.stem.split("-")[1])


def figure1(found: Sequence[Group]) -> Figure:
    """Real and generated images in four rotations with the trained discriminator's predictions, of
    the first run of a GAN with a rotation loss in each group."""

    def draw(part, group):
        (run,) = group.runs
        table = run.table("rotations.csv")
        images = split_grid(picture(run.folder / "rotations.png"), table["image"].nunique())
        axes = part.subplots(len(ROTATIONS), len(images))
        for row in table.itertuples():
            turns = row.degrees // 90
            axis = axes[turns, row.image]
            axis.imshow(np.rot90(images[row.image], turns))
            axis.set_axis_off()
            values = [getattr(row, f"q_{degrees}") for degrees in ROTATIONS]
            _bars(axis, values, turns)
            if turns == 0:
                axis.set_title(row.kind, fontsize="x-small")
            if row.image == 0:
                axis.text(-0.15, 0.5, f"{row.degrees}°", transform=axis.transAxes, ha="right")

    words = "bars: predicted probability of 0°, 90°, 180°, 270°, the right one dark and written"
    return rows(found, "Figure 1, rotations of ssgan", 5, draw, words)


def _bars(axis, values: Sequence[float], right: int) -> None:
    """Probabilities below an image, in its axes: other ones for each would take as long again."""
    below = {"transform": axis.transAxes, "clip_on": False}
    corners, base, height = np.arange(4) / 4, -0.27, 0.22
    colors = ["0.2" if i == right else "0.75" for i in range(4)]
    for x, value, color in zip(corners, values, colors, strict=True):
        axis.add_patch(Rectangle((x, base), 0.2, height * value, color=color, lw=0, **below))
    axis.plot([0, 1], [base, base], color="0.2", linewidth=0.8, **below)
    axis.text(1, base + height / 2, f"{values[right]:.2f}", fontsize=5, va="center", **below)


def split_grid(grid: np.ndarray, n: int) -> list[np.ndarray]:
    """The n images of a picture that `gan.samples.image_grid` made."""
    side = int(np.ceil(np.sqrt(n)))
    size = len(grid) // side
    corners = [(size * (i // side), size * (i % side)) for i in range(n)]
    return [grid[y : y + size - 1, x : x + size - 1] for y, x in corners]
