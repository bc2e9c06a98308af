"""Text is UTF-8 whatever the locale says."""

import ast
import json
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, PROJECT, TINY, command

# As on a cluster's node whose locale was never set.
C = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SOURCES = [p for d in ("forgetting", "gan", "experiments") for p in (PROJECT / d).rglob("*.py")]


def opened_in_the_locales_encoding(tree: ast.AST) -> list[int]:
    """Lines that open a file, or a process, as text without saying in which encoding."""
    lines = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "id", "")
        said = {keyword.arg for keyword in call.keywords}
        words = [a.value for a in call.args if isinstance(a, ast.Constant)]
        words += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
        binary = any(isinstance(w, str) and "b" in w and len(w) < 5 for w in words)
        text = name in ("read_text", "write_text") or "text" in said or "universal_newlines" in said
        text |= name == "open" and owner not in ("Image", "tarfile", "os", "webbrowser")
        if text and not binary and name != "ArgumentParser" and "encoding" not in said:
            lines.append(call.lineno)
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_text_is_read_or_written_in_the_locales_encoding(path):
    assert opened_in_the_locales_encoding(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_that_is_seen():
    for line in (
        "open(p)",
        "p.open('w')",
        "p.read_text()",
        "run(x, text=True)",
        "open(p, mode='r')",
    ):
        assert opened_in_the_locales_encoding(ast.parse(line)) == [1], line
    for line in ("open(p, 'rb')", "p.write_text(x, encoding='utf-8')", "Image.open(p)"):
        assert opened_in_the_locales_encoding(ast.parse(line)) == [], line


def test_a_plan_with_an_umlaut_makes_the_runs_it_says(tmp_path):
    plan = 'study = "sequential_tasks"\n[settings]\nmethod = "vanilla"\n'
    plan += 'dataset.name = "digits"\ndataset.label = "Zügel ± 1"\n' + "\n".join(TINY[1:-1]) + "\n"
    (tmp_path / "plan.toml").write_text(plan, encoding="utf-8")
    done = command("sweep.py", "plan.toml", "--results-dir", "runs", cwd=tmp_path, env=C)
    assert done.returncode == 0, done.stdout + done.stderr
    config = json.loads((tmp_path / "runs/1/config.json").read_bytes())
    assert config["dataset"]["label"] == "Zügel ± 1"
    done = command("sweep.py", "plan.toml", "--results-dir", "runs", cwd=tmp_path)
    assert "1 runs: 1 complete" in done.stdout, "the same run in another locale"
    words = ["--runs", "runs", "--out", "out", "--only", "table1,measures,figure3"]
    done = command("figures.py", *words, cwd=tmp_path, env=C)
    assert (done.returncode, done.stderr) == (0, "")
    table = Path(tmp_path / "out/measures.csv").read_text(encoding="utf-8")
    assert "Zügel ± 1" in table
