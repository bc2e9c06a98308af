"""What a plan asks for, and what no plan and no sweep may ask for."""

import sys

import pytest

from experiments import sweep
from experiments.sweeps import plan
from forgetting.errors import UserError


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.toml").write_text('study = "chess"')
    (tmp_path / "list.toml").write_text('study = "gan_probe"\n[grid]\nseed = 3')
    (tmp_path / "grid.toml").write_text('study = "gan_probe"\ngrid = 3')
    (tmp_path / "path.toml").write_text('study = "gan_probe"\n[settings]\nresults_dir = "x"')
    (tmp_path / "broken.toml").write_text("study = ")
    (tmp_path / "arm.toml").write_text('study = "gan_probe"\n[grid]\nseed = [1]')
    twice = 'study = "gan_probe"\n[settings]\nseed = 1\n[grid]\nx = [{ "seed " = 2 }]'
    (tmp_path / "twice.toml").write_text(twice)
    (tmp_path / "root.toml").write_text('study = "gan_probe"\n[settings]\ndataset.root = 3')
    for arguments, line in (
        (["figure9"], "PLAN: there is no plan figure9 (No such file or directory); there are"),
        (["odd.toml"], "PLAN: study in odd.toml must be sequential_tasks or gan_probe"),
        (["list.toml"], "PLAN: seed in [grid] of list.toml must be a list of values"),
        (["broken.toml"], "PLAN: broken.toml is no TOML file"),
        (["arm.toml"], "model: name one for every run"),
        (["figure3", "lr=fast"], "lr: it must be a number above 0"),
        (["figure3", "resume=3"], "resume: a sweep sets it itself"),
        (["figure3", "seed=3"], "seed: the plan sets it; change it in a copy"),
        (["grid.toml"], "PLAN: [grid] of grid.toml must hold settings"),
        (["path.toml"], "results_dir: a sweep sets it itself"),
        (["figure3", "--results-dir", "odd.toml"], "--results-dir: "),
        (["figure3", "nonsense"], "nonsense: a setting is KEY=VALUE"),
        (["figure3", "--workers", "0"], "--workers: it must be 1 or more"),
        (["twice.toml"], "PLAN: twice.toml sets seed in two places"),
        (["root.toml", "model=cond", "dataset.name=image_folder"], "dataset.root: "),
        (["figure3", "seed =3"], "seed: the plan sets it; change it in a copy"),
        (["figure3", "preset=cpu"], "preset: choose one by --preset"),
        (["figure3", "cpu"], "cpu: a setting is KEY=VALUE; a preset is chosen by --preset cpu"),
        (["figure3", "--scheduler", ""], "--scheduler: it must be an address, as in tcp://"),
    ):
        monkeypatch.setattr(sys, "argv", ["sweep.py", "--results-dir", "runs", *arguments])
        with pytest.raises(SystemExit) as end:
            sweep.main()
        err = capsys.readouterr().err
        assert end.value.code == 1 and err.startswith(f"error: {line}"), err
        assert err.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_the_shipped_plans_are_the_papers_grids():
    study, runs = plan.read_plan("figure3")
    assert study == "sequential_tasks" and len(runs) == 15
    assert len(plan.read_plan("figure2")[1]) == 39
    study, runs = plan.read_plan("table2")
    assert study == "gan_probe" and len(set(runs)) == 3 * 2 * 3 * 3 * 2
    last = {"regularizer=gradient_penalty", "gradient_penalty_weight=10.0", "lr=0.0002"}
    assert last <= set(runs[-1])
    with pytest.raises(UserError):
        plan.read_plan("figure9")


def test_a_plans_words_mean_on_a_command_line_what_they_mean_in_the_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.toml").write_text("""
        study = "sequential_tasks"
        [grid]
        dataset.label = ["12", "a name", "it's"]
        [settings]
        dataset.root = "images"
        method = "vanilla"
        """)
    _, runs = plan.read_plan("plan.toml")
    assert [words[-1] for words in runs] == [
        "dataset.label='12'",
        "dataset.label=a name",
        "dataset.label=it's",
    ]
    assert runs[0][0] == f"dataset.root={tmp_path}/images"


@pytest.mark.parametrize(
    ("plan", "runs"),
    [
        ("recordings", 13),
        ("recording_of_digits", 1),
        ("opponents", 300),
        ("opponents_as_gan", 75),
        ("opponents_more", 60),
        ("planted", 300),
        ("planted_as_gan", 35),
        ("planted_one_vs_all", 15),
        ("live_gan_controls", 24),
        ("live_gan_others", 18),
    ],
)
def test_plans_ask_for_what_there_is(plan, runs):
    from experiments.run.study import studies
    from experiments.sweeps.plan import key_of, read_plan
    from forgetting.settings import check_key

    made = {f"{dict(w.split('=', 1) for w in words)['model']}_{seed}"
            for words in read_plan("recordings")[1]
            for seed in [dict(w.split("=", 1) for w in words)["seed"]]}  # fmt: skip
    study, planned = read_plan(plan)
    assert len(planned) == runs
    of_study = studies()[study]
    for words in planned:
        asked = dict(word.split("=", 1) for word in words)
        table = of_study.table(asked[of_study.arm])
        for word in words:
            check_key(key_of(word), table)
        # Run k meets recording k with seed k, and those that are shipped were made by a plan.
        if name := asked.get("stream.recording"):
            assert name in made and name == f"uncond_{asked['seed']}"
