"""Live discriminators on the past generators of all runs of their seed, and what is drawn of it."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from stubs import stub

from experiments import gan_probe
from experiments.results import export
from experiments.run import checkpoints, process, runner
from experiments.run.nets import load_discriminator
from experiments.run.stored import stored_runs
from experiments.show import cures, remembers_live
from experiments.show.compare import by_learner, difference
from experiments.show.drawings import draw
from experiments.show.groups import groups
from experiments.show.plotting import style
from forgetting.networks import scale_images
from gan.probe_study import FAKES

TINY = ["quick", "steps=6", "width=4", "probe_every=2", "probe_images=60", "probe_features=16"]
TINY += ["quality_every=6", "quality_images=500", "device=cpu"]
RUNS = {"1": "uncond", "2": "uncond+replay", "3": "uncond+r1", "4": "rotation_only", "5": "cond"}


def run(*words):
    with pytest.raises(SystemExit) as end:
        runner.main(gan_probe.STUDY, ["gan_probe.py", *words])
    return end.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of each arm of seed 0, one of seed 1, and one that another setting tells apart."""
    folder = tmp_path_factory.mktemp("gans")
    others = [["model=uncond", "seed=1"], ["model=uncond", "lr=1e-3"]]
    for words in ([f"model={arm}"] for arm in RUNS.values()):
        assert run("with", *TINY, *words, f"results_dir={folder}") == 0
    for words in others:
        assert run("with", *TINY, *words, f"results_dir={folder}") == 0
    return folder


def round_robin(folder, run_id):
    return run("round_robin", "with", f"resume={run_id}", f"results_dir={folder}")


@pytest.fixture(scope="module")
def scored(folder):
    assert run("round_robin", "with", f"results_dir={folder}") == 0  # of all that can take part
    return folder


def test_each_discriminator_meets_all_past_fakes_of_its_seed(scored, digits):
    """By the stored net and fakes: the untrained generators, 0, and the last, 6, are left out."""
    held_out = digits.test_images[digits.balanced_test_subset(FAKES)]
    for run_id in ("1", "2", "3"):
        rows = pd.read_csv(scored / run_id / "round_robin.csv", dtype={"run": str})
        assert list(zip(rows["run"], rows["generator"], strict=True)) == [
            (other, step) for other in ("1", "2", "3", "5") for step in (2, 4)
        ]
        assert set(rows["arm"]) == {"uncond", "uncond+replay", "uncond+r1", "cond"}
        net = load_discriminator(scored / run_id)
        for row in rows.to_dict("records"):
            fakes = checkpoints.load(scored / row["run"])["study"]["parts"]
            fakes = fakes[f"fakes-{row['generator']}"]
            with torch.inference_mode():
                logits = [
                    net.logits(net(scale_images(images)), None) for images in (held_out, fakes)
                ]
            truth = np.repeat([1, 0], [len(part) for part in logits])
            assert row["auc"] == pytest.approx(roc_auc_score(truth, torch.cat(logits)), abs=2e-3)


def test_the_measure_counts_each_run_alike_and_is_published(scored, tmp_path):
    of_arm = {of.arm: of for of in stored_runs(scored) if of.seed == 0 and of.config["lr"] == 2e-4}
    rows = pd.read_csv(scored / "2/round_robin.csv")
    mean = rows.groupby("run")["auc"].mean().mean()
    assert of_arm["uncond+replay"].result["round_robin_auc"] == pytest.approx(mean)
    assert "round_robin_auc" not in of_arm["cond"].result
    export([scored], tmp_path / "published")
    again = {of.folder.name: of.result for of in stored_runs(tmp_path / "published")}
    assert again["gan_probe-quick-uncond+replay-0"]["round_robin_auc"] == pytest.approx(mean)


def test_every_gan_of_the_folder_is_asked_and_one_that_cannot_be_leaves_the_others(
    folder, tmp_path, capsys
):
    for name in ("1", "2", "4", "5"):
        shutil.copytree(folder / name, tmp_path / name)
    shutil.copytree(folder / "2", tmp_path / "8")  # exported: without weights
    for checkpoint in (tmp_path / "8").glob("checkpoint-*"):
        checkpoint.unlink()
    shutil.copytree(folder / "2", tmp_path / "9")
    config = json.loads((tmp_path / "9/config.json").read_text())
    of_another_version = json.dumps(config | {"model": "gan_to_come+replay"})
    (tmp_path / "9/config.json").write_text(of_another_version)
    for fakes in (tmp_path / "2").glob("fakes-*"):
        fakes.write_bytes(b"")
    capsys.readouterr()
    words = ("round_robin", "with", f"results_dir={tmp_path}")
    assert run(*words) == 1
    said = capsys.readouterr()
    assert said.out.count("past generators of") == 1 and "run 1 on " in said.out
    assert said.err.startswith("error: run 2: ") and said.err.count("\n") == 1
    shutil.rmtree(tmp_path / "1")
    shutil.rmtree(tmp_path / "2")
    assert run(*words) == 1
    assert (
        capsys.readouterr().err == f"error: results_dir: no run in {tmp_path} is for round_robin\n"
    )


@pytest.mark.parametrize(
    "run_id,line",
    [
        ("4", "resume: a run of rotation_only has no discriminator of fakes"),
        ("5", "resume: a conditional discriminator needs classes, others' fakes lack them"),
    ],
)
def test_a_run_that_cannot_take_part_is_one_line(run_id, line, folder, capsys):
    capsys.readouterr()
    assert round_robin(folder, run_id) == 1
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_gan_that_lies_there_twice_is_met_once(scored, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(process, "prepare", lambda device, of: asked.append((device.type, of)))
    for name, source in (("1", "1"), ("2", "2"), ("2.bak", "2")):
        shutil.copytree(scored / source, tmp_path / name)
    shutil.copytree(scored / "2", tmp_path / "8")
    record = json.loads((tmp_path / "8/run.json").read_text())
    (tmp_path / "8/run.json").write_text(json.dumps(record | {"_id": "8"}))  # run again
    shutil.copytree(scored / "2", tmp_path / "9")
    (tmp_path / "9/run.json").write_text(json.dumps(record | {"_id": "9"}))
    config = json.loads((tmp_path / "9/config.json").read_text())
    (tmp_path / "9/config.json").write_text(json.dumps(config | {"device": "cuda"}))
    assert round_robin(tmp_path, "1") == 0
    rows = pd.read_csv(tmp_path / "1/round_robin.csv", dtype=str)
    assert rows["run"].tolist() == ["1", "1", "2", "2"]
    assert asked == [("cpu", "fp32")]  # whatever it was trained in
    assert round_robin(tmp_path, "9") == 0  # by its own past, not by its double's
    assert pd.read_csv(tmp_path / "9/round_robin.csv", dtype=str)["run"].tolist() == [
        *("1", "1", "9", "9"),
    ]


def test_a_run_under_way_has_no_past_yet(folder, tmp_path, capsys):
    shutil.copytree(folder / "1", tmp_path / "1")
    record = json.loads((tmp_path / "1/run.json").read_text())
    (tmp_path / "1/run.json").write_text(json.dumps({**record, "status": "INTERRUPTED"}))
    assert round_robin(tmp_path, "1") == 1
    err = capsys.readouterr().err
    assert err == "error: resume: run 1 is not complete; its past is not over\n"


def test_only_runs_that_were_asked_alike_pair(scored, tmp_path, capsys):
    for name in ("1", "2"):
        shutil.copytree(scored / name, tmp_path / name)
    rows = pd.read_csv(tmp_path / "2/round_robin.csv")
    rows[rows["arm"] != "cond"].to_csv(tmp_path / "2/round_robin.csv", index=False)  # came later
    (group,) = groups(stored_runs(tmp_path), "gan_probe")
    assert difference(group, "uncond+replay", "uncond", "round_robin_auc") is None
    assert difference(group, "uncond+replay", "uncond", "probe_final").n == 1
    assert difference(group, "uncond", None, "round_robin_auc").n == 1
    capsys.readouterr()
    draw([tmp_path], tmp_path / "figures", ["past_fakes"])
    said = capsys.readouterr().err
    assert said.startswith("round_robin_auc: asked about fewer arms than others of their seed")
    assert f"{tmp_path.name}/2 (seed 0" in said and f"{tmp_path.name}/1 " not in said


def test_seeds_that_were_asked_about_fewer_arms_are_in_no_mean(scored):
    live = [of for of in stored_runs(scored) if of.seed == 0 and of.config["lr"] == 2e-4]
    one = next(of for of in live if of.arm == "uncond")
    few = one.info | {"met": ["uncond"]}
    runs = [
        dataclasses.replace(one, result=one.result | {"round_robin_auc": auc}, info=info, seed=seed)
        for seed, auc, info in ((0, 0.6, one.info), (1, 0.8, one.info), (2, 0.1, few))
    ]
    assert sorted(by_learner(runs, "round_robin_auc").values()) == [0.6, 0.8]
    assert list(by_learner(runs[1:], "round_robin_auc").values()) == [0.8]  # as many: of more arms
    assert by_learner([live[-1]], "round_robin_auc") == {}
    assert len(by_learner(runs, "probe_final")) == 3


def test_it_is_a_column_of_cures_and_a_point_of_the_scatter(scored):
    style()
    live = [of for of in stored_runs(scored) if of.seed == 0 and of.config["lr"] == 2e-4]
    met = np.array([[0.9, 0.5], [0.6, 0.9]])
    recorded = [
        dataclasses.replace(stub(met + shift, unit=unit, method=method), data=live[0].data)
        for unit, shift in ((1, 0.0), (2, 0.02))
        for method, shift in (("vanilla", shift), ("replay", 2 * shift))
    ]
    found = [*groups(recorded, "sequential_tasks"), *groups(live, "gan_probe")]
    (group,) = remembers_live.with_both(found)
    column = next(of for of in group.columns if of.measure == cures.LIVE)
    result = {of.arm: of.result.get("round_robin_auc") for of in live}
    difference = result["uncond+replay"] - result["uncond"]
    assert column.differences["replay"] == [pytest.approx(difference)]
    figure = remembers_live.remembers_live([group])
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["replay"]
    assert axis.texts[0].xy == (pytest.approx(0.01), pytest.approx(difference))
    assert "live" not in json.dumps([c.title for c in cures.with_cures(found[:1])[0].columns])
