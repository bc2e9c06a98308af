"""What the latest runs found, in a sentence each."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import PROJECT
from stubs import stub

from experiments import figures
from experiments.run.stored import stored_runs
from experiments.show import drawings
from experiments.show.findings import sentences

REFERENCE = PROJECT / "results/reference"


@pytest.fixture(scope="module")
def shipped():
    return stored_runs(REFERENCE)


def test_the_shipped_runs_say_what_the_readme_says(shipped):
    on = "CIFAR-10 (JPEG q75), preset cpu"
    sequential, opponents, gan = sentences(shipped)
    assert sequential == (
        f"Sequential tasks, {on}: rotation minus vanilla in 'last cycle minus first' is "
        "+0.012 [+0.005, +0.018] (5 seeds)."
    )
    assert opponents == (
        f"Recorded opponents, {on}: rotation minus vanilla in 'AUC on past generators' is "
        "+0.097 [+0.066, +0.128] (10 recordings)."
    )
    assert gan == (
        f'GAN probe, {on}: ssgan minus uncond in "final layer\'s probe at the end" is '
        "-0.004 [-0.015, +0.007] (5 seeds, equivalent)."
    )


def test_one_seed_decides_nothing(shipped):
    runs = [run for run in shipped if run.seed == 0 and run.study == "sequential_tasks"]
    of = {run.arm: run.result["cycle_gain"] for run in runs}
    (sequential,) = sentences(runs)
    assert sequential.endswith(f" is {of['rotation'] - of['vanilla']:+.3f} (one seed, undecided).")


def test_of_gans_the_final_layer_is_told_and_of_older_ones_the_best_block(gan_runs):
    runs = [run for run in stored_runs(gan_runs) if run.arm in ("uncond", "ssgan")]
    (line,) = sentences(runs)
    of = {run.arm: run.result["final_layer_end"] for run in runs if run.seed == 0}
    assert 'in "final layer\'s probe at the end" is' in line
    (alone,) = sentences([run for run in runs if run.seed == 0])
    assert f" is {of['ssgan'] - of['uncond']:+.3f} (one seed, undecided)." in alone
    older = []
    for run in runs:
        rest = {name: value for name, value in run.result.items() if name != "final_layer_end"}
        older.append(replace(run, result=rest))
    (line,) = sentences(older)
    assert "'linear probe at the end'" in line


def opponents(past: float, unit: int, method: str, name: str, **settings):
    auc = np.full((4, 4), past)
    run = stub(auc, unit=unit, method=method, **settings)
    return type(run)(**{**vars(run), "id": name})


ARMS = (("vanilla", 0.6), ("rotation", 0.7))


def test_opponents_are_counted_by_recordings_and_the_latest_group_is_meant():
    older = [
        opponents(past, unit, method, f"{2 * unit + i}", width=8)
        for unit in (1, 2, 3)
        for i, (method, past) in enumerate((("vanilla", 0.6), ("rotation", 0.7 + unit / 100)))
    ]
    newer = [
        opponents(0.6, 1, "vanilla", "10", width=16),
        opponents(0.55, 1, "rotation", "11", width=16),
    ]
    (sentence,) = sentences([*newer, *older])
    assert sentence == (
        "Recorded opponents, digits, preset quick: rotation minus vanilla in 'AUC on past "
        "generators' is -0.050 (one recording, undecided)."
    )
    (sentence,) = sentences(older)
    assert sentence.endswith(" is +0.120 [+0.095, +0.145] (3 recordings).")
    assert sentences(newer[:1]) == []  # nothing to compare it with


def test_every_data_set_has_its_own_sentence_the_latest_first():
    older = [opponents(past, 1, m, str(i)) for i, (m, past) in enumerate(ARMS)]
    newer = [
        replace(run, id=str(int(run.id) + 5), data="mine", identity=run.identity | {"images": "x"})
        for run in older
    ]
    of_mine, of_digits = sentences([*older, *newer])
    assert of_mine == of_digits.replace(" digits,", " mine,")


def test_a_method_of_ones_own_has_a_sentence_beside_the_studys_second_arm():
    runs = [
        replace(opponents(past, unit, "vanilla", f"{3 * unit + i}"), arm=arm)
        for unit in (1, 2, 3)
        for i, (arm, past) in enumerate(
            (("vanilla", 0.6), ("rotation", 0.7 + unit / 100), ("mirror@5eb7", 0.6 - unit / 100))
        )
    ]
    of_rotation, of_mirror = sentences(runs)
    assert "rotation minus vanilla" in of_rotation
    assert of_mirror == (
        "Recorded opponents, digits, preset quick: mirror@5eb7 minus vanilla in 'AUC on past "
        "generators' is -0.020 [-0.045, +0.005] (3 recordings, undecided)."
    )
    assert sentences([run for run in runs if run.arm != "rotation"]) == [of_mirror]


def test_figures_end_with_the_page_and_the_sentences(shipped, tmp_path, capsys, monkeypatch):
    page = tmp_path / "report.html"
    monkeypatch.setattr(drawings, "draw", lambda *_: [tmp_path / "figure1.png", page])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--runs", str(REFERENCE), "--out", "."])
    figures.main()
    out, err = capsys.readouterr()
    assert out.splitlines() == ["figure1.png", "report.html", *sentences(shipped)]
    assert err == ""
    sys.argv += ["--only", "figure1"]
    figures.main()
    assert capsys.readouterr().out.splitlines()[-1] == "report.html"
