"""The report in a real browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from conftest import PROJECT

from experiments.run.stored import stored_runs
from experiments.show import drawings as figures
from experiments.show import report
from experiments.show.origin import command_of, for_each, of_any_seed

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
# Written into the page by the page itself, once it has loaded in a frame as wide as a phone.
MEASURE = """
<script>
addEventListener("error", e => parent.postMessage("error: " + e.message, "*"));
addEventListener("load", () => { for (const folded of document.querySelectorAll("details"))
  folded.open = true; parent.postMessage(JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth]),
  page: document.documentElement.scrollWidth, window: innerWidth,
  links: [...document.querySelectorAll("nav a")].map(
    a => document.querySelector(a.getAttribute("href")) !== null),
}), "*"); });
</script></body>"""
FRAME = """<!doctype html><body><pre id="found"></pre>
<iframe src="measured.html" style="width:WIDTHpx;height:800px;border:0"></iframe><script>
addEventListener("message", e => { document.getElementById("found").textContent = e.data; });
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of the shipped runs."""
    out = tmp_path_factory.mktemp("report")
    figures.draw([PROJECT / "results/reference"], out, page=out / "report.html")
    return out / "report.html"


class Finder(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def parts(page) -> dict[str, list[str]]:
    """The titles in each part, by the part's own; with a + before it, it is folded away."""
    found = {}
    headings = r"(<summary>)?<h([23])>(.*?)</h[23]>"
    for folded, level, title in re.findall(headings, page.read_text()):
        if level == "2":
            inside = found[f"{'+' if folded else ''}{html.unescape(title)}"] = []
        else:
            inside.append(html.unescape(title))
    return found


def test_the_page_needs_nothing_but_itself(page):
    finder = Finder()
    finder.feed(page.read_text())
    images = [attributes for tag, attributes in finder.tags if tag == "img"]
    assert 10 < len(images) <= len(figures.FIGURES)
    assert all(a["src"].startswith("data:image/webp;base64,") and a["alt"] for a in images)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in finder.tags}
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page.read_text())


def test_the_page_is_small(page):
    """With all shipped runs."""
    assert page.stat().st_size < 4e6


def expanded(table: str) -> list[list[str]]:
    """The cells of an HTML table's body, what covers several rows in each of them."""
    rows, above = [], {}
    for line in re.findall(r"<tr>(.*)</tr>", table.partition("<tbody>")[2]):
        cells, row = re.findall(r"<td([^>]*)>([^<]*)</td>", line), []
        while cells or len(row) in above:
            rest, text = above.pop(len(row), (0, ""))
            if not rest:
                attributes, text = cells.pop(0)
                span = re.search(r'rowspan="(\d+)"', attributes)
                rest = int(span[1]) if span else 1
            if rest > 1:
                above[len(row)] = (rest - 1, text)
            row.append(text)
        rows.append(row)
    return rows


def test_of_which_runs_rows_are_stands_once_a_screen():
    n = report.SCREEN + 3
    settings = ["width=8"] * n + ["width=9", "width=8"]
    numbers = list(map(str, range(n + 2)))
    table = pd.DataFrame(
        {"data": "d", "settings": settings, "arm": "vanilla", "difference": numbers}
    )
    made = report._table(table)
    assert expanded(made) == table.to_numpy().tolist()
    spans = re.findall(r'rowspan="(\d+)">([^<]*)<', made)
    assert spans == [("20", "d"), ("20", "width=8"), ("5", "d"), ("3", "width=8")]
    # Where other columns come first, rows are read one by one.
    assert "rowspan" not in report._table(table[["difference", "data", "settings"]])


def test_it_begins_with_the_answer(page):
    answer, papers, others, missing, runs = parts(page).items()
    assert answer[0] == "What the claims came to" and answer[1][0] == "The claims"
    assert [title.split(":")[0] for title in papers[1]] == [
        *(f"Figure {i}" for i in (1, 2, 3, 4)), *(f"Table {i}" for i in (1, 2, 3)),
    ]  # fmt: skip
    assert others[0] == "+Other figures and tables of the shipped runs" and others[1]
    assert runs == (f"+{report.RUNS}", [])
    titles = [*answer[1], *papers[1], *others[1], *missing[1]]
    drawn = [of for of in figures.FIGURES.values() if of.on_the_page]
    registered = [of.title for of in (*drawn, *figures.TABLES.values())]
    assert sorted(titles) == sorted(registered)


def test_own_runs_stand_before_the_shipped_ones(tmp_path):
    """An own run is drawn beside the shipped ones of its group, and others by themselves."""
    names = ["figure3", "figure2", "claims", "table3", "quality"]
    shipped, own = PROJECT / "results/reference", tmp_path / "runs"
    name = "sequential_tasks-cpu-vanilla-0"
    shutil.copytree(shipped / name, own / "1")
    shutil.copytree(PROJECT / "tests/runs_9afe66d/gan_probe-quick-ssgan-0", own / "2")
    config = json.loads((own / "1/config.json").read_text())
    (own / "1/config.json").write_text(json.dumps(config | {"seed": 77}))
    figures.draw([own, shipped], tmp_path / "out", names, tmp_path / "report.html")
    found, quality = parts(tmp_path / "report.html"), figures.FIGURES["quality"].title
    titles = {part: [title.split(":")[0] for title in of] for part, of in found.items()}
    assert titles.popitem() == (f"+{report.RUNS}", [])  # of the claims
    assert titles == {
        "Your own runs": ["The claims", "Figure 3", "Figure 2", "Table 3", quality],
        "What the claims came to": ["The claims"],
        "The paper's figures and tables, of the shipped runs": ["Figure 2", "Table 3"],
        "+Other figures and tables of the shipped runs": [quality],
    }
    text = (tmp_path / "report.html").read_text()
    assert next(iter(titles)) == "Your own runs"
    assert "Sequential tasks, CIFAR-10 (JPEG q75), preset cpu: rotation minus vanilla" in text
    assert re.search(r"from 2 runs of your own, and \d+ that came with the project", text)
    sections = re.findall(r"<section.*?</section>", text, re.S)
    (of_own,) = [section for section in sections if "<h3>Figure 3" in section]
    assert "runs/1" in of_own and f"reference/{name}" in of_own
    mine, others = [section for section in sections if "<h3>Figure 2" in section]
    assert "runs/2" in mine and "reference/" not in mine
    assert "figure2/gan_probe-cpu-ssgan-1" in others and "runs/2" not in others


def test_every_figure_says_where_it_comes_from(page):
    sections = re.findall(r"<section.*?</section>", page.read_text(), re.S)
    beside = [name for name, of in figures.FIGURES.items() if not of.on_the_page]
    assert len(sections) == len(figures.NAMES) - len(beside) and beside == ["cures_in_short"]
    (section,) = [s for s in sections if "<h3>Figure 3" in s]
    words = "CIFAR-10 (JPEG q75); preset cpu; seeds 0, 1, 2, 3"
    assert words in section and "reference/sequential_tasks-cpu-vanilla-0" in section
    code = json.loads(
        (PROJECT / "results/reference/sequential_tasks-cpu-vanilla-0/run.json").read_text()
    )
    assert code["experiment"]["repositories"][0]["commit"][:10] in section
    assert "for seed in 0 1 2 3" in section and "method=vanilla seed=$seed; done" in section
    # Of many runs the commands stand once, below.
    elsewhere = [s for s in sections if "python experiments/" not in s]
    assert elsewhere and all('<a href="#runs">Their ids' in s for s in elsewhere)
    assert any("<h3>The claims" in s for s in elsewhere)
    _, below = page.read_text().split('<div id="runs">')
    assert "for seed in 1 2 3 4 5 6 7 8 9 10; do python experiments/sequential_tasks.py" in below
    assert " stream.recording=uncond_$seed dataset.root=cifar" in below
    for run in stored_runs(PROJECT / "results/reference"):
        name = f"{run.collection}/{run.id}"
        assert name in below or any(name in s for s in sections), name


def test_a_command_of_one_seed_names_its_recording():
    (run, *_) = [
        r
        for r in stored_runs(PROJECT / "results/reference")
        if r.seed == 10 and "recording" in r.identity
    ]
    command = for_each(of_any_seed(run), [10])
    assert command == command_of(run) and " stream.recording=uncond_10 " in command


@pytest.mark.skipif(not BROWSER, reason="no Chromium here (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [375, 1200])
def test_a_browser_shows_all_of_it(page, tmp_path, width):
    measured = page.read_text().replace("</body>", MEASURE)
    (tmp_path / "measured.html").write_text(measured)
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    options += [f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, f"file://{tmp_path}/frame.html"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)[1]
    assert found.startswith("{"), found
    found = json.loads(found)
    assert found["window"] == width
    assert len(found["images"]) > 10
    for complete, natural, shown in found["images"]:
        assert complete and natural > 500 and shown > 500  # wider ones scroll in their own frame
    assert found["page"] <= width  # the page itself does not scroll to the side
    assert len(found["links"]) > 10 and all(found["links"])
