"""Figures come out whatever runs there are, their names, their damage and the user's matplotlib."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, command

from experiments.run.stored import stored_runs
from experiments.show import drawings as figures
from experiments.show import sequential as sequential_figures
from experiments.show.drawings import draw
from experiments.show.groups import groups
from experiments.show.tables import TABLES

OLD = Path(__file__).with_name("runs_9afe66d")
ARMS = ("vanilla", "rotation")


def runs(folder: Path, **dataset) -> Path:
    """Two stored runs as of a data set whose label and classes are others."""
    for arm in ARMS:
        run = folder / arm
        shutil.copytree(OLD / f"sequential_tasks-quick-{arm}-0", run)
        config = json.loads((run / "config.json").read_bytes())
        config["dataset"] |= {k: v for k, v in dataset.items() if k != "classes"}
        (run / "config.json").write_text(json.dumps(config))
        if "classes" in dataset:
            info = json.loads((run / "info.json").read_bytes())
            info["data"]["classes"] = dataset["classes"]
            (run / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize(
    "environment,rc",
    [
        ({"MPLBACKEND": "Qt9Agg"}, ""),
        ({"MPLBACKEND": "module://of_a_notebook"}, ""),
        ({}, "text.usetex: True\nsavefig.format: gif\nsavefig.bbox: tight\n"),
        ({}, "figure.autolayout: True\nfigure.dpi: 1000000\nfont.family: Nothing\n"),
    ],
)
def test_the_users_matplotlib_does_not_change_a_figure(environment, rc, tmp_path):
    runs(tmp_path / "runs")
    (tmp_path / "matplotlibrc").write_text(rc)
    for name, env in (("plain", {}), ("theirs", environment | {"MATPLOTLIBRC": str(tmp_path)})):
        words = ["--runs", str(tmp_path / "runs"), "--only", "figure3", "--out", name]
        (tmp_path / name).mkdir()
        env = ENVIRONMENT | env
        done = command("figures.py", *words, cwd=tmp_path / name, env=env)
        assert (done.returncode, done.stderr) == (0, "")
    first, second = ((tmp_path / n / n / "figure3.png").read_bytes() for n in ("plain", "theirs"))
    assert first == second


def test_a_matplotlibrc_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: caf\xe9\n")
    words = ["--runs", str(OLD), "--out", "out"]
    done = command("figures.py", *words, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "error: matplotlib cannot read your matplotlibrc: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_names_that_are_no_text_are_drawn_as_escapes(tmp_path, capsys):
    """A label, and the folder of the runs, with a byte that is no UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    runs(folder, label="th\udce9", classes=[f"{i}\udce9" for i in range(10)])
    page = tmp_path / "report.html"
    draw([folder], tmp_path / "out", ["figure3", "accuracy_matrix", "measures"], page)
    assert "cannot be made" not in capsys.readouterr().err
    assert "th\\xe9" in (tmp_path / "out/measures.csv").read_text(encoding="utf-8")
    assert "caf\\udce9/vanilla" in page.read_text(encoding="utf-8")


def test_letters_that_the_font_lacks_are_said_in_one_line(tmp_path, capsys, recwarn):
    runs(tmp_path / "runs", label="猫と犬", classes=["猫", "犬", "ᚠ", *"3456789"])
    draw([tmp_path / "runs"], tmp_path / "out", ["figure3", "accuracy_matrix"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "boxes" in line]
    assert line.startswith("drawn as boxes, since the figures' font lacks them: ")
    assert {"猫", "犬", "と"} <= set(line)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    draw([OLD], tmp_path / "out", ["figure3"])
    assert "boxes" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["figure3", "accuracy_matrix"])
def test_a_run_that_no_check_foresaw_is_named_and_the_others_are_drawn(
    name, tmp_path, capsys, monkeypatch
):
    """Whatever it is of which a figure or table cannot be made."""
    import matplotlib.pyplot as plt

    from experiments.show import drawings

    folder = runs(tmp_path / "runs")
    real = drawings.runs_and_rest

    def one_is_damaged(*folders):
        found, rest = real(*folders)
        for run in found:
            if run.arm == "rotation":
                run.metrics.clear()
                run.info.clear()
        return found, rest

    monkeypatch.setattr(drawings, "runs_and_rest", one_is_damaged)
    capsys.readouterr()
    (path,) = draw([folder], tmp_path / "out", [name])
    err = capsys.readouterr().err
    assert f"{name}: passed over {folder}/rotation: " in err and "cannot be made" not in err
    assert path.stat().st_size > 10_000  # not the line of words alone
    assert not plt.get_fignums()  # matplotlib warns of more than 20


def test_a_run_that_does_not_go_with_the_others_is_named(tmp_path, capsys):
    """One seed of three that was evaluated at fewer steps."""
    for seed in range(3):
        run = tmp_path / f"runs/{seed}"
        shutil.copytree(OLD / "sequential_tasks-quick-vanilla-0", run)
        config = json.loads((run / "config.json").read_bytes())
        (run / "config.json").write_text(json.dumps(config | {"seed": seed}))
    metrics = json.loads((tmp_path / "runs/1/metrics.json").read_bytes())
    for columns in metrics["accuracy/current"].values():
        del columns[-1]
    (tmp_path / "runs/1/metrics.json").write_text(json.dumps(metrics))
    draw([tmp_path / "runs"], tmp_path / "out", ["figure3"])
    err = capsys.readouterr().err
    assert f"figure3: passed over {tmp_path}/runs/1: ValueError" in err and err.count("\n") == 1


def test_a_label_that_is_null_is_named(tmp_path, capsys):
    runs(tmp_path / "runs", label=None)
    draw([tmp_path / "runs", OLD], tmp_path / "out", ["figure3"], tmp_path / "report.html")
    err = capsys.readouterr().err
    for arm in ARMS:
        assert f"passed over {tmp_path}/runs/{arm}: config.json: dataset.label is None" in err


@pytest.fixture
def found(sequential_runs):
    return groups(stored_runs(sequential_runs), "sequential_tasks")


def test_the_command_draws_from_whatever_is_there(sequential_runs, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sequential_runs, runs)
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


def test_a_run_that_no_check_foresaw_leaves_the_other_figures(found, tmp_path, capsys):
    run = found[0].runs[0]
    metrics = {name: m for name, m in run.metrics.items() if name != "accuracy/current"}
    files, entry = figures._made("figure3", [replace(run, metrics=metrics)])
    assert files.keys() == {"figure3.png", "figure3.pdf"} and entry.runs == []
    assert files["figure3.png"] == entry.picture  # the page says it, too
    assert "figure3: cannot be made from these runs: KeyError" in capsys.readouterr().err


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
def test_a_foreign_value_in_a_run_is_not_fatal(file, change, sequential_runs, tmp_path, capsys):
    shutil.copytree(sequential_runs, tmp_path / "runs")
    path = tmp_path / "runs/1" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    names = ["figure3", "summary", "measures", "claims"]
    assert len(figures.draw([tmp_path / "runs"], tmp_path / "out", names)) == 4
    err = capsys.readouterr().err
    assert "passed over" in err or "cannot be made from these runs" in err
