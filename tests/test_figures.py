"""What is drawn of the sequential study is what its runs have stored."""

import json
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import PROJECT, with_settings

from experiments.run.stored import stored_runs
from experiments.show import drawings as figures
from experiments.show import drift
from experiments.show import sequential as sequential_figures
from experiments.show.arms import WORDS, arms_of, colour_of, in_order, wrapped
from experiments.show.compare import by_learner, measures_of
from experiments.show.groups import Group, groups
from experiments.show.intervals import mean_interval, paired_interval
from experiments.show.own_tables import measures
from experiments.show.plotting import style
from forgetting.measures import TASKS, TRANSFER


@pytest.fixture
def found(sequential_runs):
    style()
    yield groups(stored_runs(sequential_runs), "sequential_tasks")
    plt.close("all")


def test_figure3_draws_the_stored_accuracies(found):
    figure = sequential_figures.figure3(found)
    axes = [a for a in figure.axes if a.get_visible()]
    for axis, arm in zip(axes[:3], ("vanilla", "rotation", "augment"), strict=True):
        runs = found[0].of_arm(arm)
        curves = np.stack([run.metrics["accuracy/current"][1] for run in runs])
        curve = next(line for line in axis.lines if line.get_linewidth() == 0.9)
        assert np.array_equal(curve.get_xdata(), runs[0].metrics["accuracy/current"][0])
        assert np.array_equal(curve.get_ydata(), curves.mean(0))
        thin = [line for line in axis.lines if line.get_linewidth() == 0.4]
        assert [line.get_ydata().tolist() for line in thin] == curves.tolist()  # of two, no band
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert [line.get_xdata()[0] for line in dashed] == [30]
        assert "2 seeds" in axis.get_title(loc="left")
    assert "handwritten digits (scikit-learn), preset quick" in figure.subfigs[0].get_suptitle()


def test_three_seeds_have_a_band(found):
    runs = found[0].of_arm("vanilla")
    third = {name: (steps, values * 0.9) for name, (steps, values) in runs[0].metrics.items()}
    runs = [*runs, replace(runs[0], seed=2, metrics=third)]
    axis = sequential_figures.figure3([Group(runs, "")]).axes[0]
    curves = np.stack([run.metrics["accuracy/current"][1] for run in runs])
    band = axis.collections[0].get_paths()[0].vertices
    intervals = [mean_interval(curves[:, k]) for k in range(curves.shape[1])]
    assert band[:, 1].max() == pytest.approx(max(interval.high for interval in intervals))
    assert band[:, 1].min() == pytest.approx(min(interval.low for interval in intervals))


def test_accuracy_matrix_draws_the_mean_over_seeds(found):
    figure = sequential_figures.accuracy_matrix(found)
    meshes = [a.collections[0] for a in figure.axes if a.get_visible() and a.collections]
    runs = found[0].of_arm("rotation")
    expected = [
        np.mean([run.metrics[f"accuracy/task_{task}"][1] for run in runs], axis=0)
        for task in range(10)
    ]
    assert np.array_equal(meshes[1].get_array(), expected)


@pytest.mark.parametrize(
    "draw,subject",
    [
        (sequential_figures.summary, TASKS),
        (sequential_figures.forgetting, TRANSFER),
    ],
)
def test_measures_are_drawn_with_intervals_and_differences(found, draw, subject):
    axes = draw(found).axes
    drawn = [m.name for m in measures_of(found[0].runs, subject)]
    for run in found[0].runs:
        cycles = run.metrics["probe/final"][1].reshape(run.config["cycles"], -1).mean(1)
        assert run.result["probe_gain"] == pytest.approx(cycles[-1] - cycles[0])
    assert len(drawn) >= 6
    for axis, measure in zip(axes, drawn, strict=False):
        by_seed = {arm: by_learner(found[0].of_arm(arm), measure) for arm in found[0].arms()}
        for bar, arm in zip(axis.containers, arms_of(found[0]), strict=True):
            interval = mean_interval(list(by_seed[arm].values()))
            assert bar.lines[0].get_ydata()[0] == pytest.approx(interval.mean)
            segment = bar.lines[2][0].get_segments()[0][:, 1]
            assert segment == pytest.approx([interval.low, interval.high])
        difference = paired_interval(by_seed["rotation"], by_seed["vanilla"])
        assert f"{difference.mean:+.3f}" in axis.get_xlabel()


def test_what_falls_with_a_shared_head_is_not_called_forgetting(found):
    shared = [Group([with_settings(run, head="shared") for run in found[0].runs], "")]
    figure = sequential_figures.forgetting(sequential_figures.head_a_task(shared))
    assert "head=per_task: no completed run" in figure.texts[0].get_text()


def test_representation_draws_the_stored_probes(found):
    axis = sequential_figures.representation(found).axes[0]
    curves = [line for line in axis.lines if line.get_marker() == "."]
    for line, arm in zip(curves, arms_of(found[0]), strict=True):
        runs = found[0].of_arm(arm)
        stored = np.mean([run.metrics["probe/final"][1] for run in runs], axis=0)
        assert np.array_equal(line.get_ydata(), stored)
        assert line.get_xdata().tolist() == list(range(3, 61, 3))


def test_drift_is_drawn_as_stored(found):
    group = next(group for group in found if len(group.arms()) == 3)
    shown = drift.with_drift([group])
    assert [len(g.runs) for g in shown] == [6]
    figure = drift.drift(shown)
    for axis, arm in zip(figure.axes, arms_of(group), strict=False):
        tables = [run.table("drift.csv") for run in group.of_arm(arm)]
        values = np.asarray(axis.collections[0].get_array())
        assert values.shape == (21, 21) and (np.diag(values) == 1).all()
        steps = sorted({*tables[0]["step"], *tables[0]["earlier"]})
        for (_, one), (_, other) in zip(*(table.iterrows() for table in tables), strict=True):
            i, j = steps.index(one["step"]), steps.index(one["earlier"])
            assert values[i, j] == values[j, i] == pytest.approx((one["cka"] + other["cka"]) / 2)
    planted = Group(
        [replace(run, identity=run.identity | {"plant_updates": 50}) for run in group.runs], ""
    )
    assert [g.runs for g in drift.with_drift([group, planted])] == [planted.runs]
    some = Group([run for run in planted.runs if run.arm != "rotation"], "")
    only_bare = [run for run in group.runs if run.arm == "rotation"]
    assert [g.runs for g in drift.with_drift([group, some])] == [some.runs, only_bare]
    older = replace(
        group.runs[0], folder=PROJECT / "results/reference/sequential_tasks-cpu-vanilla-0"
    )
    assert drift.with_drift([Group([older], "")]) == []


def test_the_control_has_its_panel_without_a_rotation_run(found):
    runs = [run for run in found[0].runs if run.arm != "rotation"]
    axes = sequential_figures.figure3([Group(runs, "")]).axes
    titles = [axis.get_title(loc="left") for axis in axes]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)"] and "control" in titles[2]
    assert "no run" in titles[1] and axes[1].texts[0].get_text() == "no run of this arm"


@pytest.fixture
def unforeseen(sequential_runs, tmp_path):
    """The sequential runs, those of vanilla and rotation also as arms that nobody foresaw."""
    runs = tmp_path / "runs"
    shutil.copytree(sequential_runs, runs)
    for i, arm in (("1", "ewc"), ("2", "ewc"), ("3", "rotation+ewc")):
        shutil.copytree(sequential_runs / i, runs / f"1{i}")
        path = runs / f"1{i}" / "config.json"
        asked = {"method": arm, "ewc": {"weight": 10 if "+" in arm else 100}}
        path.write_text(json.dumps(json.loads(path.read_text()) | asked))
    return runs


def test_an_arm_that_nobody_foresaw_is_drawn_like_the_others(unforeseen, tmp_path, capsys):
    style()  # by which titles are on the left, whatever ran before
    group = groups(stored_runs(unforeseen), "sequential_tasks")[0]
    arms = ["vanilla", "rotation", "augment", "ewc", "ewc+rotation(ewc.weight=10)"]
    assert arms_of(group) == arms
    axes = sequential_figures.figure3([group]).axes
    assert [axis.get_title(loc="left")[:3] for axis in axes] == ["(a)", "(b)", "(c)", "(d)", "(e)"]
    for axis, arm in zip(axes, arms, strict=True):
        curve = next(line for line in axis.lines if line.get_linewidth() == 0.9)
        curves = [run.metrics["accuracy/current"][1] for run in group.of_arm(arm)]
        assert np.array_equal(curve.get_ydata(), np.mean(curves, 0))
        assert curve.get_color() == colour_of(arm)
        words = WORDS["sequential_tasks"].get(arm, arm)
        assert words in axis.get_title(loc="left").replace("\n", "")
    axes = sequential_figures.accuracy_matrix([group]).axes
    assert [axis.get_title(loc="left") for axis in axes if axis.collections][3] == "ewc, 2 seeds"
    for axis in sequential_figures.summary([group]).axes:
        assert len(axis.containers) == 5
    legend = sequential_figures.representation([group]).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()][3:] == [
        "ewc, 2 seeds",
        "ewc+rotation(ewc.weight=10), 1 seed",
    ]
    plt.close("all")
    table = measures(group.runs)
    assert list(table)[4:9] == arms and (table[arms] != "").all(axis=None)
    assert table["ewc"].tolist() == table["vanilla"].tolist()
    # And all of it by the command's own way, none passed over.
    written = figures.draw([unforeseen], tmp_path / "out", page=tmp_path / "out/report.html")
    assert "ewc" in written[-1].read_text() and not capsys.readouterr().err
    assert ",ewc - vanilla," in (tmp_path / "out/differences.csv").read_text()


def test_an_arms_colour_is_its_own_wherever_it_is_drawn():
    arms = ["ewc", "uncond+ewc", "replay", "rotation(rotation_weight=0.5)", "ssgan(alpha=1.0)"]
    arms += [arm for known in WORDS.values() for arm in known]
    of_study = [{colour_of(arm) for arm in arms if arm not in of} for of in WORDS.values()]
    assert [len(colours) for colours in of_study] == [5 + 5, 5 + 4]
    assert all(0 <= channel <= 1 for arm in arms for channel in colour_of(arm))
    assert colour_of("ewc") == colour_of("ewc") != colour_of("EWC")
    shown = in_order("sequential_tasks", ["replay", "augment", "ewc", "vanilla"])
    assert shown == ["vanilla", "augment", "ewc", "replay"]
    assert wrapped("rotation+ewc(weight=10)", 12) == "rotation+\newc(\nweight=10)"
    assert wrapped("control: rotated, no loss", 17) == "control: rotated,\nno loss"
