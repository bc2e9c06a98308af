"""What is drawn is what is stored."""

import json
import math
import shlex
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import PROJECT, TINY, command, with_settings

from experiments import sequential_tasks
from experiments.results import export
from experiments.run import runner
from experiments.run.stored import load_runs, stored_runs
from experiments.show import drawings as figures
from experiments.show import drift, own_tables
from experiments.show import sequential as sequential_figures
from experiments.show.arms import WORDS, arms_of, colour_of, in_order, wrapped
from experiments.show.compare import (
    Judged,
    alike_but_one,
    by_learner,
    measures_of,
    negative,
    pairs,
)
from experiments.show.groups import Group, groups
from experiments.show.intervals import Interval, holm, mean_interval, paired_interval
from experiments.show.own_tables import claims, measures
from experiments.show.plotting import style
from experiments.show.tables import TABLES
from experiments.sweeps.claims import Claim, Term
from forgetting.errors import UserError
from forgetting.measures import TASKS, TRANSFER

PAIR = (Term(1, "a", {}), Term(-1, "b", {}))


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


def test_the_table_holds_the_same_numbers(found):
    table = measures(found[0].runs)
    by_seed = {arm: by_learner(found[0].of_arm(arm), "recovery") for arm in found[0].arms()}
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
            *(by_learner(found[0].of_arm(arm), "cycle_gain") for arm in ("rotation", other))
        )
        for other in ("vanilla", "augment")
    ]
    expected = holm([difference.p for difference in differences])
    assert table["p, Holm"].tolist() == [f"{p:.3f}" for p in expected]
    for text, difference in zip(table["difference"], differences, strict=True):
        assert text.startswith(f"{difference.mean:+.3f} [")
    # Runs of the other precision are looked at in a family of their own.
    other = {"fp32": "bf16", "bf16": "fp32"}
    precision = other[found[0].runs[0].config["precision"]]
    twins = [with_settings(run, precision=precision) for run in found[0].runs]
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


@pytest.mark.parametrize(
    "expected,low,p,verdict",
    [
        ("above", 0.05, 0.002, "confirmed"),
        ("below", 0.05, 0.002, "confirmed"),  # the difference is above zero where the words hold
        ("not above", 0.05, 0.002, "against"),
        ("above", 0.05, 0.06, "undecided"),
        ("above", -0.01, 0.002, "undecided"),
        ("above", 0.05, math.nan, "undecided"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_holms_p(expected, low, p, verdict):
    claim = Claim("words", "recovery", expected, PAIR, "sequential_tasks", "family", {})
    interval = Interval(0.1, low, 0.15, 5, 0.001)
    assert Judged(None, claim, None, interval, p).verdict == verdict
    against = {"confirmed": "against", "against": "confirmed"}.get(verdict, verdict)
    if low > 0:
        assert Judged(None, claim, None, negative(interval), p).verdict == against


@pytest.mark.parametrize(
    "low,high,p,smallest,verdict",
    [
        (-0.02, 0.02, 0.5, 0.02, "equivalent"),
        (-0.02, 0.021, 0.5, 0.02, "undecided"),
        (-0.021, 0.02, 0.5, 0.02, "undecided"),
        (-0.01, 0.01, 0.5, None, "undecided"),
        (0.001, 0.01, 0.06, 0.02, "equivalent"),
        (0.001, 0.01, 0.01, 0.02, "confirmed"),  # small, and yet decided
        (math.nan, math.nan, math.nan, 0.02, "undecided"),
    ],
)
def test_an_undecided_claim_without_room_for_an_effect_of_interest_is_equivalent(
    low, high, p, smallest, verdict
):
    claim = Claim("words", "recovery", "above", PAIR, "sequential_tasks", "f", {}, smallest)
    interval = Interval((low + high) / 2, low, high, 5, p)
    assert Judged(None, claim, None, interval, p).verdict == verdict
    if verdict != "confirmed":
        assert Judged(None, claim, None, negative(interval), p).verdict == verdict


def test_what_falls_with_a_shared_head_is_not_called_forgetting(found):
    shared = [Group([with_settings(run, head="shared") for run in found[0].runs], "")]
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
    files, entry = figures._made("figure3", [replace(run, metrics=metrics)])
    assert files.keys() == {"figure3.png", "figure3.pdf"} and entry.runs == []
    assert files["figure3.png"] == entry.picture  # the page says it, too
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
        (["--only", "figure9"], "error: --only: no figure 'figure9'; there are cures, "),
        (["--runs", "nowhere"], "error: --runs: there is no folder nowhere"),
    ):
        done = command("figures.py", *arguments, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1


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
        assert path.suffix in ("", ".json", ".txt", ".csv"), path
        text += path.read_text() if path.is_file() else ""
    assert str(folder) not in text and str(PROJECT) not in text and "hostname" not in text


@pytest.fixture
def unforeseen(folder, tmp_path):
    """The runs of `folder`, those of vanilla and rotation also as arms that nobody foresaw."""
    runs = tmp_path / "runs"
    shutil.copytree(folder, runs)
    for i, arm in (("1", "ewc"), ("2", "ewc"), ("3", "rotation+ewc")):
        shutil.copytree(folder / i, runs / f"1{i}")
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


def test_every_measure_of_every_pair_is_compared(found):
    group = found[0]
    table = own_tables.differences(group.runs)
    assert pairs(group) == [
        ("rotation", "vanilla"), ("augment", "vanilla"), ("rotation", "augment"),
    ]  # fmt: skip
    names = [measure.name for measure in measures_of(group.runs)]
    assert {"first_cycle", "probe_last_cycle", "forgetting/cycle_2"} <= set(names)
    assert table["measure"].tolist() == 3 * names
    row = table.set_index(["compared", "measure"]).loc["augment - vanilla", "recovery"]
    apart = paired_interval(
        *(by_learner(group.of_arm(arm), "recovery") for arm in ("augment", "vanilla"))
    )
    assert row["difference"].startswith(f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]")
    assert (row["p"], row["over"], row["better"]) == (f"{apart.p:.3f}", "2 seeds", "higher")
    assert row["p, Holm"] == row["family"] == ""
    claimed = table[table["family"] != ""]
    assert claimed["compared"].tolist() == ["rotation - vanilla", "rotation - augment"]
    assert set(claimed["measure"]) == {"cycle_gain"}
    assert claimed["p, Holm"].tolist() == claims(group.runs)["p, Holm"].tolist()


def test_a_variant_is_compared_with_its_arm_too(found):
    name = "rotation(rotation_weight=0.5)"
    variants = [replace(run, arm=name) for run in found[0].of_arm("rotation")]
    assert pairs(Group([*found[0].runs, *variants], ""))[-1] == (name, "rotation")


def test_groups_that_one_setting_tells_apart_are_compared_like_arms(found):
    def other(runs, result=(), **settings):
        return [
            replace(
                run, identity={**run.identity, **settings}, result={**run.result, **dict(result)}
            )
            for run in runs
        ]

    runs = found[0].of_arm("vanilla")
    higher = other(runs, {"recovery": 0.9}, lr=0.01)
    several = groups([*higher, *runs], "sequential_tasks")
    ((key, alike),) = alike_but_one(several)
    assert key == "lr" and [group.runs[0].identity["lr"] for group in alike] == [0.001, 0.01]
    table = own_tables.differences([*higher, *runs])
    assert set(table["compared"]) == {"vanilla, lr=0.01 - lr=0.001"}
    assert set(table["settings"]) == {""}
    row = table[table["measure"] == "recovery"].iloc[0]
    mean = 0.9 - np.mean([run.result["recovery"] for run in runs])
    assert row["difference"].startswith(f"{mean:+.3f} [") and row["over"] == "2 seeds"
    # One seed in common is no comparison, two settings that differ are none, and what the machine
    # chose is no question of a study.
    assert own_tables.differences([*higher, runs[0]]).empty
    assert own_tables.differences([*other(higher, eval_every=7), *runs]).empty
    assert own_tables.differences([*other(runs, precision="bf16"), *runs]).empty
    # An arm that does not use the setting is the same run on both sides.
    unused = [
        replace(run, arm="augment", identity={k: v for k, v in run.identity.items() if k != "lr"})
        for run in runs
    ]
    assert len(groups([*higher, *runs, *unused], "sequential_tasks")[0].arms()) == 2
    table = own_tables.differences([*higher, *runs, *unused])
    of_setting = table[table["compared"].str.contains("lr=")]
    assert set(of_setting["compared"]) == {"vanilla, lr=0.01 - lr=0.001"}


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
