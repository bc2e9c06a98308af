"""docs/methods.md has what a reader needs of every method."""

import re

from conftest import PROJECT

from forgetting import methods

PARTS = ["Formula", "Settings", "Source", "Public code"]


def test_the_page_has_every_method_with_its_settings():
    page = (PROJECT / "docs/methods.md").read_text()
    entries = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert entries.keys() == methods.available().keys()
    for name, of in methods.available().items():
        for key in of.settings:
            assert f"`{name}.{key}`" in entries[name]
        for key in of.uses:
            assert f"`{key}`" in entries[name]
        assert re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\*", entries[name], re.MULTILINE) == PARTS, name


def test_the_head_sorts_every_method_under_one_idea():
    head = (PROJECT / "docs/methods.md").read_text().split("\n## ")[0]
    links = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", head)
    assert all(name == anchor for name, anchor in links)
    assert sorted(name for name, _ in links) == sorted(methods.available())
