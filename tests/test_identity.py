"""What a run is, and that runs of older code go on counting.

runs_9afe66d holds three runs that commit 9afe66d made and exported.
"""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY, command

from experiments.gan_probe import STUDY as GAN
from experiments.run.identity import arm_name, identity, same, shared
from experiments.run.settings import COMMON
from experiments.run.stored import read_record, read_run, runs_and_rest, stored_runs
from experiments.sequential_tasks import STUDY as SEQUENTIAL
from experiments.show.drawings import draw
from experiments.show.groups import groups

OLD = Path(__file__).with_name("runs_9afe66d")


def test_what_does_not_change_what_is_computed_is_no_part_of_a_run():
    run = identity(SEQUENTIAL, {"method": "vanilla"}, images="a")
    for key, value in {
        "results_dir": "/elsewhere",
        "checkpoint_every": 3,
        "resume": "3",
        "stop_after": "1h",
        "dataset.root": "/elsewhere",
        "dataset.memory_mb": 3,
        "dataset.label": "mine",
        "preset": "cpu",
        "rotation_weight": 3.0,  # vanilla has no rotation loss
        "rotated_images": 3,
    }.items():
        assert identity(SEQUENTIAL, {"method": "vanilla", key: value}, images="a") == run, key
    for key in ("seed", "lr", "width", "device", "precision", "adam_betas", "batch_size"):
        other = identity(SEQUENTIAL, {"method": "vanilla", key: 3}, images="a")
        assert other != run and not same(other, run) and same(other, run, but=[key])
        assert key in COMMON
    assert identity(SEQUENTIAL, {"method": "vanilla"}, images="b") != run
    assert same(identity(SEQUENTIAL, {"method": "vanilla"}), run), "its images are not known yet"
    # Widths of the nets are what counts, however they were asked for.
    asked = {"model": "ssgan", "width": 8, "discriminator_width": 4, "generator_width": 4}
    assert identity(GAN, asked) == identity(GAN, asked | {"width": 4, "generator_width": 4})
    assert identity(GAN, {"model": "uncond", "alpha": 0.7}) == identity(GAN, {"model": "uncond"})
    hinge, other = (
        identity(GAN, {"model": "rotation_only", "loss": loss})
        for loss in ("hinge", "non_saturating")
    )
    assert hinge == other


def test_runs_of_a_cpu_and_of_a_gpu_belong_together_and_of_one_seed_on_both_one_counts(tmp_path):
    for run, (device, seed) in enumerate((("cpu", 1), ("cuda", 1), ("cuda", 2))):
        shutil.copytree(next(OLD.glob("sequential*")), tmp_path / str(run))
        config = json.loads((tmp_path / f"{run}/config.json").read_text())
        config |= {"device": device, "seed": seed}
        (tmp_path / f"{run}/config.json").write_text(json.dumps(config))
    (group,) = groups(stored_runs(tmp_path), "sequential_tasks")
    assert [(run.id, run.config["device"]) for run in group.runs] == [("1", "cuda"), ("2", "cuda")]
    assert "device" not in group.readable_settings()


def test_an_arm_is_named_by_its_own_settings_that_are_not_the_default():
    def named(study, **settings):
        return arm_name(study, identity(study, settings))

    assert named(SEQUENTIAL, method="rotation") == "rotation"
    assert named(SEQUENTIAL, method="rotation", batch_size=8) == "rotation"
    assert named(SEQUENTIAL, method="rotation", rotation_weight=0.5) == (
        "rotation(rotation_weight=0.5)"
    )
    assert named(SEQUENTIAL, method="vanilla", rotation_weight=0.5) == "vanilla"
    assert named(GAN, model="ssgan", alpha=0.5) == "ssgan(alpha=0.5)"  # alpha_end follows it
    assert named(GAN, model="ssgan", alpha=0.5, alpha_end=0.1) == "ssgan(alpha=0.5, alpha_end=0.1)"
    half, whole = (
        shared(GAN, identity(GAN, {"model": model, "alpha": 0.5})) for model in ("ssgan", "uncond")
    )
    assert half == whole


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """Runs of today's code: one equal to an old one, one of another seed, one of another weight."""
    folder = tmp_path_factory.mktemp("new")
    for words in (
        ["seed=0", "method=vanilla"],
        ["seed=1", "method=rotation"],
        ["seed=0", "method=rotation", "rotation_weight=0.5"],
    ):
        here = ["with", *TINY, "precision=fp32", *words, "results_dir=runs"]
        done = command("sequential_tasks.py", *here, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "runs"


def test_runs_of_older_code_pair_with_new_ones_and_are_drawn(new, tmp_path):
    old = {run.folder.name: run for run in stored_runs(OLD)}
    assert {(run.study, run.arm) for run in old.values()} == {
        ("sequential_tasks", "vanilla"),
        ("sequential_tasks", "rotation"),
        ("gan_probe", "ssgan"),
    }
    assert read_run(new / "1").identity == old["sequential_tasks-quick-vanilla-0"].identity
    (group,) = groups(stored_runs(new, OLD), "sequential_tasks")
    assert [run.folder.parent for run in group.of_arm("vanilla")] == [new], "the first folder's"
    assert [run.seed for run in group.of_arm("rotation")] == [0, 1]
    assert "rotation(rotation_weight=0.5)" in group.arms()
    names = ["figure1", "figure2", "figure3", "samples", "claims", "table3"]
    assert len(draw([OLD], tmp_path, names)) == len(names)
    assert "ssgan" in (tmp_path / "table3.csv").read_text(encoding="utf-8")


def test_a_setting_that_an_older_run_lacks_has_its_default(new, tmp_path):
    copy = tmp_path / "1"
    shutil.copytree(OLD / "sequential_tasks-quick-vanilla-0", copy)
    config = (copy / "config.json").read_text()
    assert '"balanced": true,' in config
    (copy / "config.json").write_text(config.replace('"balanced": true,', ""))
    assert read_run(copy).identity == read_run(new / "1").identity
    assert read_run(copy).config["balanced"] is True
    done = command(
        "sequential_tasks.py",
        *["with", *TINY, "precision=fp32", "method=vanilla", "resume=auto"],
        f"results_dir={tmp_path}",
        cwd=tmp_path,
    )
    assert "run 1: vanilla is complete already" in done.stdout, done.stderr


def test_an_arm_that_does_not_use_a_setting_goes_with_every_value_of_it(tmp_path):
    here = ["with", "quick", "steps=2", "width=4", "probe_every=2", "probe_images=60"]
    here += ["probe_features=16", "quality_images=500", "device=cpu", "results_dir=runs"]
    for words in (
        ["model=uncond"],
        ["model=uncond", "loss=non_saturating"],
        ["model=rotation_only"],
    ):
        done = command("gan_probe.py", *here, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    found = groups(stored_runs(tmp_path / "runs"), "gan_probe")
    assert [group.arms() for group in found] == [["uncond", "rotation_only"]] * 2
    assert [group.differs for group in found] == ["loss=hinge", "loss=non_saturating"]


@pytest.mark.parametrize(
    "file,content,reason",
    [
        ("config.json", '{"model": "resnet", "seed": 1, "lr": 0.1}', "a run of another program"),
        ("config.json", "null", "config.json holds no object"),
        ("config.json", "[]", "config.json holds no object"),
        ("info.json", "", "info.json is no whole JSON"),
        ("info.json", "{}", "info.json does not tell its images"),
        ("metrics.json", "", "metrics.json is no whole JSON"),
        ("metrics.json", "{}", "metrics.json holds no metric"),
        ("metrics.json", '{"accuracy/current": null}', "TypeError"),
        ("run.json", '{"status": null}', "run.json says no status"),
        ("run.json", '{"status": "COMPLETED"}', "KeyError: 'experiment'"),
    ],
)
def test_what_is_foreign_or_damaged_is_named_and_passed_over(
    file, content, reason, tmp_path, capsys
):
    for name in ("sequential_tasks-quick-vanilla-0", "gan_probe-quick-ssgan-0"):
        shutil.copytree(OLD / name, tmp_path / name)
    (tmp_path / "gan_probe-quick-ssgan-0" / file).write_text(content)
    runs, _ = runs_and_rest(tmp_path)
    assert [run.arm for run in runs] == ["vanilla"]
    err = capsys.readouterr().err
    assert f"passed over {tmp_path}/gan_probe-quick-ssgan-0: " in err and reason in err


def test_a_complete_run_that_cannot_be_read_is_made_again(new, tmp_path):
    shutil.copytree(new / "1", tmp_path / "1")
    (tmp_path / "1" / "metrics.json").write_text("")
    assert read_record(tmp_path / "1").status == "COMPLETED"
    here = ["with", *TINY, "precision=fp32", "method=vanilla", "resume=auto"]
    done = command("sequential_tasks.py", *here, "results_dir=.", cwd=tmp_path)
    assert "warning: 1 says it is complete, but metrics.json is no whole JSON" in done.stdout
    assert "stored in 2" in done.stdout
    assert read_run(tmp_path / "2").identity == read_run(new / "1").identity
