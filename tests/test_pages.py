"""The README and docs/: links, names of the code, commands, and the method of the README."""

import argparse
import ast
import hashlib
import importlib
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY
from test_gan import study as gan
from test_help import TINY_GAN
from test_own_method import CODE as MY_IDEA
from test_sequential import study as sequential

from experiments.gan_probe import STUDY as GAN_PROBE
from experiments.run import runner
from experiments.run.stored import stored_runs
from experiments.sequential_tasks import STUDY as SEQUENTIAL
from experiments.show.tables import TABLES
from forgetting.errors import UserError

README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
STUDIES = {"sequential_tasks.py": SEQUENTIAL, "gan_probe.py": GAN_PROBE}
CODE = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]


def prose(page) -> str:
    """A page without its code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(page) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of a code block that begins a command of the project."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for block in re.findall(r"(?:^    .+\n)+", text, re.MULTILINE):
            for line in block.splitlines():
                if re.match(r"    (\w+=\S+ )*(python experiments/|make )", line):
                    found.append((page.name, re.sub(r"\s+#.*", "", line).strip()))
    return found


# ------------------------------------------------------------------ links and length


def test_the_readme_is_short_and_links_every_page():
    text = README.read_text()
    assert len(text) < 6000
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in text, f"no link to {page.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


# ------------------------------------------------------------------ from the paper to the code


def test_every_path_and_name_on_the_page_of_the_code_exists():
    text = (PROJECT / "docs/paper_to_code.md").read_text()
    named = re.findall(r"`([\w/]+\.py)`:((?:[,\s]*`[\w.]+`)+)", text)
    assert len(named) > 40
    for path, names in named:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        for name in re.findall(r"`([\w.]+)`", names):
            of = module
            for part in name.split("."):
                assert hasattr(of, part), f"{path} has no {name}"
                of = getattr(of, part)
            first = name.partition(".")[0]
            assert first in defined(PROJECT / path), f"{name} is not of {path} itself"
    for path in re.findall(r"`((?:forgetting|gan|experiments)/[\w/.]*)`", text):
        assert (PROJECT / path).exists(), path


def defined(path) -> set[str]:
    """The names that a file makes itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


# ------------------------------------------------------------------ commands


def test_the_commands_are_found():
    assert len(commands()) > 30
    assert {page for page, _ in commands()} >= {"README.md", "sweeps.md", "runs.md", "images.md"}


@pytest.mark.parametrize("page,line", commands())
def test_a_command_on_a_page_can_be_read(page, line, tmp_path, monkeypatch):
    words = [word for word in shlex.split(line) if not re.fullmatch(r"OMP_NUM_THREADS=\d+", word)]
    if words[0] == "make":
        makefile = (PROJECT / "Makefile").read_text()
        target, *variables = words[1:]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        for variable in variables:
            name = variable.partition("=")[0]
            assert re.search(rf"\$\((if \$\()?{name}\)", makefile), name
        return
    script = words[1].removeprefix("experiments/")
    assert (PROJECT / "experiments" / script).exists()
    if script in STUDIES:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mirror.py").write_text(CODE)
        (tmp_path / "my_idea.py").write_text(MY_IDEA)
        study = STUDIES[script]
        options = runner._parse(study.experiment, [script, *words[2:]])
        command = options["COMMAND"]
        assert command is None or command in {**study.experiment.commands, **study.commands}
        runner._settings(study, *runner._read_updates(study, options))
        return
    # A parser reads the words, and nothing more is done.
    module = importlib.import_module(f"experiments.{script.removesuffix('.py')}")
    read = []

    def stop(parser, *, of):
        read.append(of(parser))
        raise UserError("read")

    for name in ("parse_args", "parse_intermixed_args"):
        of = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, lambda p, of=of: stop(p, of=of))
    monkeypatch.setattr(sys, "argv", [script, *words[2:]])
    with pytest.raises(UserError, match="read"):
        module.main()
    (options,) = read[:1]
    if script == "sweep.py" and options.plan != "my_plan.toml":
        module.read_plan(options.plan)


# ------------------------------------------------------------------ the method that it shows


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_the_method_of_the_readme_draws_features_to_those_of_mirror_images(digits, tmp_path, study):
    path = tmp_path / "mirror.py"
    path.write_text(CODE)
    arm = "method" if study is sequential else "model"
    plain = "vanilla" if study is sequential else "uncond"
    other = {} if study is sequential else {"boundary_every": 2}
    mine = str(path) if study is sequential else f"uncond+{path}"

    def logged(weight):
        of = study(digits, **{arm: mine}, **other, method_settings={"mirror.weight": weight})
        name = "loss/mirror" + ("" if study is sequential else "_d")
        return [{k: v.item() for k, v in of.step().items()} for _ in range(5)], name

    steps, name = logged(100.0)
    weak, _ = logged(1e-6)
    assert all(step[name] > 0 for step in steps)
    assert steps[-1][name] < weak[-1][name]
    weightless, _ = logged(0.0)
    baseline = study(digits, **{arm: plain})
    assert weightless == [{k: v.item() for k, v in baseline.step().items()} for _ in range(5)]


def test_its_commands_run_as_typed_and_it_adds_the_row_that_is_shown(tmp_path):
    """Tiny, and the baseline beside it; only the number may be another."""
    (tmp_path / "mirror.py").write_text(CODE)
    (tmp_path / "experiments").symlink_to(PROJECT / "experiments")
    text = README.read_text()
    section = text[text.index("## Put in your own idea") : text.index("## On your own images")]
    lines = re.findall(r"^    python (experiments/\S+ with .+)$", section, re.MULTILINE)
    assert len(lines) == 2
    small = {"sequential": TINY[1:], "gan": TINY_GAN}
    for line in [*lines, lines[0].replace("./mirror.py", "vanilla")]:
        of = small["gan" if "gan_probe" in line else "sequential"]
        # Two cycles: what one gained on the other is the row that is shown.
        of = [word.replace("cycles=1", "cycles=2") for word in of]
        script, *words = line.split()
        done = subprocess.run(
            [sys.executable, str(PROJECT / script), *words, *of, "results_dir=runs"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    runs = stored_runs(tmp_path / "runs")
    assert len(runs) == 3
    table = TABLES["differences"].make(runs)
    head, row = (re.split(r" \| ", line.strip("| \n")) for line in shown_row(section))
    found = table[(table.measure == "cycle_gain")].iloc[0]
    hash_of = hashlib.sha256(CODE.encode()).hexdigest()[:4]
    assert found["compared"] == f"mirror@{hash_of} - vanilla"
    for column, cell in zip(head, row, strict=True):
        if column == "difference":
            assert re.fullmatch(re.escape(cell).replace("…", r"[+-]\d\.\d{3}"), found[column])
        else:
            assert cell == found[column]


def shown_row(section: str) -> tuple[str, str]:
    head, row = re.search(r"^(\|.+\|)\n\|[-|]+\|\n(\|.+\|)$", section, re.MULTILINE).groups()
    return head, row
