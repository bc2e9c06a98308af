"""What is drawn is what is stored."""

import json
import math
import shlex
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import PROJECT, TINY, command

from experiments import sequential_tasks
from experiments.results import export
from experiments.run import runner
from experiments.run.stored import load_runs, stored_runs
from experiments.show import drawings as figures
from experiments.show import sequential as sequential_figures
from experiments.show.groups import Group, groups
from experiments.show.intervals import Interval, holm, mean_interval, paired_interval
from experiments.show.plotting import style
from experiments.show.tables import TABLES, claims, measures, verdict
from forgetting.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three arms of two seeds with a head a task, and one vanilla run of another width."""
    folder = tmp_path_factory.mktemp("runs")
    for arguments in (
        *([f"method={m}", f"seed={s}"] for m in ("vanilla", "rotation", "augment") for s in (0, 1)),
        ["method=vanilla", "width=5"],
    ):
        with pytest.raises(SystemExit) as end:
            runner.main(
                sequential_tasks.STUDY,
                [
                    "x",
                    "with",
                    *TINY,
                    "cycles=2",
                    "head=per_task",
                    f"results_dir={folder}",
                    *arguments,
                ],
            )
        assert end.value.code == 0
    return folder


@pytest.fixture
def found(folder):
    style()
    yield groups(stored_runs(folder), "sequential_tasks")
    plt.close("all")


def test_runs_become_one_tidy_table(folder):
    table = load_runs(folder)
    assert list(table) == [
        "run", "study", "data", "preset", "arm", "seed", "metric", "step", "value",
    ]  # fmt: skip
    stored = json.loads((folder / "3" / "metrics.json").read_text())["accuracy/task_2"]
    rows = table[(table.run == "3") & (table.metric == "accuracy/task_2")]
    assert rows.step.tolist() == stored["steps"] and rows.value.tolist() == stored["values"]
    assert (rows.arm.unique(), rows.seed.unique()) == (["rotation"], [0])


def test_runs_of_other_settings_are_never_pooled(found):
    assert [len(group.runs) for group in found] == [6, 1]
    assert "width=4" in found[0].title and "width=5" in found[1].title


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
    "draw,measures",
    [
        (sequential_figures.summary, sequential_figures.MEASURES),
        (sequential_figures.forgetting, sequential_figures.TRANSFER_MEASURES),
    ],
)
def test_measures_are_drawn_with_intervals_and_differences(found, draw, measures):
    axes = draw(found).axes
    drawn = [m for m in measures if m in found[0].runs[0].result]
    for run in found[0].runs:
        cycles = run.metrics["probe/final"][1].reshape(run.config["cycles"], -1).mean(1)
        assert run.result["probe_gain"] == pytest.approx(cycles[-1] - cycles[0])
    assert len(drawn) >= 6
    for axis, measure in zip(axes, drawn, strict=False):
        by_seed = {
            arm: {run.seed: run.result[measure] for run in found[0].of_arm(arm)}
            for arm in found[0].arms()
        }
        for bar, arm in zip(axis.containers, sequential_figures.ARMS, strict=True):
            interval = mean_interval(list(by_seed[arm].values()))
            assert bar.lines[0].get_ydata()[0] == pytest.approx(interval.mean)
            segment = bar.lines[2][0].get_segments()[0][:, 1]
            assert segment == pytest.approx([interval.low, interval.high])
        difference = paired_interval(by_seed["rotation"], by_seed["vanilla"])
        assert f"{difference.mean:+.3f}" in axis.get_xlabel()


def test_the_table_holds_the_same_numbers(found):
    table = measures(found[0].runs)
    by_seed = {
        arm: {run.seed: run.result["recovery"] for run in found[0].of_arm(arm)}
        for arm in found[0].arms()
    }
    (row,) = [row for _, row in table.iterrows() if row["measure"].startswith("recovery")]
    interval = mean_interval(list(by_seed["augment"].values()))
    assert row["augment"] == f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    difference = paired_interval(by_seed["rotation"], by_seed["augment"])
    text = row["rotation - augment"]
    assert text.startswith(f"{difference.mean:+.3f} [{difference.low:+.3f}")
    assert text.endswith("undecided") == (difference.low <= 0 <= difference.high)


def test_claims_are_corrected_as_a_family(found):
    table = claims(found[0].runs)
    differences = [
        paired_interval(
            {run.seed: run.result["cycle_gain"] for run in found[0].of_arm("rotation")},
            {run.seed: run.result["cycle_gain"] for run in found[0].of_arm(other)},
        )
        for other in ("vanilla", "augment")
    ]
    expected = holm([difference.p for difference in differences])
    assert table["p, Holm"].tolist() == [f"{p:.3f}" for p in expected]
    for text, difference in zip(table["difference"], differences, strict=True):
        assert text.startswith(f"{difference.mean:+.3f} [")
    # Runs of the other precision are looked at in a family of their own.
    other = {"fp32": "bf16", "bf16": "fp32"}
    precision = {"precision": other[found[0].runs[0].config["precision"]]}
    twins = [
        replace(run, config=run.config | precision, identity=run.identity | precision)
        for run in found[0].runs
    ]
    assert claims([*found[0].runs, *twins])["p, Holm"].tolist() == 2 * table["p, Holm"].tolist()
    # Seeds that do not differ at all are undecided, and one claim of the family all the same.
    of_vanilla = {run.seed: run.result["cycle_gain"] for run in found[0].of_arm("vanilla")}
    even = [
        replace(run, result={**run.result, "cycle_gain": of_vanilla[run.seed]})
        if run.arm == "augment"
        else run
        for run in found[0].runs
    ]
    same = [replace(run, arm="rotation") for run in even if run.arm == "augment"]
    rest = [run for run in even if run.arm != "rotation"]
    table = claims([*rest, *same])
    assert table["p, Holm"].tolist() == ["1.000"] * 2
    assert table["verdict"].tolist() == ["undecided"] * 2
    sure = Interval(0.1, 0.05, 0.15, 5, 0.001)
    assert verdict(sure, 0.002, True) == "confirmed" and verdict(sure, 0.002, False) == "against"
    assert verdict(sure, 0.06, True) == "undecided"
    assert verdict(sure._replace(low=-0.01), 0.002, True) == "undecided"
    assert verdict(sure, math.nan, True) == "undecided"


def test_what_falls_with_a_shared_head_is_not_called_forgetting(found):
    shared = [
        Group([replace(run, config={**run.config, "head": "shared"}) for run in found[0].runs], "")
    ]
    figure = sequential_figures.forgetting(sequential_figures.head_a_task(shared))
    assert "head=per_task: no completed run" in figure.texts[0].get_text()


def test_the_command_draws_from_whatever_is_there(folder, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(folder, runs)
    (runs / "1" / "metrics.json").write_text('{"accuracy/current": {"st')
    (runs / "foreign").mkdir()
    (runs / "foreign" / "run.json").write_text('{"status": "COMPLETED"}')
    record = json.loads((runs / "2" / "run.json").read_text())
    (runs / "2" / "run.json").write_text(json.dumps({**record, "status": "INTERRUPTED"}))
    done = command("figures.py", "--runs", "runs", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "passed over runs/1: metrics.json is no whole JSON" in done.stderr
    assert "passed over runs/foreign" in done.stderr
    assert "left out, not complete: 1 interrupted" in done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *(f"{name}.{suffix}" for name in figures.FIGURES for suffix in ("pdf", "png")),
        *(f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")),
        "report.html",
    }
    assert "Left out, not complete: 1 interrupted" in (tmp_path / "out/report.html").read_text()


def test_a_run_that_no_check_foresaw_leaves_the_other_figures(found, tmp_path, capsys):
    run = found[0].runs[0]
    metrics = {name: m for name, m in run.metrics.items() if name != "accuracy/current"}
    path, entry = figures._figure("figure3", [replace(run, metrics=metrics)], tmp_path)
    assert path.stat().st_size > 1000 and entry.runs == []
    assert "figure3: cannot be made from these runs: KeyError" in capsys.readouterr().err


def test_without_runs_every_figure_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("figures.py", "--runs", "empty", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("figure1", "figure2", "figure3", "figure4", "summary", "samples"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000
    assert "CIFAR-10,,,cond,,,15.60," in (tmp_path / "out/table1.csv").read_text()
    assert "CIFAR-10,,,rotation_only,,best,,0.762" in (tmp_path / "out/table3.csv").read_text()
    assert (tmp_path / "out/table2.csv").read_text().count("gradient penalty 10") == 6
    figure = sequential_figures.figure3([])
    assert figure.texts[0].get_text() == "Figure 3, sequential tasks: no completed run"
    for arguments, line in (
        (["--only", "figure9"], "error: --only: no figure 'figure9'; there are figure1, "),
        (["--runs", "nowhere"], "error: --runs: there is no folder nowhere"),
    ):
        done = command("figures.py", *arguments, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1


def test_representation_draws_the_stored_probes(found):
    axis = sequential_figures.representation(found).axes[0]
    curves = [line for line in axis.lines if line.get_marker() == "."]
    for line, arm in zip(curves, sequential_figures.ARMS, strict=True):
        runs = found[0].of_arm(arm)
        stored = np.mean([run.metrics["probe/final"][1] for run in runs], axis=0)
        assert np.array_equal(line.get_ydata(), stored)
        assert line.get_xdata().tolist() == list(range(3, 61, 3))


def test_the_control_has_its_panel_without_a_rotation_run(found):
    runs = [run for run in found[0].runs if run.arm != "rotation"]
    axes = sequential_figures.figure3([Group(runs, "")]).axes
    titles = [axis.get_title(loc="left") for axis in axes]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)"] and "control" in titles[2]
    assert "0 seeds" in titles[1] and axes[1].texts[0].get_text() == "no run of this arm"


def test_a_command_makes_the_run_again(found):
    run = found[0].of_arm("rotation")[1]
    words = shlex.split(run.command)
    assert words[:4] == ["python", "experiments/sequential_tasks.py", "with", "quick"]
    assert words[-2:] == ["method=rotation", "seed=1"] and "width=4" in words
    assert words[-4:-2] == [f"{key}={run.config[key]}" for key in ("device", "precision")]
    assert not any(word.startswith("results_dir") for word in words)
    by_the_machine = replace(run, asked=("width=4",))
    assert by_the_machine.command == shlex.join([*words[:4], "width=4", *words[-4:]])


def test_published_runs_hold_no_paths_host_or_weights(folder, tmp_path):
    assert export([folder], tmp_path / "a") == 7
    copies = [run.identity for run in stored_runs(tmp_path / "a")]
    assert all(run.identity in copies for run in stored_runs(folder)) and len(copies) == 7
    for run in stored_runs(tmp_path / "a"):  # their command lines are still such
        assert all("=" in word or word == "quick" for word in run.asked), run.asked
    for wrong in (folder, tmp_path / "missing"):
        with pytest.raises(UserError):
            export([wrong], folder)
    text = ""
    for path in (tmp_path / "a").rglob("*"):
        assert path.suffix in ("", ".json", ".txt"), path
        text += path.read_text() if path.is_file() else ""
    assert str(folder) not in text and str(PROJECT) not in text and "hostname" not in text


def test_an_arm_nobody_foresaw_is_drawn_like_the_others(folder, tmp_path):
    shutil.copytree(folder / "1", tmp_path / "1")
    path = tmp_path / "1/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": "ewc"}))
    (run,) = stored_runs(tmp_path)
    assert run.arm == "ewc"


def test_a_users_run_replaces_an_equal_reference_run(folder, tmp_path):
    runs = stored_runs(folder, folder)
    assert len(runs) == 7 and {run.folder.parent for run in runs} == {folder}
    with pytest.raises(FileNotFoundError):
        load_runs(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert {run.folder.parent for run in stored_runs(copy, folder)} == {copy}


@pytest.mark.parametrize(
    "file,change",
    [
        ("run.json", {"result": None}),
        ("config.json", {"seed": "x"}),
        ("config.json", {"method": ["x"]}),
        ("metrics.json", {"probe/final": {"steps": [], "values": [], "timestamps": []}}),
        ("metrics.json", {"accuracy/current": {"steps": [1], "values": [0.5], "timestamps": []}}),
    ],
)
def test_a_foreign_value_in_a_run_is_not_fatal(file, change, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "runs")
    path = tmp_path / "runs/1" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    names = ["figure3", "summary", "measures", "claims"]
    assert len(figures.draw([tmp_path / "runs"], tmp_path / "out", names)) == 4
    err = capsys.readouterr().err
    assert "passed over" in err or "cannot be made from these runs" in err
