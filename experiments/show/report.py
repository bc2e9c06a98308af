"""One self-contained page of figures and tables in parts, and where each comes from."""

import base64
import html
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import pandas as pd
from PIL import Image, features

from experiments.run.stored import StoredRun
from experiments.show import origin
from experiments.show.origin import Origin
from experiments.show.texts import EMPTY

TITLE = "Do networks forget when their task keeps moving?"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 0 auto;
       padding: 0 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.35rem; margin: 3rem 0 .3rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 .2rem; } p, ul { margin: .3rem 0; max-width: 62rem; }
img { width: 100%; min-width: 38rem; height: auto; display: block; }
/* Shadows at the sides to which there is more: of four layers two move with what is scrolled. */
.wide { overflow-x: auto; margin: .8rem 0; background:
  linear-gradient(to right, #fff 40%, #fff0) left / 3rem 100% no-repeat local,
  linear-gradient(to left, #fff 40%, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) left / .8rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) right / .8rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; line-height: 1.35; min-width: 38rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0;
         border-bottom: 1px solid #ddd; }
td { white-space: nowrap; } .text { white-space: normal; min-width: 11rem; }
td.words { white-space: normal; min-width: 34rem; }
.origin, .long > summary { font-size: .85rem; color: #444; }
pre { overflow-x: auto; background: #f5f5f5; padding: .5rem; font-size: .85rem; }
summary { cursor: pointer; } summary h2 { display: inline; }
.folded { margin-top: 3rem; }
nav p { overflow-wrap: anywhere; } nav a { display: inline-block; margin-right: .9rem; }
@media (max-width: 40rem) { .inside { display: none; } }
.note { font-size: .85rem; color: #444; }
"""
LONG = 40  # rows, from which a table is folded away
MANY = 100  # runs, above which their commands stand at the page's end
RUNS = "The runs of the larger figures and tables"
MOST_WRAPPED = 28  # letters of a cell that is not broken into lines
WORDS = 100  # letters from which a cell is wide
WHERE = ("data", "preset", "settings")  # columns that many rows have alike
SCREEN = 20  # rows
HIGHEST = 16383  # pixels that a WebP can have


@dataclass(frozen=True)
class Entry:
    """What the page says of one figure (`picture`, a PNG's bytes) or table (`table`); made_by: the
    command that makes runs for it."""

    title: str
    shows: str
    made_by: str
    runs: Sequence[StoredRun]
    picture: bytes | None = None
    table: pd.DataFrame | None = None

    @property
    def shows_nothing(self) -> bool:
        return self.picture is None and self.table is None


@dataclass(frozen=True)
class Section:
    """An entry as the page shows it; folders: of the runs that it is of; origin: where they come
    from."""

    title: str
    html: str
    folders: frozenset[str]
    origin: Sequence[Origin]


@dataclass(frozen=True)
class Part:
    """Sections under a heading, after lines of text; folded: out of sight until it is opened."""

    title: str
    sections: Sequence[Section]
    lines: Sequence[str] = ()
    folded: bool = False


def report(
    parts: Sequence[Part],
    left_out: Mapping[str, int],
    dashed: int = 0,
    is_shipped: Callable[[str], bool] = lambda folder: False,
) -> str:
    """The page as HTML, with all images inside; it needs neither network nor script.

    left_out: how many runs were not complete, by their status; dashed: how many of them figures
    show all the same; is_shipped: whether the run of a folder came with the project.
    """
    counts = ", ".join(f"{n} {status}" for status, n in sorted(left_out.items())) or "none"
    if dashed:
        counts += f"; {dashed} of them drawn dashed, and in no table"
    parts = [part for part in parts if part.sections or part.lines]
    shown = {folder for part in parts for section in part.sections for folder in section.folders}
    shipped = sum(map(is_shipped, shown))
    own, of = len(shown) - shipped, f"{len(shown)} stored runs"
    if shipped:
        of = f"{own} runs of your own, and " * bool(own) + f"{shipped} that came with the project"
    links, those = [_links(i, part) for i, part in enumerate(parts)], _of_many(parts)
    if those:
        links.append(f'<p><a href="#runs"><b>{RUNS}</b></a></p>')
    page = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{TITLE}</title><style>{STYLE}</style>",
        f"</head><body><h1>{TITLE}</h1>",
        f"<p>All figures and tables from {of}. Left out, not complete: {counts}.</p>",
        f"<nav>{''.join(links)}</nav>",
        *(_part(i, part) for i, part in enumerate(parts)),
        those,
        "</body></html>",
    ]
    return "\n".join(page) + "\n"


def _links(i: int, part: Part) -> str:
    """To a part, and to what is in it where one can see it."""
    link = f'<a href="#p{i}"><b>{_text(part.title)}</b></a>'
    inside = [
        f'<a href="#p{i}e{j}">{_text(_short(section.title))}</a>'
        for j, section in enumerate(() if part.folded else part.sections)
    ]
    return f'<p>{link} <span class="inside">{" ".join(inside)}</span></p>'


def _short(title: str) -> str:
    """ "Figure 2: what the discriminator knows" -> "Figure 2"."""
    return title.split(":")[0] if title.startswith(("Figure", "Table")) else title


def _part(i: int, part: Part) -> str:
    inside = "\n".join(
        [
            *(f"<p>{_text(line)}</p>" for line in part.lines),
            *(
                f'<section id="p{i}e{j}">{section.html}</section>'
                for j, section in enumerate(part.sections)
            ),
        ]
    )
    title = f"<h2>{_text(part.title)}</h2>"
    if not part.folded:
        return f'<div id="p{i}">{title}{inside}</div>'
    return f'<details class="folded" id="p{i}"><summary>{title}</summary>{inside}</details>'


def section(entry: Entry) -> Section:
    """With its picture at screen size, its table, and where it comes from."""
    inside = f"<h3>{_text(entry.title)}</h3>"
    if entry.table is None:
        inside += f"<p>{_text(entry.shows)}</p>"
    if entry.picture:
        kind, content = for_the_screen(entry.picture)
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        inside += f'<div class="wide"><img alt="{_text(entry.title)}" src="{source}"></div>'
    if entry.table is not None:
        table = f'<div class="wide">{_table(entry.table)}</div>'
        if len(entry.table) > LONG:
            rows = f"<summary>All {len(entry.table)} rows</summary>"
            table = f'<details class="long">{rows}{table}</details>'
        inside += f'{table}<p class="note">{_text(entry.shows)}</p>'
    folders = frozenset(str(run.folder) for run in entry.runs)
    of = origin.origins(entry.runs)
    return Section(entry.title, inside + _origin(entry, of), folders, of)


def for_the_screen(png: bytes) -> tuple[str, bytes]:
    """(kind, content) of the same picture: as WebP, of 256 colours or a photograph's way, whichever
    is smaller; as it is where that cannot be."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    if max(picture.size) > HIGHEST or not features.check("webp"):
        return "png", png
    contents = []
    few_colours = picture.quantize(256).convert("RGB")
    for shown, options in ((few_colours, {"lossless": True}), (picture, {"quality": 80})):
        file = io.BytesIO()
        shown.save(file, "webp", **options)
        contents.append(file.getvalue())
    return "webp", min(contents, key=len)


def _table(table: pd.DataFrame) -> str:
    """Without columns of which nothing is known. Where rows begin alike, with what they are of,
    that stands once a screen."""
    known = table.loc[:, (table != "").any(axis=0)] if len(table) else table
    of = len(list(takewhile(WHERE.__contains__, known)))
    rows = list(known.itertuples(index=False, name=None))
    covered, body = [0] * of, []  # for how many more rows a cell above covers the column
    for i, row in enumerate(rows):
        cells = []
        for j, text in enumerate(row):
            if j < of and covered[j]:
                covered[j] -= 1
                continue
            below = _alike_below(rows[i : i + SCREEN], j) if j < of else 1
            if j < of:
                covered[j] = below - 1
            cells.append(_cell("td", text or EMPTY, below))
        body.append(f"<tr>{''.join(cells)}</tr>\n")
    head = "".join(_cell("th", column) for column in known)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{''.join(body)}</tbody></table>"


def _alike_below(rows: Sequence[Sequence[str]], j: int) -> int:
    """How many rows from the first on agree with it in all columns up to j."""
    part = rows[0][: j + 1]
    return len(list(takewhile(lambda row: row[: j + 1] == part, rows)))


def _cell(tag: str, text: str, rows: int = 1) -> str:
    """A short cell is not broken into lines, and a long one into few."""
    kind = "words" if len(text) > WORDS else "text" if len(text) > MOST_WRAPPED else ""
    spans = f' rowspan="{rows}"' if rows > 1 else ""
    return f"<{tag}{spans}" + (f' class="{kind}"' if kind else "") + f">{_text(text)}</{tag}>"


def _origin(entry: Entry, of: Sequence[Origin]) -> str:
    """Of few runs all that there is to say; of many a line, and the rest once on the page."""
    if not of:
        return f"<p>No completed run for it yet. This makes some:</p><pre>{entry.made_by}</pre>"
    line, their = _text(origin.line(of)), "Their ids, and the commands that make them"
    if len(of) > MANY:
        return f'<p class="origin">{line}. <a href="#runs">{their}</a></p>'
    return f'<details class="origin"><summary>{line}. {their}</summary>{_runs(of)}</details>'


def _of_many(parts: Sequence[Part]) -> str:
    """The runs of all sections that are of many."""
    of = [section.origin for part in parts for section in part.sections]
    those = dict.fromkeys(one for runs in of if len(runs) > MANY for one in runs)
    if not those:
        return ""
    line = f"<p>{_text(origin.line(those))}.</p>"
    # A browser opens what is folded around a link's target, and not the target itself.
    inside = f'<summary><h2>{RUNS}</h2></summary><div id="runs">{line}{_runs(those)}</div>'
    return f'<details class="folded">{inside}</details>'


def _runs(of: Collection[Origin]) -> str:
    table, commands = _table(origin.table(of)), _text(origin.commands(of))
    return f'<div class="wide">{table}</div><pre>{commands}</pre>'


def _text(text: str) -> str:
    return html.escape(text)
