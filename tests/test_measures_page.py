"""docs/measures.md has every measure that a claim may name."""

import re

from conftest import PROJECT

from forgetting import measures

SUBJECTS = {
    *(measures.TASKS, measures.TRANSFER, measures.TASK_PROBE, measures.OPPONENTS),
    *(measures.REMEMBERED, measures.LAYER, measures.PROBE, measures.DISTANCE, measures.QUALITY),
    measures.PAST_FAKES,
}
PAGE = (PROJECT / "docs/measures.md").read_text()


def test_the_page_has_every_measure():
    of_page = {re.sub("/cycle_1$", "", name) for name in re.findall(r"`([\w/]+)`", PAGE)}
    suffixes = [name for name in of_page if name.startswith("_")]
    of_page |= {name + suffix for name in of_page for suffix in suffixes}
    for name in measures.names():
        assert name in SUBJECTS or re.sub("/cycle_1$", "", name) in of_page, name


def test_what_it_names_is_a_measure():
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(named) == len(set(named)) > 30
    for name in named:
        of_cycle = measures.is_name(f"{name}/cycle_1")
        assert measures.is_name(name) or of_cycle or name in ("fd_NAME", "fd_NAME_best"), name
