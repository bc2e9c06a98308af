"""The GAN study's command, on real digits."""

import csv
import dataclasses
import json
import os
import re
import signal

import numpy as np
import pytest
import torch
from conftest import TINY_GAN as TINY
from conftest import command
from PIL import Image
from test_gan import study as tiny_study
from torture import metrics

from experiments import gan_probe
from experiments.run import checkpoints, exit_codes, runner
from experiments.run.stored import stored_runs
from forgetting import data
from forgetting.settings import with_defaults
from gan import extractor, probe_study
from gan.probe_study import ProbeStudy


def in_process(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        runner.main(gan_probe.STUDY, ["gan_probe.py", *arguments])
    out, err = capsys.readouterr()
    return end.value.code, out, err


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


def test_a_run_holds_what_the_contract_names(gan_runs):
    runs = stored_runs(gan_runs)
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


def test_past_fakes_summary_is_of_the_stored_matrix(gan_runs):
    run = stored_runs(gan_runs)[0]
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


def test_killed_and_resumed_it_ends_the_same(gan_runs, tmp_path, capsys):
    here = ["with", *TINY, "model=ssgan", "checkpoint_every=1", f"results_dir={tmp_path}"]
    code, out, _ = in_process(capsys, *here, "stop_after=0.01s")
    assert code == exit_codes.TRY_LATER and "interrupted at step 1" in out
    code, out, _ = in_process(capsys, *here, "resume=auto")
    assert code == 0 and "resumed at step 1" in out
    resumed, through = stored_runs(tmp_path)[0], stored_runs(gan_runs)[1]
    for name, (steps, values) in through.metrics.items():
        assert np.array_equal(resumed.metrics[name][0], steps), name
        assert np.array_equal(resumed.metrics[name][1], values), name
    for table in ("past_fakes.csv", "drift.csv"):
        assert (resumed.folder / table).read_text() == (through.folder / table).read_text()


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_signal_does_not_wait_for_an_evaluation(gan_runs, tmp_path, capsys, monkeypatch, at):
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
    whole = gan_runs / "2"  # ssgan of this seed, in one go
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


def test_a_finished_gan_draws_samples(gan_runs, capsys, monkeypatch):
    # Which needs no measure of quality.
    monkeypatch.setattr(extractor, "find_extractor", lambda *_: pytest.fail("not needed"))
    code, out, _ = in_process(capsys, "sample", "with", "resume=2", f"results_dir={gan_runs}")
    assert code == 0 and "100 images of step 4" in out
    assert Image.open(gan_runs / "2" / "sample.png").size == (90, 90)
    state = checkpoints.load(gan_runs / "2")["study"]  # by weights_only=True
    assert state["generator"]["linear.weight"].shape == (4 * 4 * 8, 128)
    for arguments, line in (
        (["resume=5"], "resume: a run of rotation_only has no generator"),
        ([], "resume: name the run"),
        (["resume=77"], "resume: there is no readable run"),
        (["resume=2", "width=8"], "resume: "),
        (["resume=2", "model=uncond"], "other settings: model (stored 'ssgan', asked 'uncond')"),
    ):
        code, _, err = in_process(capsys, "sample", "with", *arguments, f"results_dir={gan_runs}")
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
        (["model=cond+replay", *unlabelled], "error: model: cond+replay needs labels, and images"),
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


def test_blocks_are_probed_together_as_they_are_one_at_a_time(digits, monkeypatch):
    """Where the features of all would take too much memory."""
    together = tiny_study(digits)
    together.step()
    values = together.evaluate()
    monkeypatch.setattr(probe_study, "MOST_BYTES", 1)
    apart = tiny_study(digits)
    apart.step()
    assert apart.evaluate() == values and values["probe/final_layer"] > 0.15
    assert together.drift.file(last=True) == apart.drift.file(last=True)
