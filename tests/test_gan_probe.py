"""The GAN study's command and figures, on real digits."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import command, with_settings
from PIL import Image
from test_gan import study as tiny_study
from torture import metrics

from experiments import gan_probe
from experiments.results import export
from experiments.run import checkpoints, exit_codes, runner
from experiments.run.stored import sample_grids, stored_runs
from experiments.show import gan as gan_figures
from experiments.show import grids, own_tables
from experiments.show import paper_tables as tables
from experiments.show.arms import colour_of
from experiments.show.compare import by_learner
from experiments.show.groups import Group, groups
from experiments.show.intervals import mean_interval
from experiments.show.plotting import style
from forgetting import data
from forgetting.settings import with_defaults
from gan import extractor
from gan.probe_study import ProbeStudy

TINY = ["quick", "steps=4", "width=4", "probe_every=2", "probe_images=60", "probe_features=16"]
TINY += ["quality_every=4", "quality_images=500", "device=cpu"]


def in_process(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        runner.main(gan_probe.STUDY, ["gan_probe.py", *arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """uncond and ssgan of two seeds each, and the control without a generator."""
    folder = tmp_path_factory.mktemp("gans")
    for arguments in (["seed=0"], ["seed=1"], ["model=rotation_only"]):
        with pytest.raises(SystemExit) as end:
            runner.main(
                gan_probe.STUDY,
                ["gan_probe.py", "with", *TINY, *arguments, f"results_dir={folder}"],
            )
        assert end.value.code == 0
    return folder


@pytest.fixture
def folder_of_digits(tmp_path, digits):
    """Zeros and ones as image files, 1.1 MB at 32 pixels."""
    for split, images, labels, n in (
        ("train", digits.train_images, digits.train_labels, 150),
        ("test", digits.test_images, digits.test_labels, 34),
    ):
        for c in (0, 1):
            (tmp_path / "digits" / split / str(c)).mkdir(parents=True)
            for i, image in enumerate(images[labels == c].repeat(2, 1, 1, 1)[:n]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(tmp_path / "digits" / split / str(c) / f"{i}.png")
    return tmp_path / "digits"


@pytest.fixture
def found(folder):
    style()
    yield groups(stored_runs(folder), "gan_probe")
    plt.close("all")


def test_a_run_holds_what_the_contract_names(folder):
    runs = stored_runs(folder)
    assert [run.arm for run in runs] == ["uncond", "ssgan", "uncond", "ssgan", "rotation_only"]
    ssgan = runs[1]
    for metric in (
        *(f"probe/block_{i}" for i in range(1, 5)),
        *("probe/best", "past_fakes/accuracy", "past_fakes/auc", "loss/d", "loss/g"),
        *("loss/rotation_d", "loss/rotation_g", "accuracy/rotation", "fd_digits_cnn"),
    ):
        assert metric in ssgan.metrics, metric
    assert ssgan.metrics["probe/best"][0].tolist() == [0, 2, 4]
    assert ssgan.metrics["fd_digits_cnn"][0].tolist() == [0, 4]
    assert not any(name.startswith("fid") for name in ssgan.metrics)
    assert ssgan.info["extractor"] == "digits_cnn" and len(ssgan.info["extractor_sha256"]) == 16
    assert ssgan.result["probe_final"] == ssgan.metrics["probe/best"][1][-1]
    names = {path.name for path in ssgan.folder.iterdir()}
    assert {"past_fakes.csv", "drift.csv", "samples-000004.png", "rotations.csv"} <= names
    record = json.loads((ssgan.folder / "run.json").read_text())
    assert len(record["artifacts"]) == len(set(record["artifacts"])) == 7
    control = runs[-1]
    assert set(control.metrics) & {"loss/g", "past_fakes/auc", "fd_digits_cnn"} == set()
    assert control.metrics["accuracy/rotation"][0].tolist() == [0, 2, 4]


def test_past_fakes_summary_is_of_the_stored_matrix(folder):
    run = stored_runs(folder)[0]
    rows = list(csv.DictReader((run.folder / "past_fakes.csv").open()))
    accuracy = {(int(r["discriminator"]), int(r["generator"])): float(r["accuracy"]) for r in rows}
    past = [accuracy[4, 0], accuracy[4, 2]]
    assert run.metrics["past_fakes/accuracy"][1][-1] == pytest.approx(np.mean(past))
    # The untrained generator's fakes are no past worth remembering.
    assert run.result["past_fakes_accuracy"] == pytest.approx(accuracy[4, 2])
    drop = accuracy[2, 2] - accuracy[4, 2]
    assert run.result["past_fakes_accuracy_drop"] == pytest.approx(drop)
    # Of one past generator, the best before the last discriminator is that of its own time.
    assert run.result["past_fakes_accuracy_forgetting"] == pytest.approx(drop)


def test_killed_and_resumed_it_ends_the_same(folder, tmp_path, capsys):
    here = ["with", *TINY, "model=ssgan", "checkpoint_every=1", f"results_dir={tmp_path}"]
    code, out, _ = in_process(capsys, *here, "stop_after=0.01s")
    assert code == exit_codes.TRY_LATER and "interrupted at step 1" in out
    code, out, _ = in_process(capsys, *here, "resume=auto")
    assert code == 0 and "resumed at step 1" in out
    resumed, through = stored_runs(tmp_path)[0], stored_runs(folder)[1]
    for name, (steps, values) in through.metrics.items():
        assert np.array_equal(resumed.metrics[name][0], steps), name
        assert np.array_equal(resumed.metrics[name][1], values), name
    for table in ("past_fakes.csv", "drift.csv"):
        assert (resumed.folder / table).read_text() == (through.folder / table).read_text()


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_signal_does_not_wait_for_an_evaluation(folder, tmp_path, capsys, monkeypatch, at):
    score = ProbeStudy._score_past_fakes

    def terminated_in_the_middle(study):
        values = score(study)
        if study.position == at:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the evaluation went on")
        return values

    with monkeypatch.context() as patch:
        patch.setattr(ProbeStudy, "_score_past_fakes", terminated_in_the_middle)
        arguments = ["with", *TINY, "model=ssgan", f"results_dir={tmp_path}"]
        code, out, _ = in_process(capsys, *arguments)
    assert code == 143 and f"interrupted at step {at}; go on" in out
    assert json.loads((tmp_path / "1/run.json").read_text())["status"] == "INTERRUPTED"
    code, out, _ = in_process(capsys, "with", "resume=1", f"results_dir={tmp_path}")
    assert code == 0 and f"resumed at step {at}" in out
    whole = folder / "2"  # ssgan of this seed, in one go
    for name in ("past_fakes.csv", "samples-000004.png"):
        assert (tmp_path / "1" / name).read_bytes() == (whole / name).read_bytes()
    assert metrics(tmp_path / "1") == metrics(whole)
    assert len(list(tmp_path.glob("1/checkpoint-*"))) == 1


def test_another_extractor_is_refused(tmp_path, capsys, monkeypatch):
    here = ["with", *TINY, "model=uncond", f"results_dir={tmp_path}"]
    code, _, _ = in_process(capsys, *here, "stop_after=0.01s")
    assert code == exit_codes.TRY_LATER
    find = extractor.find_extractor

    def another(*arguments):
        return dataclasses.replace(find(*arguments), name="another_cnn", sha256="abc")

    monkeypatch.setattr(extractor, "find_extractor", another)
    code, _, err = in_process(capsys, *here, "resume=1")
    assert code == 1 and err.startswith("error: resume: the run began with the features of digits_")
    assert "another_cnn abc" in err and err.count("\n") == 1


def test_images_that_are_read_as_needed_train_the_same(folder_of_digits, tmp_path, capsys):
    here = ["with", *TINY, "model=ssgan", "dataset.name=image_folder", "dataset.size=32"]
    here += [f"dataset.root={folder_of_digits}", f"results_dir={tmp_path}", "steps=2"]
    for memory in ("dataset.memory_mb=1", "dataset.memory_mb=None"):
        code, _, err = in_process(capsys, *here, memory)
        assert code == 0, err
    mapped, whole = (json.loads((tmp_path / i / "metrics.json").read_text()) for i in "12")
    for name, column in whole.items():
        assert mapped[name]["values"] == column["values"], name


def test_a_finished_gan_draws_samples(folder, capsys, monkeypatch):
    # Which needs no measure of quality.
    monkeypatch.setattr(extractor, "find_extractor", lambda *_: pytest.fail("not needed"))
    code, out, _ = in_process(capsys, "sample", "with", "resume=2", f"results_dir={folder}")
    assert code == 0 and "100 images of step 4" in out
    assert Image.open(folder / "2" / "sample.png").size == (90, 90)
    state = checkpoints.load(folder / "2")["study"]  # by weights_only=True
    assert state["generator"]["linear.weight"].shape == (4 * 4 * 8, 128)
    for arguments, line in (
        (["resume=5"], "resume: a run of rotation_only has no generator"),
        ([], "resume: name the run"),
        (["resume=77"], "resume: there is no readable run"),
        (["resume=2", "width=8"], "resume: "),
        (["resume=2", "model=uncond"], "other settings: model (stored 'ssgan', asked 'uncond')"),
    ):
        code, _, err = in_process(capsys, "sample", "with", *arguments, f"results_dir={folder}")
        assert code == 1 and line in err and err.count("\n") == 1


def test_a_diverging_gan_stops_at_once(tmp_path, capsys, monkeypatch):
    from gan.probe_study import ProbeStudy

    step = ProbeStudy.step

    def poisoned(self):
        if self.position == 2:
            with torch.no_grad():
                next(self.generator.parameters()).fill_(float("nan"))
        return step(self)

    monkeypatch.setattr(ProbeStudy, "step", poisoned)
    code, _, err = in_process(capsys, "with", *TINY, "model=uncond", f"results_dir={tmp_path}")
    assert code == 1 and re.fullmatch(
        r"error: the run diverged: loss/. is nan at step 3; .*\n", err
    )
    record = json.loads((tmp_path / "1" / "run.json").read_text())
    assert record["status"] == "FAILED"
    kept = json.loads((tmp_path / "1" / "metrics.json").read_text())["probe/best"]["steps"]
    assert kept == [0, 2]


def test_weights_that_are_no_numbers_end_the_run(tmp_path, capsys):
    arguments = [*TINY, "steps=1", "model=ssgan", "alpha=1e300", f"results_dir={tmp_path}"]
    code, _, err = in_process(capsys, "with", *arguments)
    assert code == 1 and "error: the run diverged: weights/generator is nan at step 1" in err
    assert json.loads((tmp_path / "1" / "run.json").read_text())["status"] == "FAILED"


def test_one_test_image_a_class_is_enough(tmp_path, capsys, digits):
    for split, images, labels, n in (
        ("train", digits.train_images, digits.train_labels, 60),
        ("test", digits.test_images, digits.test_labels, 1),
    ):
        for c in (0, 1):
            (tmp_path / "images" / split / str(c)).mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:n]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(tmp_path / "images" / split / str(c) / f"{i}.png")
    study = gan_probe.STUDY
    images = data.load("image_folder", tmp_path / "images", 8)
    settings = {"probe_images": 60, "model": "ssgan", "regularizer": "spectral_norm"}
    study.check(with_defaults(settings, study.settings), images)
    learner = tiny_study(images, model="ssgan", steps=1)
    learner.step()
    learner.evaluate()
    assert "rotations.png" in learner.artifacts()


def test_bad_settings_are_one_line(tmp_path, digits):
    for split, images in (("train", digits.train_images), ("test", digits.test_images)):
        (tmp_path / "images" / split / "all").mkdir(parents=True)
        for i, image in enumerate(images[:4]):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            picture.save(tmp_path / "images" / split / "all" / f"{i}.png")
    unlabelled = ["dataset.name=image_folder", "dataset.root=images", "results_dir=runs"]
    for arguments, line in (
        (["model=cond", *unlabelled], "error: model: cond needs labels, and images has one class"),
        (
            ["spectral_norm=False"],
            "error: spectral_norm: it follows from regularizer=spectral",
        ),
        (["model=biggan"], "error: model: biggan is no model; there are uncond, cond, ssgan, "),
        (["alpha=-1"], "error: alpha: it must be a number, 0 or more"),
    ):
        done = command("gan_probe.py", "with", "quick", *arguments, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith(line), done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


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
        heights = [bar.get_height() for bar in axis.child_axes[0].patches]
        assert heights == [float(row[f"q_{d}"]) for d in (0, 90, 180, 270)]
        assert sum(heights) == pytest.approx(1, abs=1e-5)
        right = float(row[f"q_{row['degrees']}"])
        assert axis.child_axes[0].texts[0].get_text() == f"{right:.2f}"


def test_samples_are_the_stored_grids(found):
    figure = gan_figures.samples(gan_figures.first_seeds(found))
    run = found[0].of_arm("uncond")[0]
    shown = figure.axes[2].images[0].get_array()
    assert np.array_equal(shown, plt.imread(run.folder / "samples-000004.png"))


def test_published_runs_keep_the_last_grid_alone(folder, tmp_path):
    shutil.copytree(folder / "1", tmp_path / "runs/1")
    names = [f"samples-{step:06d}.png" for step in range(0, 11000, 1000)]
    for old in (tmp_path / "runs/1").glob("samples-*.png"):
        old.unlink()
    for name in names:
        (tmp_path / "runs/1" / name).write_bytes(b"")
    file = tmp_path / "runs/1/run.json"
    record = json.loads(file.read_text())
    rest = [name for name in record["artifacts"] if not name.startswith("samples-")]
    file.write_text(json.dumps(record | {"artifacts": rest + names}))
    assert export([tmp_path / "runs"], tmp_path / "out") == 1
    (run,) = (tmp_path / "out").iterdir()
    assert sorted(path.name for path in run.glob("samples-*.png")) == names[-1:]
    published = json.loads((run / "run.json").read_text())["artifacts"]
    assert published == rest + names[-1:] and all((run / name).exists() for name in published)
    # The figure shows some of those along the way, where they are.
    shown = [path.name for path in sample_grids(tmp_path / "runs/1")]
    assert shown == [names[0], names[3], names[6], names[10]]


def test_models_with_one_grid_each_stand_beside_each_other(folder, tmp_path):
    export([folder], tmp_path)
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


def test_tables_hold_the_stored_numbers(found):
    runs = found[0].runs
    best = tables.table1(runs)
    uncond = [run.result["fd_digits_cnn_best"] for run in found[0].of_arm("uncond")]
    assert best.loc[0, "other distance, ours"] == f"{min(uncond):.2f} fd_digits_cnn"
    assert best.loc[0, "best FID, ours"] == "" == best.loc[0, "best FID, paper"]
    at_the_end = [run.result["fd_digits_cnn"] for run in found[0].of_arm("ssgan")]
    apart = best[best["seeds"] != ""].set_index("model")[tables.MINUS_BASELINE]
    difference = np.mean(at_the_end) - np.mean(
        [run.result["fd_digits_cnn"] for run in found[0].of_arm("uncond")]
    )
    assert apart["uncond"] == "" and apart["ssgan"].startswith(f"fd_digits_cnn {difference:+.3f} [")
    text = f"{np.mean(at_the_end):.2f} ± {np.std(at_the_end, ddof=1):.2f} fd_digits_cnn (2 seeds)"
    grid = tables.table2([run for run in runs if run.arm in ("uncond", "ssgan")])
    assert len(grid) == 18 and grid["ssgan, ours"].tolist() == [text] + [""] * 17
    probes = tables.table3(runs)
    row = probes[(probes["model"] == "ssgan") & (probes["block"] == "3")].iloc[0]
    last = mean_interval([r.metrics["probe/block_3"][1][-1] for r in found[0].of_arm("ssgan")])
    assert row["accuracy, ours"] == tables.shown(last) and row[tables.PEAK_MINUS_END] == ""
    row = probes[(probes["model"] == "ssgan") & (probes["block"] == "best")].iloc[0]
    fall = mean_interval(list(by_learner(found[0].of_arm("ssgan"), "probe_fall").values()))
    assert row[tables.PEAK_MINUS_END].startswith(tables.shown(fall, "+"))
    # Beside CIFAR-10 stand the paper's values, under whatever images are called CIFAR-10 (...).
    named = [dataclasses.replace(run, data="CIFAR-10 (JPEG q75)") for run in runs]
    probes = tables.table3(named)
    papers = probes[probes["block"] == "best"].set_index(["data", "model"])["accuracy, paper"]
    assert papers["CIFAR-10 (JPEG q75)", "uncond"] == "0.778"
    grid = tables.table2(named)
    known = grid[grid["ssgan, paper"] != ""]
    assert known["ssgan, paper"].tolist() == ["17.88 ± 0.64"] and known["D steps"].tolist() == ["2"]
    assert papers["CIFAR-10", "ssgan_sbn"] == "0.799" and ("CIFAR-10", "uncond") not in papers


def variants(runs, **values):
    """The runs as if one setting had been each of these values in turn."""
    ((key, values),) = values.items()
    return [with_settings(run, **{key: value}) for value in values for run in runs]


def test_a_grid_is_in_its_table_and_figure_alone(found):
    runs = [run for run in found[0].runs if run.arm in ("uncond", "ssgan")]
    assert found[0].runs[0].config["adam_betas"] == [0.0, 0.9]
    three = variants(runs, adam_betas=[[0.0, 0.9], [0.5, 0.9], [0.5, 0.999]])
    assert grids.without_grids(three) == three, "a comparison, not a grid"
    grid = variants(three, d_steps=[1, 2])
    assert [run.identity for run in grids.without_grids(grid)] == [r.identity for r in runs]
    longer = variants(runs, steps=[5])
    both = grids.without_grids([*grid, *longer])
    assert [run.identity for run in both] == [run.identity for run in longer]
    assert len(grids.without_grids([*grid, *variants(longer, d_steps=[1, 2, 3, 4])])) == 8

    boxes = grids.pooled(groups([*grid, *longer], "gan_probe"))
    assert [len(group.runs) for group in boxes] == [24, 4]
    assert [group.differs[:9] for group in boxes] == ["4 updates", "5 updates"]
    families = [groups(runs, "gan_probe") for runs in (grid, variants(longer, probe_every=[99]))]
    assert not any("probe_every" in scale for scale in grids.scales(families))
    families = [groups(runs, "gan_probe") for runs in (grid, variants(runs, probe_every=[99]))]
    assert all("probe_every=" in scale for scale in grids.scales(families))
    figure = gan_figures.figure4(boxes)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "uncond\n6 settings,\n12 runs",
        "ssgan\n6 settings,\n12 runs",
    ]
    table = tables.table2([*grid, *longer])
    assert len(table) == 18 + 1 and (table["ssgan, ours"] != "").sum() == 7
    # Another learning rate is one more setting of the grid, and the paper's is not asked for there.
    table = tables.table2([*grid, *variants(runs, lr=[1e-3])])
    assert table["learning rate"].tolist() == ["0.0002"] * 18 + ["0.001"]
    table = tables.table2(variants(grid, lr=[1e-3]))
    assert set(table["learning rate"]) == {"0.001"} and len(table) == 18


def test_a_fall_from_the_peak_is_not_a_maximums_luck(found):
    runs = found[0].of_arm("uncond")
    curves = [run.metrics["probe/best"][1] for run in runs]
    peaks = [curve[1:].argmax() + 1 for curve in curves]
    expected = {(i, i): curves[i][peaks[1 - i]] - curves[i][-1] for i in (0, 1)}
    assert by_learner(runs, "probe_fall") == pytest.approx(expected)
    assert by_learner(runs[:1], "probe_fall") == {}


def test_a_damaged_table_is_named_and_passed_over(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "runs")
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
