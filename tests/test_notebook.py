"""docs/first_look.ipynb, run as Jupyter runs it."""

import json

import nbformat
from conftest import PROJECT
from nbclient import NotebookClient

PAGE = PROJECT / "docs/first_look.ipynb"


def shown(notebook, kind="text/plain") -> dict[str, str]:
    """Cell -> what it shows of this kind."""
    return {
        cell["id"]: "".join(output["data"][kind])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    }


def test_it_runs_and_shows_what_it_is_stored_with(monkeypatch):
    """Numbers of the shipped runs are the same; those of its own training depend on the machine.
    Pictures are drawn, and not stored."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    stored = json.loads(PAGE.read_text())
    again = nbformat.read(PAGE, as_version=4)
    place = {"metadata": {"path": str(PAGE.parent)}}
    NotebookClient(again, timeout=300, kernel_name="python3", resources=place).execute()
    drawn = shown(again, "image/png")
    assert len(drawn) == 3 and not shown(stored, "image/png")
    here, there = shown(again), shown(stored)
    assert here.keys() - drawn.keys() == there.keys()
    of_shipped = [cell for cell, text in there.items() if "mirror@" not in text]
    assert len(of_shipped) == 3
    assert all(here[cell] == there[cell] for cell in of_shipped)
    assert "mirror@" in here[max(here, key=lambda cell: int(cell.rpartition("-")[2]))]
