"""What tells a newcomer what to type, typed."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY, command

SCRIPTS = sorted(path.name for path in (PROJECT / "experiments").glob("[a-z]*.py"))
TINY_GAN = ["steps=2", "width=4", "probe_every=2", "probe_images=60", "probe_features=16"]
TINY_GAN += ["quality_every=2", "quality_images=500", "device=cpu"]
# What makes an example small; and what it leaves behind.
SMALLER = {
    "sequential_tasks.py": [*TINY[1:], "results_dir=runs"],
    "gan_probe.py": [*TINY_GAN, "results_dir=runs"],
}
LEAVES = {
    "bench.py": "my_bench.json",
    "figures.py": "my_figures/figure3.png",
    "gan_probe.py": "runs/1/metrics.json",
    "results.py": "copies",
    "sequential_tasks.py": "runs/1/metrics.json",
    "train_extractor.py": "my_extractors/digits.pt",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_example_of_a_commands_help_works_as_typed(script, tmp_path):
    asked = command(script, "--help", cwd=tmp_path)
    assert (asked.returncode, asked.stderr) == (0, "")
    (line,) = re.findall(r"^Example:\n  (.+)$", asked.stdout, re.MULTILINE)
    line = " ".join([line, *map(shlex.quote, SMALLER.get(script, []))])
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if script in LEAVES:
        assert (tmp_path / LEAVES[script]).exists()
    else:
        assert re.search(r"\d+ runs: \d+ complete", done.stdout)


def test_make_help_has_a_line_for_every_command(tmp_path):
    makefile = (PROJECT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (\w.*)$", makefile, re.MULTILINE)
    # By itself, and not as a make within the make that runs the tests.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr == ""
    of_make, of_scripts = done.stdout.split("\n\n")
    lines = [line.split(maxsplit=2) for line in of_make.splitlines()]
    assert sorted(target for _, target, _ in lines) == sorted(phony.split())
    lines = [line.split(maxsplit=1) for line in of_scripts.splitlines()[1:]]
    assert [script for script, _ in lines] == [f"experiments/{name}" for name in SCRIPTS]
    assert all(len(words) > 40 and '"""' not in words for _, words in lines)


def test_an_interpreter_in_the_folder_is_named_as_one_types_it(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    code = "import sys; from experiments.run import output; sys.argv = ['x y.py']; "
    code += f"sys.executable = {str(tmp_path / 'bin/python')!r}; print(output.example('a'))"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "Example:\n  bin/python 'x y.py' a\n", done.stderr
