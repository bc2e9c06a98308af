"""The report in a real browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from conftest import PROJECT

from experiments.show import drawings as figures

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
# Written into the page by the page itself, once it has loaded in a frame as wide as a phone.
MEASURE = """
<script>
addEventListener("error", e => parent.postMessage("error: " + e.message, "*"));
addEventListener("load", () => parent.postMessage(JSON.stringify({
  images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth]),
  page: document.documentElement.scrollWidth, window: innerWidth,
  links: [...document.querySelectorAll("nav a")].map(
    a => document.querySelector(a.getAttribute("href")) !== null),
}), "*"));
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


def test_the_page_needs_nothing_but_itself(page):
    finder = Finder()
    finder.feed(page.read_text())
    images = [attributes for tag, attributes in finder.tags if tag == "img"]
    assert len(images) == len(figures.FIGURES)
    assert all(a["src"].startswith("data:image/png;base64,") and a["alt"] for a in images)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in finder.tags}
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page.read_text())


def test_every_figure_says_where_it_comes_from(page):
    sections = re.findall(r"<section.*?</section>", page.read_text(), re.S)
    titles = [figures.FIGURES[name].title for name in ("cures", "figure1")]
    for title, section in zip(titles, sections, strict=False):  # it begins with these
        assert f"<h2>{title}</h2>" in section
    assert len(sections) == len(figures.NAMES)
    (section,) = [s for s in sections if "<h2>Figure 3" in s]
    words = "CIFAR-10 (JPEG q75); preset cpu; seeds 0, 1, 2, 3"
    assert words in section and "reference/sequential_tasks-cpu-vanilla-0" in section
    code = json.loads(
        (PROJECT / "results/reference/sequential_tasks-cpu-vanilla-0/run.json").read_text()
    )
    assert code["experiment"]["repositories"][0]["commit"][:10] in section
    assert "for seed in 0 1 2 3" in section and "method=vanilla seed=$seed; done" in section
    assert all("python experiments/" in s for s in sections)


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
    assert len(found["images"]) == len(figures.FIGURES)
    for complete, natural, shown in found["images"]:
        assert complete and natural > 500 and shown > 500  # wider ones scroll in their own frame
    assert found["page"] <= width  # the page itself does not scroll to the side
    assert found["links"] == [True] * len(figures.NAMES)
