"""Runs that are not complete, drawn while they go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from stubs import stub

from experiments import figures as command
from experiments.run import locks
from experiments.run.stored import stored_runs
from experiments.run.unfinished import unfinished_runs
from experiments.show import drawings
from experiments.show import gan as gan_figures
from experiments.show import opponents as opponent_figures
from experiments.show import sequential as sequential_figures
from experiments.show.groups import groups
from experiments.show.plotting import style

OLD = Path(__file__).with_name("runs_9afe66d")
SEQUENTIAL, GAN = "sequential_tasks-quick-{}-0", "gan_probe-quick-ssgan-0"


def cut(source: str, target: Path, keep: int, status: str, **config) -> Path:
    """A stored run as it was when each of its metrics had at most `keep` values."""
    shutil.copytree(OLD / source, target)
    record = json.loads((target / "run.json").read_bytes())
    record |= {"status": status, "_id": target.name, "result": None}
    (target / "run.json").write_text(json.dumps(record))
    settings = json.loads((target / "config.json").read_bytes())
    (target / "config.json").write_text(json.dumps(settings | config))
    metrics = json.loads((target / "metrics.json").read_bytes())
    first = {
        name: {"from": 0, **{key: column[:keep] for key, column in columns.items()}}
        for name, columns in metrics.items()
    }
    (target / "metrics.json").unlink()
    (target / "metrics.jsonl").write_text(json.dumps(first) + "\n")
    return target


@pytest.fixture
def runs(tmp_path):
    """vanilla complete, and a second seed of it that is running; rotation interrupted; a GAN that
    was killed; and one that failed."""
    folder = tmp_path / "runs"
    shutil.copytree(OLD / SEQUENTIAL.format("vanilla"), folder / "1")
    cut(SEQUENTIAL.format("vanilla"), folder / "2", 7, "RUNNING", seed=1)
    cut(SEQUENTIAL.format("rotation"), folder / "3", 9, "INTERRUPTED")
    cut(GAN, folder / "4", 2, "RUNNING")
    cut(GAN, folder / "5", 2, "FAILED", seed=7)
    with locks.sole_user(folder / "2"):
        yield folder
    plt.close("all")


def curve(axis, style):
    return [line for line in axis.lines if line.get_linestyle() == style and len(line.get_xdata())]


def test_the_reader_tells_running_ones_from_killed_ones(runs):
    found = {run.id: run for run in unfinished_runs(runs)}
    assert {i: run.status for i, run in found.items()} == {
        "2": "running", "3": "interrupted", "4": "interrupted",
    }  # fmt: skip
    assert not any(run.completed or run.result for run in found.values())
    assert len(found["2"].metrics["accuracy/current"][0]) == 7
    assert [run.id for run in stored_runs(runs)] == ["1"]
    # One that was stopped in its first evaluation and goes on has logged nothing.
    copy = shutil.copytree(runs / "3", runs / "²")
    record = json.loads((copy / "run.json").read_bytes()) | {"_id": copy.name}
    (copy / "run.json").write_text(json.dumps(record))
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.json").write_text("{}")
    assert [run.id for run in unfinished_runs(runs)] == list(found)


def test_of_equal_runs_the_one_furthest_on_is_shown(runs):
    further = cut(SEQUENTIAL.format("rotation"), runs / "6", 12, "INTERRUPTED")
    copy = shutil.copytree(further, runs / "6.bak")
    metrics = (copy / "metrics.jsonl").read_text()
    (copy / "metrics.jsonl").write_text(metrics)
    assert [run.id for run in unfinished_runs(runs)] == ["2", "6", "4"]
    shutil.copytree(OLD / SEQUENTIAL.format("rotation"), runs / "7")  # and now it is complete
    complete = stored_runs(runs)
    assert [run.id for run in drawings._under_way([runs], complete)] == ["2", "4"]


def test_figure3_has_them_dashed_and_named(runs):
    style()
    found = groups([*unfinished_runs(runs), *stored_runs(runs)], "sequential_tasks")
    (part,) = sequential_figures.figure3(found).subfigs
    vanilla, rotation = part.axes
    by_id = {run.id: run for run in found[0].runs}
    for axis, run in ((vanilla, by_id["2"]), (rotation, by_id["3"])):
        (dashed,) = [line for line in axis.lines if line.get_label().startswith("seed")]
        assert dashed.get_linestyle() == "--"
        assert np.array_equal(dashed.get_ydata(), run.metrics["accuracy/current"][1])
        (named,) = [text.get_text() for text in axis.get_legend().get_texts()]
        assert named == f"seed {run.seed} {run.status}" == dashed.get_label()
    # The mean, its count and the cycles' means are of the complete run alone.
    whole = by_id["1"]
    (solid,) = [line for line in vanilla.lines if line.get_linewidth() == 0.9
                and line.get_linestyle() == "-"]  # fmt: skip
    assert np.array_equal(solid.get_ydata(), whole.metrics["accuracy/current"][1])
    assert ", 1 seed" in vanilla.get_title(loc="left")
    assert f"mean {whole.result['first_cycle']:.3f}" in [t.get_text() for t in vanilla.texts]
    assert "none complete" in rotation.get_title(loc="left") and not rotation.texts
    caption = " ".join(part.get_suptitle().split())
    dashed = "runs/2 (seed 1 running), runs/3 (seed 0 interrupted)"
    assert caption.endswith(f"one seed, so no interval; runs/1; dashed, not complete: {dashed}")


@pytest.mark.parametrize(
    "draw,select,metric",
    [
        (gan_figures.figure2, gan_figures.probed, "probe/best"),
        (gan_figures.quality, gan_figures.measured, "fd_digits_cnn"),
    ],
)
def test_a_gan_that_was_killed_is_in_the_legend(draw, select, metric, runs):
    style()
    (group,) = select(groups(unfinished_runs(runs), "gan_probe"))
    (axis,) = draw([group]).subfigs[0].axes
    (line,) = curve(axis, "--")
    assert np.array_equal(line.get_ydata(), group.runs[0].metrics[metric][1])
    (named,) = [text.get_text() for text in axis.get_legend().get_texts()]
    assert "seed 0 interrupted" in named


def test_recorded_opponents_have_their_curves_dashed():
    style()
    auc = [[0.9, 0.5], [0.6, 0.9]]
    running = replace(stub([[0.8, 0.5]] * 2, method="rotation"), result={}, status="running")
    whole = [stub(auc), stub(auc, unit=2)]
    found = opponent_figures.with_joint(groups([running, *whole], "sequential_tasks"))
    (part,) = opponent_figures.opponents(found).subfigs
    above, below = part.subfigs
    titles = [axis.get_title(loc="left") for axis in above.axes]
    assert titles == ["vanilla", "colour alone (no net)", ""]  # the last is the colours' scale
    named = [text.get_text() for text in below.axes[0].get_legend().get_texts()]
    assert named == ["vanilla", "rotation, uncond_1, seed 1 running"]
    (dashed,) = curve(below.axes[0], "--")[-1:]
    assert dashed.get_label() == named[1]
    (alone,) = opponent_figures.with_joint(groups([running], "sequential_tasks"))
    above, _ = opponent_figures.opponents([alone]).subfigs[0].subfigs
    assert above.axes[0].get_title(loc="left") == "colour alone (no net)"
    plt.close("all")


def test_no_table_uses_them(runs, tmp_path, capsys, monkeypatch):
    words = ["--runs", str(runs), "--live"]
    page = tmp_path / "live/report.html"
    monkeypatch.setattr("sys.argv", ["figures.py", *words, "--out", str(page.parent)])
    command.main()
    err = capsys.readouterr().err
    assert "drawn dashed, not complete: runs/2 (seed 1 running), runs/3" in err
    assert "passed over" not in err and "cannot be made" not in err
    text = page.read_text()
    assert "Left out, not complete: 1 failed, 1 interrupted, 2 running; 3 of them drawn" in text
    drawings.draw([runs], tmp_path / "plain")
    for name in drawings.TABLES:
        tables = [(tmp_path / of / f"{name}.csv").read_bytes() for of in ("live", "plain")]
        assert tables[0] == tables[1], name
    for name, drawing in drawings.FIGURES.items():
        pictures = [(tmp_path / of / f"{name}.png").read_bytes() for of in ("live", "plain")]
        assert pictures[0] == pictures[1] or drawing.live, name
        if name in ("figure2", "figure3", "probe_by_block", "quality", "samples"):
            assert pictures[0] != pictures[1], name
