"""Every figure and table from stored runs, and from nothing else, and a page with all of them."""

import io
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments.run.identity import on_any_device
from experiments.run.stored import StoredRun, runs_and_rest
from experiments.run.unfinished import unfinished_runs
from experiments.show import grids
from experiments.show.compare import asked_about_fewer
from experiments.show.forked import each
from experiments.show.groups import groups
from experiments.show.memory import twins_of, with_memory
from experiments.show.page import parts, sides
from experiments.show.page import sections as sections_of
from experiments.show.pictures import FIGURES
from experiments.show.planted import with_kept
from experiments.show.plotting import completed, empty, style, which
from experiments.show.report import Entry, Section, report
from experiments.show.shipped import in_shipped
from experiments.show.tables import TABLES
from experiments.show.texts import latex, markdown
from forgetting.errors import UserError
from forgetting.files import write_atomically

NAMES = [*FIGURES, *TABLES]
OF_GRIDS = ("figure4", "table2")  # what shows every setting of a robustness grid
OF_ALL = (*OF_GRIDS, "claims")  # a claim may be of such settings


def draw(
    folders: Sequence[str | Path],
    out: str | Path,
    only: Sequence[str] = (),
    page: str | Path | None = None,
    live: bool = False,
    processes: int = 1,
) -> list[Path]:
    """Write figures (PNG, PDF) and tables (CSV, Markdown, LaTeX) into `out`, and the report to
    `page` where one is named; the paths of what is there to look at.

    live: runs that are not complete, too, in figures of curves and samples; in no table.
    processes: so many draw at once.
    """
    style()
    runs, left_out = runs_and_rest(*folders)
    runs = with_kept(with_memory(runs))
    without_grids = grids.without_grids(runs)
    if len(without_grids) < len(runs):
        print(
            f"{len(runs) - len(without_grids)} runs of grids are in {' and '.join(OF_GRIDS)} alone",
            file=sys.stderr,
        )
    _say_who_was_asked_less(runs)
    under_way = _under_way(folders, runs) if live else []
    out = Path(out)
    written, sections = [], {}
    boxes: set[str] = set()
    apart = [sides([*under_way, *those]) for those in (without_grids, runs)] if page else []

    def make(name: str) -> tuple[Mapping[str, bytes], dict[str, Section], set[str]]:
        _boxes.clear()
        files, entry = _made(name, [*under_way, *(runs if name in OF_ALL else without_grids)])
        at = {}
        if page and (name in TABLES or FIGURES[name].on_the_page):
            own, shipped = apart[name in OF_ALL]
            at = sections_of(name, entry, own, shipped, lambda of: _made(name, of, ["png"])[1])
        return files, at, _boxes

    try:
        out.mkdir(parents=True, exist_ok=True)
        names = only or NAMES
        for name, (files, at, lacking) in zip(names, each(make, names, processes), strict=True):
            for file, content in files.items():
                write_atomically(out / file, content)
            written.append(out / f"{name}.{'png' if name in FIGURES else 'md'}")
            sections[name] = at
            boxes |= lacking
        if page:
            arranged = parts(sections, apart[0][0])
            write_atomically(page, _bytes(report(arranged, left_out, len(under_way), in_shipped)))
            written.append(Path(page))
    except OSError as error:
        where = error.filename or out
        raise UserError(f"--out: cannot write to {where}: {error.strerror}") from None
    if boxes:
        print(
            f"drawn as boxes, since the figures' font lacks them: {' '.join(sorted(boxes))}",
            file=sys.stderr,
        )
    return written


def _say_who_was_asked_less(runs: Sequence[StoredRun]) -> None:
    fewer = [run for group in groups(runs, "gan_probe") for run in asked_about_fewer(group)]
    if fewer:
        print(
            f"round_robin_auc: asked about fewer arms than others of their seed, and beside none "
            f"of them: {', '.join(map(which, fewer))}; gan_probe.py round_robin asks anew",
            file=sys.stderr,
        )


def _under_way(folders: Sequence[str | Path], runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The unfinished runs but those that are there complete, too."""
    done = {on_any_device(run.identity) for run in runs}
    found = [run for run in unfinished_runs(*folders) if on_any_device(run.identity) not in done]
    if found:
        print(f"drawn dashed, not complete: {', '.join(map(which, found))}", file=sys.stderr)
    return found


def _made(
    name: str, runs: Sequence[StoredRun], suffixes: Sequence[str] = ("png", "pdf")
) -> tuple[Mapping[str, bytes], Entry]:
    """The files of a figure, of these suffixes, or of a table, and what the page says of it."""
    if name not in FIGURES:
        return _table(name, completed(runs))
    return _figure(name, runs if FIGURES[name].live else completed(runs), suffixes)


def _figure(
    name: str, runs: Sequence[StoredRun], suffixes: Sequence[str]
) -> tuple[dict[str, bytes], Entry]:
    drawing = FIGURES[name]

    def make(runs: Sequence[StoredRun]) -> tuple[dict[str, bytes], list[StoredRun]]:
        found = [group for study in drawing.studies for group in groups(runs, study)]
        shown = drawing.select(found)
        of = [run for group in shown for run in group.runs]
        pictures = _render(drawing.draw(shown), suffixes)
        return pictures, of + (twins_of(of, runs) if drawing.with_twins else [])

    failed = False
    try:
        pictures, runs = _of_those_it_can(name, make, runs)
    except Exception as error:
        pictures, runs = _render(empty(_unforeseen(name, error)), suffixes), []
        failed = True
    made_by = drawing.made_by or f"python experiments/{drawing.studies[0]}.py with cpu"
    entry = Entry(drawing.title, drawing.shows, made_by, completed(runs))
    if runs or failed:
        entry = replace(entry, picture=pictures["png"])
    return {f"{name}.{suffix}": content for suffix, content in pictures.items()}, entry


_boxes: set[str] = set()  # letters that the font lacks, in what is being drawn


def _render(figure: Figure, suffixes: Sequence[str]) -> dict[str, bytes]:
    """The figure's files by these suffixes."""
    pictures = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for suffix in suffixes:
            file = io.BytesIO()
            figure.savefig(
                file,
                format=suffix,
                # No date inside: the same runs draw the same file.
                metadata={} if suffix == "png" else {"CreationDate": None},
                dpi=min(200, 40000 / figure.get_figheight()),  # what a PNG can be high
            )
            pictures[suffix] = file.getvalue()
            figure.set_layout_engine("none")  # one layout for all: it takes as long as to draw
    plt.close(figure)
    for warning in caught:
        if lacks := re.match(r"Glyph (\d+) ", str(warning.message)):
            _boxes.add(chr(int(lacks[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return pictures


def _of_those_it_can(name: str, make: Callable, runs: Sequence[StoredRun]):
    """make(runs), or of those runs alone with which it can be made; the others are named."""
    try:
        return make(runs)
    except Exception as error:
        plt.close("all")  # what was begun
        alone = {run.folder: _failure(make, [run]) for run in runs}
        bad = {folder: reason for folder, reason in alone.items() if reason}
        if not bad:  # one does not go with the others
            for run in runs:
                if not _failure(make, [other for other in runs if other is not run]):
                    bad[run.folder] = f"{type(error).__name__}: {error}"
                    break
        for folder, reason in bad.items():
            print(f"{name}: passed over {folder}: {reason}", file=sys.stderr)
        if len(bad) in (0, len(runs)):
            raise
        return make([run for run in runs if run.folder not in bad])


def _failure(make: Callable, runs: Sequence[StoredRun]) -> str:
    """Why it cannot be made of `runs`; "" where it can."""
    try:
        make(runs)
    except Exception as error:
        plt.close("all")
        return f"{type(error).__name__}: {error}"
    return ""


def _unforeseen(name: str, error: Exception) -> str:
    """What no check foresaw: the other figures are drawn, and this one says what it was."""
    reason = f"{name}: cannot be made from these runs: {type(error).__name__}: {error}"
    print(reason, file=sys.stderr)
    return reason


def _table(name: str, runs: Sequence[StoredRun]) -> tuple[dict[str, bytes], Entry]:
    table = TABLES[name]

    def make(runs: Sequence[StoredRun]) -> tuple[Sequence[StoredRun], pd.DataFrame]:
        chosen = table.select(runs)
        return chosen, table.make(chosen)

    failed = False
    try:
        chosen, frame = _of_those_it_can(name, make, runs)
    except Exception as error:
        chosen, frame, failed = [], pd.DataFrame({"": [_unforeseen(name, error)]}), True
    files = {
        f"{name}.csv": _bytes(frame.to_csv(index=False)),
        f"{name}.md": _bytes(markdown(frame)),
        f"{name}.tex": _bytes(latex(frame, table.title)),
    }
    entry = Entry(table.title, table.note, table.made_by, chosen)
    return files, replace(entry, table=frame) if len(frame) and (chosen or failed) else entry


def _bytes(text: str) -> bytes:
    """In UTF-8; what is no text in a path is written as an escape."""
    return text.encode(errors="backslashreplace")
