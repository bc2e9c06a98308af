"""The methods' pages have what a reader needs of every method."""

import re

from conftest import PROJECT

from forgetting import methods

PARTS = ["Formula", "Settings", "Source", "Public code"]
PAGES = {name: (PROJECT / "docs" / name).read_text() for name in (
    "methods.md", "methods_gan.md", "controls.md"
)}  # fmt: skip


def entries(page: str) -> dict[str, str]:
    return dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))


def test_the_page_has_every_method_with_its_settings():
    of_pages = [entries(page) for page in PAGES.values()]
    found = {name: entry for of_page in of_pages for name, entry in of_page.items()}
    assert sum(map(len, of_pages)) == len(found)  # each in one page
    assert found.keys() == methods.available().keys()
    for name, of in methods.available().items():
        for key in of.settings:
            assert f"`{name}.{key}`" in found[name]
        for key in of.uses:
            assert f"`{key}`" in found[name]
        assert re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\*", found[name], re.MULTILINE) == PARTS, name


def test_the_head_sorts_every_method_under_one_idea():
    head = PAGES["methods.md"].split("\n## ")[0]
    links = re.findall(r"\[`(\w+)`\]\(([\w.]*)#(\w+)\)", head)
    assert all(name == anchor for name, _, anchor in links)
    assert sorted(name for name, *_ in links) == sorted(methods.available())
    assert all(name in entries(PAGES[page or "methods.md"]) for name, page, _ in links)
