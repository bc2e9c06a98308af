"""Figures of the discriminator-probe study."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from experiments.plotting import WIDTH, draw_curve, empty, panels, rows, seeds
from experiments.results import Group, StoredRun

MODELS = {
    "uncond": "unconditional GAN",
    "cond": "conditional GAN",
    "ssgan": "SS-GAN (rotation loss)",
    "ssgan_sbn": "SS-GAN (sBN)",
    "rotation_only": "rotation only",
}
COLOURS = dict(zip(MODELS, sns.color_palette("colorblind"), strict=False))
DOTS = {"marker": ".", "markersize": 3, "linewidth": 1}
ROTATIONS = (0, 90, 180, 270)


def models(group: Group) -> list[str]:
    return [model for model in MODELS if model in group.arms()]


def with_metric(found: Sequence[Group], metric: str) -> list[Group]:
    """The groups, without the runs that never logged the metric (unlabelled images have no probe,
    and rotation_only has no fakes)."""
    kept = [
        Group([run for run in group.runs if metric in run.metrics], group.differs)
        for group in found
    ]
    return [group for group in kept if group.runs]


def figure2(found: Sequence[Group]) -> Figure:
    """Linear-probe accuracy over GAN iterations: Figure 2 of Chen et al., arXiv 1811.11212."""

    def draw(part, group):
        (axis,) = panels(part, 1)
        for model in models(group):
            runs = group.of_arm(model)
            label = f"{MODELS[model]}, {seeds(len(runs))}"
            draw_curve(axis, runs, "probe/best", label=label, color=COLOURS[model], **DOTS)
        axis.set_xlabel("generator updates")
        axis.set_ylabel("linear probe of the\nbest block, test accuracy")
        axis.legend(frameon=False, fontsize="x-small")

    found = with_metric(found, "probe/best")
    return rows(found, "Figure 2, GAN probe", 2.6, draw, "mean over seeds, 95 % t band")


def probe_by_block(found: Sequence[Group]) -> Figure:
    """Linear-probe accuracy of every block over training, a panel a model."""

    def draw(part, group):
        axes = panels(part, len(models(group)), sharey=True)
        for axis, model in zip(axes, models(group), strict=True):
            runs = group.of_arm(model)
            blocks = sorted(m for m in runs[0].metrics if m.startswith("probe/block_"))
            colours = sns.color_palette("viridis", len(blocks))
            for metric, colour in zip(blocks, colours, strict=True):
                label = metric.removeprefix("probe/").replace("_", " ")
                draw_curve(axis, runs, metric, label=label, color=colour, **DOTS)
            axis.set_title(f"{model}, {seeds(len(runs))}", fontsize="small")
            axis.set_xlabel("generator updates")
            axis.locator_params(axis="x", nbins=4)
        axes[0].set_ylabel("linear probe,\ntest accuracy")
        axes[0].legend(frameon=False, fontsize="x-small")

    found = with_metric(found, "probe/best")
    return rows(found, "probe by block, GAN probe", 2.4, draw, "mean over seeds, 95 % t band")


def past_fakes(found: Sequence[Group]) -> Figure:
    """Accuracy of the discriminator at t on the fakes of the generator at s <= t, over seeds."""

    def draw(part, group):
        axes = panels(part, len(models(group)), sharey=True)
        for axis, model in zip(axes, models(group), strict=True):
            runs = group.of_arm(model)
            matrix = past_fakes_matrix(runs)
            mesh = axis.pcolormesh(matrix.to_numpy(), cmap="RdBu", vmin=0, vmax=1)
            ticks = np.arange(0, len(matrix), max(1, len(matrix) // 4))
            axis.set_xticks(ticks + 0.5, matrix.columns[ticks])
            axis.set_yticks(ticks + 0.5, matrix.index[ticks])
            axis.set_xlabel("generator at update")
            axis.set_title(f"{model}, {seeds(len(runs))}", fontsize="small")
        axes[0].set_ylabel("discriminator at update")
        part.colorbar(
            mesh, ax=axes, label="real against fakes, balanced\naccuracy at logit 0 (0.5: chance)"
        )

    found = with_metric(found, "past_fakes/accuracy")
    return rows(found, "past fakes, GAN probe", 2.6, draw, "mean over seeds")


def past_fakes_matrix(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Accuracy by discriminator (rows) and generator (columns), mean over runs; NaN for s > t."""
    table = pd.concat([pd.read_csv(run.folder / "past_fakes.csv") for run in runs])
    return table.pivot_table(index="discriminator", columns="generator", values="accuracy")


def samples(found: Sequence[Group]) -> Figure:
    """Samples of the same latents over training, a row a model, of its first seed."""
    found = [
        Group([group.of_arm(model)[0]], group.differs)
        for group in with_metric(found, "past_fakes/accuracy")
        for model in models(group)
    ]

    def draw(part, group):
        (run,) = group.runs
        grids = sorted(run.folder.glob("samples-*.png"), key=updates)
        last = len(grids) - 1
        shown = [grids[i] for i in sorted({0, last // 3, 2 * last // 3, last})]
        for axis, path in zip(panels(part, len(shown)), shown, strict=True):
            axis.imshow(plt.imread(path))
            axis.set_axis_off()
            axis.set_title(f"{run.arm}, {updates(path)} updates", fontsize="x-small")

    return rows(found, "samples, GAN probe", 2.2, draw, "first seed, the same latents")


def updates(grid: Path) -> int:
    """samples-000400.png -> 400."""
    return int(grid.stem.split("-")[1])


def figure1(found: Sequence[Group]) -> Figure:
    """Real and generated images in four rotations with the trained discriminator's predictions, of
    the first run of a GAN with a rotation loss."""
    runs = [
        group.of_arm(model)[0]
        for group in found
        for model in models(group)
        if model in ("ssgan", "ssgan_sbn")
    ]
    if not runs:
        return empty("Figure 1, rotations: no completed run of ssgan")
    run = runs[0]
    table = pd.read_csv(run.folder / "rotations.csv")
    images = split_grid(plt.imread(run.folder / "rotations.png"), table["image"].nunique())
    figure, axes = plt.subplots(len(ROTATIONS), len(images), figsize=(WIDTH, 4.8))
    figure.suptitle(
        f"{run.data}, preset {run.preset}, {run.arm}, seed {run.seed}; "
        "bars: predicted probability of 0°, 90°, 180°, 270° (right one dark)",
        fontsize="small",
        x=0.01,
        ha="left",
    )
    for row in table.itertuples():
        turns = row.degrees // 90
        axis = axes[turns, row.image]
        axis.imshow(np.rot90(images[row.image], turns))
        axis.set_axis_off()
        bars = axis.inset_axes([0, -0.27, 1, 0.22])
        values = [getattr(row, f"q_{degrees}") for degrees in ROTATIONS]
        bars.bar(range(4), values, color=["0.2" if i == turns else "0.75" for i in range(4)])
        bars.set(ylim=(0, 1), xticks=[], yticks=[])
        if turns == 0:
            axis.set_title(row.kind, fontsize="x-small")
        if row.image == 0:
            axis.text(-0.15, 0.5, f"{row.degrees}°", transform=axis.transAxes, ha="right")
    return figure


def split_grid(grid: np.ndarray, n: int) -> list[np.ndarray]:
    """The n images of a picture that `gan.probe_study.image_grid` made."""
    side = int(np.ceil(np.sqrt(n)))
    size = len(grid) // side
    corners = [(size * (i // side), size * (i % side)) for i in range(n)]
    return [grid[y : y + size - 1, x : x + size - 1] for y, x in corners]
