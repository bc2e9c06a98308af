"""What docs/paper.md says in sentences of the shipped GANs."""

import ast
import contextlib
import re

import numpy as np
import pytest
from conftest import PROJECT

from experiments.run.identity import identity, same
from experiments.run.stored import stored_runs
from experiments.run.study import studies
from experiments.show import grids
from experiments.show.arms import defaults
from experiments.sweeps.plan import read_plan
from forgetting.measures import FINAL_LAYER

DISTANCE, AT_32_PIXELS = "fd_cifar10_16px_cnn", "fd_cifar10_cnn"
ALONE = ("rotation_only", "supervised")  # arms without a generator


@pytest.fixture(scope="module")
def runs():
    return stored_runs(PROJECT / "results/reference")


def gans(runs, steps):
    """The shipped runs of the GAN probe, grids and planted ones aside, with so many updates."""
    some = [run for run in grids.without_grids(runs) if run.study == "gan_probe"]
    some = [run for run in some if not run.config.get("plant_updates")]
    return {(run.arm, run.seed): run for run in some if run.config["steps"] == steps}


def test_the_samples_are_further_off_with_replay_in_every_seed(runs):
    of = gans(runs, 6000)
    for seed in (1, 2, 3):
        steps, replay = of["uncond+replay", seed].metrics[DISTANCE]
        same, uncond = of["uncond", seed].metrics[DISTANCE]
        assert list(steps) == list(same) == [0, 3000, 6000]
        assert (replay[1:] > uncond[1:]).all() and replay[0] == uncond[0]


def test_what_is_told_of_figure_2(runs):
    of, text = gans(runs, 6000), " ".join((PROJECT / "docs/paper.md").read_text().split())
    ends, starts = {}, set()
    for arm in sorted({arm for arm, _ in of}):
        curves = [run.metrics[FINAL_LAYER][1] for (name, _), run in of.items() if name == arm]
        assert len(curves) == (5 if arm in (*defaults("gan_probe"), *ALONE) else 3)
        start, ends[arm] = np.mean(curves, 0)[[0, -1]]
        starts.add(f"{start:.2f}")
    rotation, labels = (ends.pop(arm) for arm in ALONE)
    told = f"rises from {starts.pop()} to between {min(ends.values()):.2f} and"
    assert not starts and f"{told} {max(ends.values()):.2f} in all kinds" in text
    controls = f"rotation alone ends at {rotation:.2f}, one that learns the labels at {labels:.2f}"
    assert controls in text
    for arm in ends:
        alike = [run.metrics for (name, _), run in of.items() if name == arm]
        by_block = [np.mean([m[f"probe/block_{i}"][1][-1] for m in alike]) for i in (1, 2, 3, 4)]
        assert by_block[0] == max(by_block)
    of = gans(runs, 20000)
    steps, ssgan = of["ssgan", 0].metrics["probe/best"]
    below = of["uncond", 0].metrics["probe/best"][1] - ssgan
    assert (below[np.asarray(steps) >= 4000] > 0).all()
    assert f"by {below[-1]:.3f} at the end" in text


def test_the_plan_of_the_reduced_grid_makes_the_shipped_runs(runs):
    """Whatever becomes of the preset: they stay."""
    study = studies()["gan_probe"]
    other = {"lr": 1.0, "dataset.size": 8, "probe_features": 3}
    _, planned = read_plan("table2_reduced")
    shipped = [run.identity for run in runs if run.config.get("steps") == 2000]
    for words in planned:
        asked = dict(word.split("=", 1) for word in words)
        for key, text in asked.items():
            with contextlib.suppress(ValueError, SyntaxError):  # a text
                asked[key] = ast.literal_eval(text)
        wanted = identity(study, {**study.chosen_by("cpu", asked), **other, **asked})
        wanted |= {"device": "cpu", "precision": "fp32", "dataset.name": "image_folder"}
        assert any(same(wanted, run, but=["extractor"]) for run in shipped), words


def test_what_is_told_of_table_2(runs):
    page = (PROJECT / "docs/paper.md").read_text()
    text = " ".join(page.split())
    # The rows on the page are the table's (above).
    rows = re.findall(r"\| 0\.0002 \| (\S+) fd.* \| (\S+) fd", page)
    uncond, ssgan = np.array(rows, float).T
    assert (
        f"SS-GAN is lower in {(ssgan < uncond).sum()} of the paper's {len(rows)} settings" in text
    )
    for of in (ssgan, uncond):
        assert f"({of.min():.2f} to {of.max():.2f})" in text
    of = gans(runs, 20000)
    ssgan, uncond = (of[arm, 0].metrics[AT_32_PIXELS][1][1:] for arm in ("ssgan", "uncond"))
    assert f"at {(ssgan < uncond).sum()} of {len(ssgan)} measurements" in text
    assert f"({ssgan[-1]:.2f} to {uncond[-1]:.2f})" in text
