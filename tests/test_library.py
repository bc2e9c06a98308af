"""What programs of one's own import: each function, and every example of docs/library.md."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from experiments import (
    PROJECT,
    compare,
    load_discriminator,
    load_generator,
    load_measures,
    load_runs,
)
from experiments.gan_probe import STUDY as GAN_PROBE
from experiments.run.runner import main
from experiments.sequential_tasks import STUDY as SEQUENTIAL
from experiments.show.intervals import mean_interval
from experiments.show.library import units_needed
from forgetting import read_features
from forgetting.errors import UserError
from forgetting.networks import scale_images

REFERENCE = PROJECT / "results/reference"


def run(study, words) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(study, words)
    return ended.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder: run 1 is a conditional GAN's, 2 one with spectral norm's replacement and another
    batch norm, 3 a classifier with a head a task."""
    folder = tmp_path_factory.mktemp("library")
    words = ["width=8", "steps=3", "probe_every=3", "probe_images=60", "quality_images=500"]
    common = ["with", "quick", "device=cpu", "precision=fp32", f"results_dir={folder}"]
    for own in (["model=cond"], ["model=ssgan_sbn", "regularizer=gradient_penalty"]):
        assert run(GAN_PROBE, ["gan_probe.py", *common, *words, *own]) == 0
    words = ["width=8", "iterations_per_task=3", "cycles=1", "eval_every=3", "probe_images=60"]
    words += ["method=vanilla", "head=per_task", "eval_images=50", "dataset.size=16"]
    assert run(SEQUENTIAL, ["sequential_tasks.py", *common, *words]) == 0
    return folder


def test_every_example_of_the_page(runs, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/library.md").read_text(), re.S)
    assert len(blocks) == 3
    program = "\n".join(blocks).replace("results/reference", str(REFERENCE))
    program = program.replace("results/runs/5", str(runs / "2"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    accuracy, alike = map(float, re.search(r"has (\S+), .* are (\S+) alike", done.stdout).groups())
    assert accuracy > 0.6 and 0 < alike < 1
    assert "rotation" in done.stdout and "above" in done.stdout


# ------------------------------------------------------------------ features


def test_features_are_those_of_the_named_layer_and_the_net_is_left_alone():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 5),
    )
    images = torch.randn(10, 3, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = read_features(net, images, at_once=4)
    maps = read_features(net, images, layer="1", at_once=3)
    assert net.training and all(module.training for module in net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net[1]._forward_hooks and not net._forward_hooks
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(found, net(images))
        torch.testing.assert_close(maps, net[:2](images).mean((2, 3)))


def test_a_layer_that_cannot_be_read_is_named():
    net = torch.nn.LSTM(3, 4, batch_first=True)
    with pytest.raises(ValueError, match="the module gives no tensor with a row an image"):
        read_features(net, torch.randn(2, 5, 3))
    net = torch.nn.Sequential(torch.nn.Linear(3, 4))
    with pytest.raises(ValueError, match="no layer '7'; there are , 0"):
        read_features(net, torch.randn(2, 3), layer="7")
    net.unused = torch.nn.Linear(3, 4)
    net.forward = lambda x: net[0](x)
    with pytest.raises(ValueError, match="layer 'unused' has no part in the forward pass"):
        read_features(net, torch.randn(2, 3), layer="unused")


# ------------------------------------------------------------------ nets


def test_a_runs_nets_are_those_that_were_trained(runs):
    from experiments.run import checkpoints

    for run, conditional in (("1", True), ("2", False)):
        state = checkpoints.load(runs / run)["study"]
        discriminator, generator = load_discriminator(runs / run), load_generator(str(runs / run))
        for net, stored in (
            (discriminator, state["learner"]["net"]),
            (generator, state["generator"]),
        ):
            assert not net.training
            assert net.state_dict().keys() == stored.keys()
            assert all(torch.equal(value, stored[name]) for name, value in net.state_dict().items())
        labels = torch.tensor([0, 9]) if conditional else None
        fakes = generator(torch.randn(2, 128), labels)
        assert fakes.shape == (2, 3, 8, 8) and fakes.abs().max() <= 1
        assert discriminator.logits(discriminator(fakes), labels).shape == (2,)
    classifier = load_discriminator(runs / "3")
    features = classifier(scale_images(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)))
    assert classifier.logits(features, torch.tensor([0, 9])).shape == (2,)


def test_a_run_without_such_a_net_is_one_line(runs):
    with pytest.raises(UserError, match="3: a run of vanilla has no generator"):
        load_generator(runs / "3")
    with pytest.raises(UserError, match="nowhere: there is no run"):
        load_discriminator(runs / "nowhere")
    published = next(REFERENCE.glob("gan_probe-*"))
    with pytest.raises(UserError, match="no checkpoint that is whole"):
        load_discriminator(published)


# ------------------------------------------------------------------ comparisons


def of_arms(**arms) -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, "metric": "m", "value": value}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_a_comparison_is_paired_corrected_and_judged():
    base = np.array([0.1, 0.9, 0.5, 0.3])
    table = of_arms(
        base=base,
        better=base + np.array([0.2, 0.21, 0.19, 0.2]),
        alike=base + np.array([0.001, -0.001, 0.002, 0.0]),
        unclear=base + np.array([0.5, -0.5, 0.3, 0.1]),
    )
    found = compare(table, "base", smallest=0.05).set_index("arm")
    assert found.verdict.to_dict() == {
        "better": "above", "alike": "equivalent", "unclear": "undecided"
    }  # fmt: skip
    assert found.difference["better"] == pytest.approx(0.2) and found.n["better"] == 4
    by_hand = stats.ttest_1samp([0.2, 0.21, 0.19, 0.2], 0).pvalue
    assert found.p["better"] == pytest.approx(by_hand)
    assert found.p_holm["better"] == pytest.approx(3 * by_hand)
    assert compare(table, "better").set_index("arm").verdict["base"] == "below"


def test_pairs_that_do_not_differ_count_in_the_family():
    base = np.array([0.1, 0.9, 0.5])
    table = of_arms(base=base, same=base, other=base + np.array([0.2, 0.21, 0.19]))
    found = compare(table, "base").set_index("arm")
    assert found.p_holm["other"] == pytest.approx(2 * found.p["other"])
    assert found.p_holm["same"] == 1 and found.verdict["same"] == "undecided"


def test_the_mean_of_a_unit_counts_once():
    table = of_arms(base=[0, 0, 0, 0], other=[1, 3, 5, 5])
    table["unit"] = ["a", "a", "b", "c"] * 2
    (row,) = compare(table, "base").itertuples()
    assert row.n == 3 and row.difference == pytest.approx(4)


def test_units_needed_is_what_the_field_tabulates():
    # Cohen's d of 0.5: 34 pairs for a power of 0.8, 44 for 0.9 (two-sided, 0.05).
    values = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    apart = mean_interval(values / values.std(ddof=1))
    assert units_needed(apart, 0.5) == 34 and units_needed(apart, 0.5, power=0.9) == 44
    assert np.isnan(units_needed(apart, None)) and np.isnan(units_needed(mean_interval([1.0]), 0.5))
    assert units_needed(apart, 1e-6) == np.inf


def test_a_table_that_cannot_be_compared_is_one_line():
    table = of_arms(base=[0, 1], other=[1, 2])
    with pytest.raises(ValueError, match="needs a column metric"):
        compare(table.drop(columns="metric"), "base")
    with pytest.raises(ValueError, match="there is no arm bas; there are base, other"):
        compare(table, "bas")
    with pytest.raises(ValueError, match="m of base has two runs of seed 0"):
        compare(pd.concat([table, table]), "base")


def test_stored_runs_give_the_same_comparison_by_either_table():
    by_measure = load_measures(REFERENCE)
    by_measure = by_measure[(by_measure.metric == "probe_end") & (by_measure.preset == "cpu")]
    by_value = load_runs(REFERENCE)
    by_value = by_value[(by_value.metric == "probe/final") & (by_value.study == "sequential_tasks")]
    a, b = compare(by_measure, "vanilla"), compare(by_value, "vanilla")
    assert len(a) >= 2 and a.difference.tolist() == b.difference.tolist()
    assert a.p_holm.tolist() == b.p_holm.tolist()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_measures(tmp_path / "nowhere")
