"""docs/searches.md: what was tried, beside the runs that are shipped of it."""

import re

import numpy as np
import pytest
from conftest import PROJECT

from experiments.benchmarks import preset_settings
from experiments.run.settings import OF_THE_RUNNER
from experiments.run.stored import stored_runs
from forgetting.measures import FINAL_LAYER
from forgetting.settings import flat

SETTINGS = {  # learning rate, width, regularizer of the discriminator
    "a": (2e-4, 32, "spectral_norm"),
    "b": (5e-4, 32, "spectral_norm"),
    "c": (5e-4, 64, "spectral_norm"),
    "d": (2e-4, 32, "gradient_penalty"),
}


def test_the_preset_is_the_setting_that_was_chosen(runs):
    preset = preset_settings("gan_probe", "cpu")
    lr, width, regularizer = SETTINGS["b"]
    chosen = {"lr": lr, "discriminator_width": width, "regularizer": regularizer}
    (one, *_) = [run for run in runs if chosen.items() <= run.config.items()]
    # The search measured distances more often.
    asked = {"model", "seed", "quality_every"}
    told = [key for key in preset if key not in OF_THE_RUNNER | asked] + ["dataset.size"]
    stored = flat(one.config)
    assert len(told) > 15
    assert {key: stored.get(key) for key in told} == {key: preset[key] for key in told}


@pytest.fixture(scope="module")
def runs():
    return stored_runs(PROJECT / "results/searches")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_live_gans_controls_are_those_of_the_runs(runs, name):
    keys = ("lr", "discriminator_width", "regularizer")
    of_one = [run for run in runs if tuple(run.config[key] for key in keys) == SETTINGS[name]]
    assert {(run.arm, run.seed) for run in of_one} == {
        (arm, seed) for arm in ("uncond", "supervised", "rotation_only") for seed in (100, 101)
    }
    above = {}
    for arm in ("supervised", "rotation_only"):
        curves = [run.metrics[FINAL_LAYER][1] for run in of_one if run.arm == arm]
        above[arm] = np.mean([curve[-1] - curve[0] for curve in curves])
    (distance,) = {metric for run in of_one for metric in run.metrics if metric.startswith("fd_")}
    curves = [run.metrics[distance] for run in of_one if run.arm == "uncond"]
    assert all(steps[1] == 1000 for steps, _ in curves)
    first, last = (np.mean([values[i] for _, values in curves]) for i in (1, -1))
    shares = [values[-1] / values[1] for _, values in curves]
    page = (PROJECT / "docs/searches.md").read_text()
    row = re.search(rf"^\| {name} \| [+-].*$", page, re.MULTILINE)[0]
    assert row == (
        f"| {name} | {above['supervised']:+.3f} | {above['rotation_only']:+.3f} | "
        f"{first:.2f}, {last:.2f} | {np.mean(shares):.4f} | {last / first:.4f} |"
    )
