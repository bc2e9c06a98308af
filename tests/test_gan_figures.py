"""What is drawn of the GAN study is what its runs have stored."""

import csv
import dataclasses
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.results import export
from experiments.run.stored import sample_grids, stored_runs
from experiments.show import gan as gan_figures
from experiments.show import own_tables
from experiments.show.arms import colour_of
from experiments.show.groups import Group, groups
from experiments.show.plotting import style
from forgetting.methods import PLAIN, available


@pytest.fixture
def found(gan_runs):
    style()
    yield groups(stored_runs(gan_runs), "gan_probe")
    plt.close("all")


def test_figure2_draws_the_stored_probes(found):
    axes = gan_figures.figure2(found).axes
    assert len(axes) == 2
    for axis, metric in zip(axes, ("probe/final_layer", "probe/best"), strict=True):
        means = [line for line in axis.lines if line.get_marker() == "."]
        assert len(means) == 3
        for line, model in zip(means, ("uncond", "ssgan", "rotation_only"), strict=True):
            runs = found[0].of_arm(model)
            curves = np.stack([run.metrics[metric][1] for run in runs])
            assert np.array_equal(line.get_ydata(), curves.mean(0))
            assert line.get_xdata().tolist() == [0, 2, 4]
        thin = [line.get_ydata().tolist() for line in axis.lines if line.get_linewidth() == 0.4]
        curves = [
            r.metrics[metric][1].tolist() for m in ("uncond", "ssgan") for r in found[0].of_arm(m)
        ]
        assert thin == curves  # of two seeds, no band
        lines = {line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"}
        untrained = np.mean([run.metrics[metric][1][0] for run in found[0].runs])
        stored = {untrained}
        if metric == "probe/final_layer":
            stored.add(np.mean([run.result["probe_pixels"] for run in found[0].runs]))
        assert lines == stored


def test_figure2_of_older_runs_has_the_best_block_alone(found):
    older = [
        dataclasses.replace(
            run, metrics={k: v for k, v in run.metrics.items() if k != "probe/final_layer"}
        )
        for run in found[0].runs
    ]
    (axis,) = gan_figures.figure2([Group(older, "")]).axes
    assert "best block" in axis.get_ylabel()


def test_every_block_is_drawn(found):
    axes = gan_figures.probe_by_block(found).axes
    runs = found[0].of_arm("ssgan")
    means = [line for line in axes[1].lines if line.get_marker() == "."]
    for block, line in enumerate(means, start=1):
        stored = np.mean([run.metrics[f"probe/block_{block}"][1] for run in runs], axis=0)
        assert np.array_equal(line.get_ydata(), stored)
    assert len(means) == 4


@pytest.mark.parametrize("name,measure", [("past_fakes", "accuracy"), ("past_fakes_auc", "auc")])
def test_past_fakes_are_drawn_as_stored(found, name, measure):
    axes = getattr(gan_figures, name)(gan_figures.with_past_fakes(found)).axes
    drawn = axes[1].collections[0].get_array()
    assert axes[1].collections[0].get_clim() == (0, 1)
    tables = [
        {
            (int(r["discriminator"]), int(r["generator"])): float(r[measure])
            for r in csv.DictReader((run.folder / "past_fakes.csv").open())
        }
        for run in found[0].of_arm("ssgan")
    ]
    for i, t in enumerate((0, 2, 4)):
        for j, s in enumerate((0, 2, 4)):
            if s > t:
                assert np.ma.getmaskarray(drawn)[i, j] or np.isnan(drawn[i, j])
            else:
                assert drawn[i, j] == pytest.approx(np.mean([table[t, s] for table in tables]))


def test_figure1_shows_the_stored_predictions_under_the_turned_images(found):
    figure = gan_figures.figure1(gan_figures.with_rotations(found))
    run = found[0].of_arm("ssgan")[0]
    rows = list(csv.DictReader((run.folder / "rotations.csv").open()))
    assert len(rows) == 4 * 8 and {r["kind"] for r in rows} == {"real", "generated"}
    images = gan_figures.split_grid(plt.imread(run.folder / "rotations.png"), 8)
    for row in rows:
        axis = figure.axes[int(row["degrees"]) // 90 * 8 + int(row["image"])]
        upright = images[int(row["image"])]
        turned = np.rot90(upright, int(row["degrees"]) // 90)
        assert np.array_equal(axis.images[0].get_array(), turned)
        heights = np.array([bar.get_height() for bar in axis.patches])
        probabilities = [float(row[f"q_{d}"]) for d in (0, 90, 180, 270)]
        assert heights / heights.sum() == pytest.approx(probabilities, abs=1e-5)
        right = float(row[f"q_{row['degrees']}"])
        assert axis.texts[0].get_text() == f"{right:.2f}"


def test_samples_are_the_stored_grids(found):
    figure = gan_figures.samples(gan_figures.first_seeds(found))
    run = found[0].of_arm("uncond")[0]
    shown = figure.axes[2].images[0].get_array()
    assert np.array_equal(shown, plt.imread(run.folder / "samples-000004.png"))


def test_models_with_one_grid_each_stand_beside_each_other(gan_runs, tmp_path):
    export([gan_runs], tmp_path)
    found = gan_figures.first_seeds(groups(stored_runs(tmp_path), "gan_probe"))
    figure = gan_figures.samples(found)
    of_runs = [sample_grids(run.folder) for group in found for run in group.runs]
    assert len(figure.axes) == len(of_runs) and all(len(grids) == 1 for grids in of_runs)
    assert len({round(axis.get_position().y0, 3) for axis in figure.axes}) == len(found)


def test_figure4_draws_every_seeds_distance(found):
    (axis,) = gan_figures.figure4(gan_figures.measured(found)).axes
    points = [line for line in axis.lines if line.get_marker() == "."]
    for x, (line, model) in enumerate(zip(points, ("uncond", "ssgan"), strict=True)):
        stored = [run.result["fd_digits_cnn"] for run in found[0].of_arm(model)]
        assert line.get_ydata().tolist() == stored and set(line.get_xdata()) == {x}
    medians = [line for line in axis.lines if line.get_color() == colour_of("ssgan")]
    assert np.median(stored) == pytest.approx(medians[0].get_ydata()[0])
    assert "fd_digits_cnn" in axis.get_ylabel() and "FID" not in axis.get_ylabel()


def test_quality_is_drawn_along_training(found):
    (axis,) = gan_figures.quality(gan_figures.measured(found)).axes
    means = [line for line in axis.lines if line.get_marker() == "."]
    for line, model in zip(means, ("uncond", "ssgan"), strict=True):
        curves = [run.metrics["fd_digits_cnn"][1] for run in found[0].of_arm(model)]
        assert np.array_equal(line.get_ydata(), np.mean(curves, axis=0))


def test_a_probe_that_did_not_converge_is_marked(found):
    run = found[0].of_arm("uncond")[0]
    steps, converged = run.metrics["probe/converged_2"]
    failed = dataclasses.replace(
        run, metrics={**run.metrics, "probe/converged_2": (steps, np.array([1.0, 0.0, 1.0]))}
    )
    assert converged.tolist() == [1, 1, 1]
    (axis,) = gan_figures.probe_by_block([Group([failed], "")]).axes
    (cross,) = [line for line in axis.lines if line.get_marker() == "x"]
    assert cross.get_xdata().tolist() == [2]
    # The best block's line is marked where that very block failed.
    blocks = np.array([run.metrics[f"probe/block_{i}"][1] for i in range(1, 5)])
    best = int(blocks[:, 1].argmax()) + 1
    for block, crosses in ((best, [[2]]), (best % 4 + 1, [])):
        broken = {**run.metrics, f"probe/converged_{block}": (steps, np.array([1.0, 0.0, 1.0]))}
        _, axis = gan_figures.figure2([Group([dataclasses.replace(run, metrics=broken)], "")]).axes
        drawn = [line for line in axis.lines if line.get_marker() == "x"]
        assert [line.get_xdata().tolist() for line in drawn] == crosses


def test_a_damaged_table_is_named_and_passed_over(gan_runs, tmp_path, capsys):
    shutil.copytree(gan_runs, tmp_path / "runs")
    for run, name in (("1", "past_fakes.csv"), ("2", "rotations.csv")):
        (tmp_path / "runs" / run / name).write_text("")
    found = groups(stored_runs(tmp_path / "runs"), "gan_probe")
    shown = gan_figures.with_past_fakes(found)
    assert "1/past_fakes.csv: " in capsys.readouterr().err
    assert [run.id for group in shown for run in group.runs] == ["2", "3", "4"]
    (group,) = gan_figures.with_rotations(found)
    assert [run.id for run in group.runs] == ["4"]
    table = own_tables.of_past_fakes([run for group in shown for run in group.runs])
    assert table["uncond"][0] and table.loc[1, "measure"].startswith("its drop since")


def test_beside_many_methods_figure_2_has_the_gans_of_the_paper(found):
    one = found[0].of_arm("uncond")[0]
    many = [
        dataclasses.replace(one, folder=Path(name), arm=f"uncond+{name}")
        for name in available()
        if name not in (PLAIN, "supervised")
    ]
    group = Group([*found[0].runs, *many], "")
    axes = gan_figures.figure2([group]).axes
    named = {text.get_text() for text in axes[-1].get_legend().get_texts()}
    arms = [arm for arm in found[0].arms() if arm != "supervised"]
    assert len(named) == len(arms) < len(group.arms())
    assert all(any(words in text for text in named) for words in ("unconditional", "SS-GAN"))
