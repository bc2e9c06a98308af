"""The runs that are shipped with the project, and what the README says of them."""

import json
import re

import pytest
from conftest import PROJECT

from experiments.run.packed import files_of
from experiments.run.stored import run_folders, runs_and_rest
from experiments.show import grids
from experiments.show.tables import TABLES
from experiments.show.texts import EMPTY

REFERENCE = PROJECT / "results/reference"


@pytest.fixture(scope="module")
def runs():
    return runs_and_rest(REFERENCE)[0]


def test_they_are_plain_files_of_complete_runs(runs):
    folders = run_folders(REFERENCE)
    assert len(runs) == len(folders) >= 60
    assert {path.suffix for path in REFERENCE.iterdir() if path.is_file()} <= {".zip"}
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 24e6
    files = [folder / name for folder in folders for name in files_of(folder)]
    assert {path.suffix for path in files} <= {".json", ".txt", ".csv", ".png"}
    for path in files:
        if path.suffix in (".json", ".txt"):
            assert not re.search(r"[\"'\s=](/\w+){2}", path.read_text()), f"a path in {path}"
    for run in runs:
        assert re.fullmatch("[0-9a-f]{10}", run.code), run.folder
        record = json.loads((run.folder / "run.json").read_text())
        assert not record["host"].get("hostname"), run.folder
        assert all("=" in word for word in run.asked if word != run.preset), run.asked


def test_the_readme_shows_their_tables(runs):
    """A table of the README is some columns and rows of a table that `make figures` writes."""
    plain = grids.without_grids(runs)
    frames = {
        name: table.make(table.select(runs if name == "table2" else plain))
        for name, table in TABLES.items()
    }
    lines = (PROJECT / "README.md").read_text().splitlines()
    shown = []
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and re.fullmatch(r"(\|---)+\|", lines[i + 1]):
            columns = _cells(line)
            of = [name for name, frame in frames.items() if set(columns) <= set(frame.columns)]
            if of:
                shown += of
                known = set(frames[of[0]][columns].replace("", EMPTY).itertuples(False, None))
                for row in lines[i + 2 :]:
                    if not row.startswith("|"):
                        break
                    assert tuple(_cells(row)) in known, f"{of[0]} has no row {row}"
    assert sorted(shown) == ["claims", "measures", "table1", "table2", "table3"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
