"""Methods on the command line: those of the project, a user's own file, and the two combined."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import ENVIRONMENT, PROJECT, command
from test_own_method import CODE, PAGE
from torture import metrics

from experiments import gan_probe, sequential_tasks
from experiments.run import runner
from experiments.run.observer import RunFolder
from experiments.run.stored import read_record, stored_runs

SEQUENTIAL, GAN = "sequential_tasks.py", "gan_probe.py"
STUDIES = {SEQUENTIAL: sequential_tasks.STUDY, GAN: gan_probe.STUDY}
TINY = ["quick", "width=4", "probe_images=60", "probe_features=16", "device=cpu"]
OF = {
    SEQUENTIAL: [*TINY, "iterations_per_task=6", "cycles=1", "results_dir=runs"],
    GAN: [
        *(*TINY, "steps=6", "probe_every=3", "boundary_every=2", "results_dir=runs"),
        "quality_images=500",
    ],
}


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """run(script, *words): the command in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(script, *words):
        with pytest.raises(SystemExit) as end:
            runner.main(STUDIES[script], [script, "with", *OF[script], *words])
        return subprocess.CompletedProcess(words, end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_idea.py").write_text(CODE)
    return tmp_path


def test_a_users_file_is_run_in_both_studies_and_kept_with_the_run(folder, run):
    for script, arm in (
        (SEQUENTIAL, "method=./my_idea.py"),
        (GAN, "model=uncond+./my_idea.py"),
        (SEQUENTIAL, "method=./my_idea.py+ewc"),
    ):
        done = run(script, arm, "my_idea.weight=0.5")
        assert done.returncode == 0, done.stderr
    for i, name in (("1", "my_idea"), ("2", "uncond+my_idea"), ("3", "my_idea+ewc")):
        assert f": {name}, seed 0" in (folder / f"runs/{i}/cout.txt").read_text()
        info = json.loads((folder / f"runs/{i}/info.json").read_text())
        assert info["methods"]["my_idea"]["text"] == CODE
        assert info["methods"]["my_idea"]["overrides"] == {}
        assert (folder / f"runs/{i}/config.json").read_text().count('"weight": 0.5') == 1
    arms = [run.arm for run in stored_runs(folder / "runs")]
    digest = read_record(folder / "runs/1").files.split()[1][:4]
    assert arms == [
        f"my_idea@{digest}(weight=0.5)",
        f"uncond+my_idea@{digest}(weight=0.5)",
        f"ewc+my_idea@{digest}(weight=0.5)",
    ]
    (folder / "my_idea.py").unlink()  # runs are read without it
    assert [run.arm for run in stored_runs(folder / "runs")] == arms


def test_killed_between_boundaries_it_ends_to_the_bit_and_a_changed_file_is_refused(folder, run):
    arm = ["method=./my_idea.py+replay", "iterations_per_task=60", "checkpoint_every=7"]
    assert run(SEQUENTIAL, *arm, "results_dir=whole").returncode == 0
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "experiments" / SEQUENTIAL), "with", *OF[SEQUENTIAL], *arm],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("runs/1/checkpoint-[1-9]?*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    other = folder / "other"
    other.mkdir()
    (other / "my_idea.py").write_text(CODE + "\n# another\n")
    for words in (["method=../my_idea.py+replay"], []):  # another file of that name, then its own
        here = ["resume=1", "results_dir=../runs", *words]
        (other.parent / "my_idea.py").write_text(CODE + "# changed\n")
        done = command(SEQUENTIAL, "with", *here, cwd=other)
        assert done.returncode == 1 and "a method's file is not what ../runs/1 began" in done.stderr
    # Its own again, wherever that lies now.
    (other / "my_idea.py").write_text(CODE)
    here = ["resume=1", "method=replay+./my_idea.py", "results_dir=../runs"]
    done = command(SEQUENTIAL, "with", *here, cwd=other)
    assert re.search(r"resumed at step [1-9]", done.stdout), done.stderr
    assert metrics(folder / "runs/1") == metrics(folder / "whole/1")


def test_it_is_swept_drawn_and_compared_with_the_baseline(folder):
    """By the plan on the page, less of it."""
    plan = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert plan.count("[0, 1, 2]") == 1
    plan = plan.replace("[0, 1, 2]", "[0, 1]")
    (folder / "my_plan.toml").write_text(plan)
    words = ["my_plan.toml", "--preset", "quick", "--results-dir", "runs", *TINY[1:]]
    words += ["iterations_per_task=2", "cycles=2"]
    done = command("sweep.py", *words, "--workers", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = command("sweep.py", *words, "--dry-run", cwd=folder)
    assert "6 runs: 6 complete" in done.stdout
    drawn = ["--only", "claims,differences,figure3,measures"]
    done = command("figures.py", "--runs", "runs", "--out", "out", *drawn, cwd=folder)
    assert done.returncode == 0 and not done.stderr
    table = pd.read_csv(folder / "out/differences.csv", dtype=str)
    of_idea = table[table["compared"].str.fullmatch(r"my_idea@\w{4} - vanilla")]
    assert {"first_cycle", "cycle_gain", "probe_end"} <= set(of_idea["measure"])
    assert set(of_idea["over"]) == {"2 seeds"}
    # Its claims are judged, as they were declared when the runs began.
    of_claims = table[table["family"] == "my_plan"]
    assert of_claims["measure"].tolist() == ["cycle_gain"] * 2
    compared = of_claims["compared"].str.replace(r"my_idea@\w{4} - ", "", regex=True)
    assert sorted(compared) == ["shuffled", "vanilla"]
    claims = pd.read_csv(folder / "out/claims.csv", dtype=str)
    first, second = claims["claim"].tolist()[-2:]
    assert first.startswith("from the first cycle to the last more is")
    assert second.startswith("and more than with shuffled labels (my_idea@")
    (folder / "my_plan.toml").write_text(plan.replace('"above"', '"below"'))
    done = command("sweep.py", *words, cwd=folder)
    assert "warning: the claims of my_plan.toml are not those that its runs began" in done.stdout
    assert 'expected = "above"' in next((folder / "runs/plans").glob("my_plan-*.toml")).read_text()
    assert re.search(r"my_idea@\w{4}", (folder / "out/measures.md").read_text())


def test_a_control_of_ones_own_is_a_second_grid(folder):
    first, second = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (arm,) = re.findall(r"In a claim that arm is `(.*?)`", PAGE)
    plan = first.replace("[grid]", "[[grid]]").replace("[[claims]]", f"{second}\n[[claims]]", 1)
    assert plan.count('baseline = "shuffled"') == 1
    (folder / "my_plan.toml").write_text(
        plan.replace('baseline = "shuffled"', f'baseline = "{arm}"')
    )
    setting = '"shuffled": Setting(False, boolean(), "targets"), "weight"'
    code = CODE.replace("Setting, number", "Setting, boolean, number")
    (folder / "my_idea.py").write_text(code.replace('"weight"', setting))
    done = command("sweep.py", "my_plan.toml", "--dry-run", cwd=folder)
    assert done.returncode == 0 and "warning" not in done.stdout, done.stderr
    assert "12 runs: 0 complete, 0 unfinished, 12 to do" in done.stdout
    assert done.stdout.count("method=./my_idea.py my_idea.shuffled=True") == 3
    # A claim that these runs cannot tell of is named before they begin.
    (folder / "my_plan.toml").write_text(plan.replace('"shuffled"\nexp', '"ewc"\nexp'))
    done = command("sweep.py", "my_plan.toml", "--dry-run", cwd=folder)
    assert "warning: the claim 'and more than with shuffled labels' is on ewc" in done.stdout


def test_all_ways_to_write_an_arm_are_one_arm(folder, run):
    assert run(GAN, "model=uncond+rotation", "steps=2").returncode == 0
    done = run(GAN, "model=ssgan", "steps=2", "resume=auto")
    assert "run 1: ssgan is complete already" in done.stdout, done.stderr
    (stored,) = stored_runs(folder / "runs")
    assert stored.arm == "ssgan"
    assert run(SEQUENTIAL, "method=ewc+replay", "ewc.weight=10").returncode == 0
    done = run(SEQUENTIAL, "method=replay+ewc", "ewc.weight=10.0", "resume=auto")
    assert "is complete already" in done.stdout, done.stderr
    done = run(SEQUENTIAL, "method=replay+ewc", "resume=auto")
    assert "replay+ewc done in" in done.stdout
    arms = {stored.arm for stored in stored_runs(folder / "runs")}
    assert arms == {"ssgan", "ewc+replay(ewc.weight=10.0)", "ewc+replay"}


def test_every_method_is_listed_with_settings_and_source(tmp_path):
    for script in OF:
        done = command(script, "methods", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for path in (PROJECT / "forgetting/methods").glob("[a-z]*.py"):
            assert re.search(rf"^{path.stem} +\w", done.stdout, re.MULTILINE)
        assert "ewc.weight=" in done.stdout and "arXiv 1805.06370" in done.stdout
    done = command(SEQUENTIAL, "print_config", "with", "method=ewc+rotation", cwd=tmp_path)
    assert re.search(r"weight = 100.0 .*# of the penalty", done.stdout)
    assert not list(tmp_path.iterdir())


TWO = CODE + "\n\nclass Another(Method):\n    pass\n"
NOT_FINITE = CODE.replace("return self.weight, ", "return self.weight, float('nan') * ")
NO_SCALAR = CODE.replace("F.mse_loss(", "F.mse_loss(reduction='none', input=").replace(
    ", self.memory)", ", target=self.memory)"
)


@pytest.mark.parametrize(
    "script,words,line",
    [
        (SEQUENTIAL, ["method=rotatoin"], "method: rotatoin is no method; did you mean rotation?"),
        (
            GAN,
            ["model=ewc"],
            "model: ewc is no model; a model stands in front, as in model=uncond+ewc",
        ),
        (GAN, ["model=ssgan+rotation"], "model: rotation stands twice in ssgan+rotation"),
        (SEQUENTIAL, ["method=./none.py"], "method: ./none.py cannot be read: No such file"),
        (SEQUENTIAL, ["method=./two.py"], "two.py: it must have one Method in it, not 2"),
        (SEQUENTIAL, ["method=./empty.py"], "empty.py: it must have one Method in it, not 0"),
        (SEQUENTIAL, ["method=./ewc.py"], "method: the name ewc of ./ewc.py is taken; rename"),
        (SEQUENTIAL, ["method=./broken.py"], "broken.py: line 1: SyntaxError: "),
        (
            SEQUENTIAL,
            ["method=./misspelt.py"],
            "misspelt.py: losses is nothing that a method has; did you mean loss? (the name of a",
        ),
        (
            GAN,
            ["model=uncond+./fewer.py"],
            "fewer.py: boundary must take (self, learner, batches), not (self, learner)",
        ),
        (
            SEQUENTIAL,
            ["method=rotation", "ewc.weight=3"],
            "ewc.weight: ewc is no part of rotation; add it, as in method=rotation+ewc",
        ),
        (SEQUENTIAL, ["ewc.weight=3"], "ewc.weight: ewc is no part of the arms; add it"),
        (SEQUENTIAL, ["method=ewc", "ewc.wieght=3"], "ewc.wieght: no such setting; did you mean"),
        (SEQUENTIAL, ["method=ewc", "ewc.weight=-1"], "ewc.weight: it must be a number, 0 or"),
        (SEQUENTIAL, ["method=replay", "replay.rows=0"], "replay.rows: it must be"),
        (
            GAN,
            ["model=uncond+replay", "replay.rows=65"],
            "replay.rows: at most the batch's 64",
        ),
        (SEQUENTIAL, ["stream.order=[0,0,1]"], "stream.order: it must be seeded or a permutation"),
        (SEQUENTIAL, ["stream.order=[1,0]"], "stream.order: it must have each of the 10 tasks"),
        (SEQUENTIAL, ["stream.switch=none"], "stream.switch: none needs head=per_task"),
        (SEQUENTIAL, ["stream.blend=0"], "stream.blend: it must be"),
        (
            SEQUENTIAL,
            ["method=./tvo.py"],
            "method: ./tvo.py cannot be read: No such file or directory; did you mean ./two.py?",
        ),
        (SEQUENTIAL, ["method=two"], "method: two is no method; did you mean ./two.py?"),
        (SEQUENTIAL, ["method=ewc,replay"], "method: ewc,replay is no method; one run has one; "),
        (
            SEQUENTIAL,
            ["seed=[0,1]"],
            "seed: it must be a whole number from 0 to 2147483647, not [0, 1]; a run has one of",
        ),
        (SEQUENTIAL, ["method=7"], "method: it must be names joined by +, or a path"),
    ],
)
def test_bad_arms_are_one_line_and_store_nothing(script, words, line, tmp_path, run):
    for name, text in {
        "two": TWO,
        "empty": "x = 1\n",
        "ewc": CODE,
        "broken": "class (",
        "misspelt": CODE.replace("def loss(", "def losses("),
        "fewer": CODE.replace("learner, batches)", "learner)"),
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    done = run(script, *words)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {line}"), done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "text,line",
    [
        (NOT_FINITE, "the run diverged: loss/my_idea is nan at step 1"),
        (NO_SCALAR, "my_idea: its loss must be a weight and a scalar tensor, not (4,), at step 1"),
        (
            CODE.replace("self.weight, F", "self.wieght, F"),
            "error: my_idea.py, line 25, in loss: at step 1: AttributeError: 'MyIdea' object has",
        ),
    ],
)
def test_a_mistake_in_an_update_names_its_place_and_stores_nothing(text, line, folder, run):
    (folder / "my_idea.py").write_text(text)
    done = run(SEQUENTIAL, "method=./my_idea.py")
    assert done.returncode == 1 and line in done.stderr and done.stderr.count("\n") == 1
    assert not list((folder / "runs").iterdir())


def test_what_fails_before_it_has_a_folder_takes_none_back(tmp_path):
    RunFolder(tmp_path).remove()
    assert tmp_path.is_dir()


def test_a_mistake_that_shows_later_leaves_the_run_failed(folder, run):
    text = CODE.replace(
        "        with torch.no_grad():",
        "        learner.nett\n" + " " * 8 + "with torch.no_grad():",
    )
    (folder / "my_idea.py").write_text(text)
    done = run(SEQUENTIAL, "method=./my_idea.py")
    assert "my_idea.py, line 28, in boundary: at step" in done.stderr, done.stderr
    (stored,) = (folder / "runs").iterdir()
    assert json.loads((stored / "run.json").read_text())["status"] == "FAILED"


def test_published_runs_of_a_users_method_hold_no_path(folder, run):
    assert run(SEQUENTIAL, "method=rotation+./my_idea.py").returncode == 0
    words = ["export", "--runs", "runs", "--out", "published"]
    done = command("results.py", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "runs")
    (published,) = stored_runs(folder / "published")
    assert re.fullmatch(r"my_idea@\w{4}\+rotation", published.arm)
    for path in (folder / "published").rglob("*.json"):
        assert str(folder) not in path.read_text(), path
