"""The commit that a run records is that of the code which ran."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY

RUN = ["with", *TINY, "method=vanilla", "results_dir=runs"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A second checkout, with a commit of its own; its path has a blank."""
    folder = tmp_path_factory.mktemp("two checkouts") / "second"
    for name in ("experiments", "forgetting", "gan"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, folder / name, ignore=ignore)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "second"]):
        git("-c", "user.name=x", "-c", "user.email=x", *words, cwd=folder)
    return folder


def git(*words, cwd):
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run(script, *words, path, cwd):
    """With an environment in which Python finds the packages in the folder `path`."""
    return subprocess.run(
        [sys.executable, str(script), *words],
        cwd=cwd,
        env=ENVIRONMENT | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", ["sequential_tasks.py", "gan_probe.py", "sweep.py"])
def test_a_checkout_with_the_environment_of_another_is_refused(script, checkout, tmp_path):
    words = ["figure3"] if script == "sweep.py" else RUN
    for here, other in ((checkout, PROJECT), (PROJECT, checkout)):
        done = run(here / "experiments" / script, *words, path=other, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: this is {here}, and Python takes experiments from")
        assert not list(tmp_path.iterdir())


def test_what_the_refusal_says_works(checkout, tmp_path):
    script = checkout / "experiments/sequential_tasks.py"
    refused = run(script, *RUN, path=PROJECT, cwd=tmp_path)
    put = refused.stderr.split(" put ")[1].split(" before ")[0]
    line = f'{put} "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, str(script), *RUN],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (repository,) = recorded(tmp_path)
    assert repository["commit"] == git("rev-parse", "HEAD", cwd=checkout)
    assert not repository["dirty"]


def test_one_package_of_another_checkout_is_refused(checkout, tmp_path):
    """Forgetting's, say, installed in the environment."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/forgetting").symlink_to(checkout / "forgetting")
    path = f"{tmp_path / 'site'}:{PROJECT}"
    done = run(PROJECT / "experiments/sequential_tasks.py", *RUN, path=path, cwd=tmp_path)
    assert done.returncode == 1
    assert f"takes forgetting from {checkout}" in done.stderr


def test_a_repository_around_the_project_is_not_its_version(checkout, tmp_path):
    """An unpacked release within somebody's own repository, which does not hold it."""
    git("init", "-q", cwd=tmp_path)
    mine = ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "mine", "--allow-empty"]
    git(*mine, cwd=tmp_path)
    for name in ("experiments", "forgetting", "gan"):
        shutil.copytree(checkout / name, tmp_path / "release" / name)
    script = tmp_path / "release/experiments/sequential_tasks.py"
    done = run(script, *RUN, path=tmp_path / "release", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path) == []


def recorded(folder):
    return json.loads((folder / "runs/1/run.json").read_text())["experiment"]["repositories"]
