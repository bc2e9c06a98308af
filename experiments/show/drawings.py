"""Every figure and table from stored runs, and from nothing else, and a page with all of them."""

import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments.run.identity import as_text
from experiments.run.stored import StoredRun, runs_and_rest
from experiments.run.unfinished import unfinished_runs
from experiments.show import drift, grids, kept_and_taught
from experiments.show import gan as gan_figures
from experiments.show import opponents as opponent_figures
from experiments.show import sequential as sequential_figures
from experiments.show.groups import Group, groups
from experiments.show.memory import twins_of, with_memory
from experiments.show.planted import with_kept
from experiments.show.plotting import completed, empty, style, which
from experiments.show.report import Entry, report
from experiments.show.tables import TABLES
from experiments.show.texts import latex, markdown
from forgetting.errors import UserError
from forgetting.files import write_atomically


@dataclass(frozen=True)
class Drawing:
    """A figure: of which studies, in which words, of which of their runs, and how it is drawn."""

    studies: Sequence[str]
    title: str
    shows: str
    draw: Callable[[Sequence[Group]], Figure]
    select: Callable[[Sequence[Group]], Sequence[Group]] = list
    made_by: str = ""  # the command that makes such runs; "": the study's own
    with_twins: bool = False  # whether omission twins, which no group holds, tell some of it
    live: bool = False  # whether it can show runs that are not complete, too


SEQUENTIAL, GAN = ("sequential_tasks",), ("gan_probe",)
FIGURES = {
    "cures": Drawing(
        SEQUENTIAL,
        "What a discriminator remembers of the generators it has met",
        "Recorded generators of one GAN, met one after another; an arm a row. Memory: area under "
        "the ROC curve on a generator's fakes at the end, minus that of a twin that never met it; "
        "at 0 it would know as much without having met it. Dashed: joint training, on all "
        "generators at once; of memory, what it reaches above the first arm's twins. Dotted: no "
        "memory, or chance.",
        opponent_figures.cures,
        opponent_figures.with_joint,
        "python experiments/sweep.py opponents --preset cpu",
        with_twins=True,
    ),
    "figure1": Drawing(
        GAN,
        "Figure 1: rotations and what the discriminator makes of them",
        "Real and generated images in four rotations, below each the trained discriminator's "
        "predicted probabilities; the paper has a drawing here.",
        gan_figures.figure1,
        gan_figures.with_rotations,
    ),
    "figure2": Drawing(
        GAN,
        "Figure 2: what the discriminator knows of the classes while the GAN trains",
        "Test accuracy of a linear classifier on the frozen discriminator's features, the best "
        "block's. A fall is forgetting. A cross: the classifier did not converge.",
        gan_figures.figure2,
        gan_figures.probed,
        live=True,
    ),
    "figure3": Drawing(
        SEQUENTIAL,
        "Figure 3: accuracy on the current task, one task after another",
        "The classifier learns one class against all others at a time; grey lines are switches of "
        "the task, the dashed line ends a cycle through the classes, dotted is chance.",
        sequential_figures.figure3,
        sequential_figures.one_vs_all,
        live=True,
    ),
    "figure4": Drawing(
        GAN,
        "Figure 4: distribution of the samples' distance over models, seeds and settings",
        "A point a run; settings that differ as in Table 2 stand in one box. FID where Inception's "
        "weights could be had, else a Fréchet distance on the features of a named classifier of "
        "our own, which does not compare with FID. Lower is better.",
        gan_figures.figure4,
        gan_figures.measured_by_scale,
    ),
    "probe_by_block": Drawing(
        GAN,
        "Representation by block over training",
        "As Figure 2, every residual block for itself.",
        gan_figures.probe_by_block,
        gan_figures.probed,
        live=True,
    ),
    "past_fakes": Drawing(
        GAN,
        "Does the discriminator forget old fakes? Accuracy",
        "Rows: the discriminator over training; columns: the generator whose fakes it has to tell "
        "from held-out real images. What is left of the diagonal is the past.",
        gan_figures.past_fakes,
        gan_figures.with_past_fakes,
    ),
    "past_fakes_auc": Drawing(
        GAN,
        "Does the discriminator forget old fakes? Area under the ROC curve",
        "The same without a threshold: whether it still ranks real images above the old fakes.",
        gan_figures.past_fakes_auc,
        gan_figures.with_past_fakes,
    ),
    "quality": Drawing(
        GAN,
        "Quality of the samples over training",
        "The distance of Figure 4 along the way.",
        gan_figures.quality,
        gan_figures.measured,
        live=True,
    ),
    "samples": Drawing(
        GAN,
        "Samples over training",
        "The same latents every time, a row a model, its first seed.",
        gan_figures.samples,
        gan_figures.first_seeds,
        live=True,
    ),
    "representation": Drawing(
        SEQUENTIAL,
        "What the features hold of all classes",
        "Test accuracy of a linear probe of the frozen features at each task's end.",
        sequential_figures.representation,
        sequential_figures.probed,
        live=True,
    ),
    "accuracy_matrix": Drawing(
        SEQUENTIAL,
        "Accuracy on every task over time",
        "A row a task. With one head for all tasks the labels change their meaning at a switch, so "
        "that low accuracy on other tasks is forced.",
        sequential_figures.accuracy_matrix,
        sequential_figures.one_vs_all,
    ),
    "summary": Drawing(
        SEQUENTIAL,
        "Sequential tasks: the measures",
        "A grey point a seed, mean and interval; below, the difference of two arms by seed. All of "
        "them are in the table of differences.",
        sequential_figures.summary,
        sequential_figures.one_vs_all,
    ),
    "forgetting": Drawing(
        SEQUENTIAL,
        "Sequential tasks with a head a task: forgetting and transfer",
        "The measures of the continual-learning literature, for runs with head=per_task.",
        sequential_figures.forgetting,
        sequential_figures.head_a_task,
        "python experiments/sequential_tasks.py with cpu head=per_task",
    ),
    "opponents": Drawing(
        SEQUENTIAL,
        "A discriminator after each of the generators it met, against all of them",
        "Above, the last cycle: the area under the ROC curve, real images against fakes. Rows: the "
        "generator just met; columns: the one whose fakes are told; the diagonal is the one at "
        "hand. Beside it the same for logistic regression on means and deviations of the colour "
        "channels: what resembles it needs no memory. Below: the first generator's fakes over "
        "time; shaded while it is at hand, the dashed line ends a cycle, dotted is chance.",
        opponent_figures.opponents,
        opponent_figures.with_joint,
        "python experiments/sweep.py opponents --preset cpu",
        live=True,
    ),
    "planted": Drawing(
        SEQUENTIAL,
        "Planted knowledge: what is kept, and what is taught beside",
        "Nets began with updates on the images' classes, or not. A linear probe of the vector that "
        "the heads read says what is left of it (full lines) and what training alone gives "
        "(dashed). Kept is the first minus the second, taught is the second above the untrained "
        "net, both means over the run. Dotted: references, and no bounds.",
        kept_and_taught.planted,
        kept_and_taught.with_planted,
        "python experiments/sweep.py planted --preset cpu",
    ),
    "drift": Drawing(
        SEQUENTIAL + GAN,
        "How the features drift",
        "How alike the final layer's features of the same 1,000 test images are at each two probes "
        "of a run: debiased linear CKA, 1 where they are the same but for rotation and scale.",
        drift.drift,
        drift.with_drift,
    ),
}
NAMES = [*FIGURES, *TABLES]
OF_GRIDS = ("figure4", "table2")  # what shows every setting of a robustness grid


def draw(
    folders: Sequence[str | Path],
    out: str | Path,
    only: Sequence[str] = (),
    page: str | Path | None = None,
    live: bool = False,
) -> list[Path]:
    """Write figures (PNG, PDF) and tables (CSV, Markdown, LaTeX) into `out`, and the report to
    `page` where one is named; the paths of what is there to look at.

    live: runs that are not complete, too, in figures of curves and samples; in no table.
    """
    style()
    runs, left_out = runs_and_rest(*folders)
    runs = with_kept(with_memory(runs))
    without_grids = grids.without_grids(runs)
    if len(without_grids) < len(runs):
        print(
            f"in {' and '.join(OF_GRIDS)} alone, of grids: {len(runs) - len(without_grids)} runs",
            file=sys.stderr,
        )
    under_way = _under_way(folders, runs) if live else []
    out = Path(out)
    written, entries = [], []
    _boxes.clear()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in only or NAMES:
            of = runs if name in OF_GRIDS else without_grids
            if name in FIGURES and FIGURES[name].live:
                of = [*under_way, *of]
            path, entry = (_figure if name in FIGURES else _table)(name, of, out)
            written.append(path)
            entries.append(entry)
        if page:
            write_atomically(page, _bytes(report(entries, left_out, len(under_way))))
            written.append(Path(page))
    except OSError as error:
        where = error.filename or out
        raise UserError(f"--out: cannot write to {where}: {error.strerror}") from None
    if _boxes:
        print(
            f"drawn as boxes, since the figures' font lacks them: {' '.join(sorted(_boxes))}",
            file=sys.stderr,
        )
    return written


def _under_way(folders: Sequence[str | Path], runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The unfinished runs but those that are there complete, too."""
    done = {as_text(run.identity) for run in runs}
    found = [run for run in unfinished_runs(*folders) if as_text(run.identity) not in done]
    if found:
        print(f"drawn dashed, not complete: {', '.join(map(which, found))}", file=sys.stderr)
    return found


def _figure(name: str, runs: Sequence[StoredRun], out: Path) -> tuple[Path, Entry]:
    drawing = FIGURES[name]

    def make(runs: Sequence[StoredRun]) -> tuple[dict[str, bytes], list[StoredRun]]:
        found = [group for study in drawing.studies for group in groups(runs, study)]
        shown = drawing.select(found)
        of = [run for group in shown for run in group.runs]
        return _render(drawing.draw(shown)), of + (twins_of(of, runs) if drawing.with_twins else [])

    try:
        pictures, runs = _of_those_it_can(name, make, runs)
    except Exception as error:
        pictures, runs = _render(empty(_unforeseen(name, error))), []
    for suffix, content in pictures.items():
        write_atomically(out / f"{name}.{suffix}", content)
    picture = out / f"{name}.png"
    made_by = drawing.made_by or f"python experiments/{drawing.studies[0]}.py with cpu"
    entry = Entry(drawing.title, drawing.shows, made_by, completed(runs), picture=picture)
    return picture, entry


_boxes: set[str] = set()  # letters that the font lacks, in what was drawn


def _render(figure: Figure) -> dict[str, bytes]:
    """The figure's files by their suffixes."""
    pictures = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for suffix in ("png", "pdf"):
            file = io.BytesIO()
            figure.savefig(
                file,
                format=suffix,
                # No date inside: the same runs draw the same file.
                metadata={} if suffix == "png" else {"CreationDate": None},
                dpi=min(200, 40000 / figure.get_figheight()),  # what a PNG can be high
            )
            pictures[suffix] = file.getvalue()
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
        return f"{type(error).__name__}: {error}"
    return ""


def _unforeseen(name: str, error: Exception) -> str:
    """What no check foresaw: the other figures are drawn, and this one says what it was."""
    reason = f"{name}: cannot be made from these runs: {type(error).__name__}: {error}"
    print(reason, file=sys.stderr)
    return reason


def _table(name: str, runs: Sequence[StoredRun], out: Path) -> tuple[Path, Entry]:
    table = TABLES[name]

    def make(runs: Sequence[StoredRun]) -> tuple[Sequence[StoredRun], pd.DataFrame]:
        chosen = table.select(runs)
        return chosen, table.make(chosen)

    try:
        chosen, frame = _of_those_it_can(name, make, runs)
    except Exception as error:
        chosen, frame = [], pd.DataFrame({"": [_unforeseen(name, error)]})
    for suffix, content in (
        ("csv", frame.to_csv(index=False)),
        ("md", markdown(frame)),
        ("tex", latex(frame, table.title)),
    ):
        write_atomically(out / f"{name}.{suffix}", _bytes(content))
    entry = Entry(table.title, table.note, table.made_by, chosen, table=frame)
    return out / f"{name}.md", entry


def _bytes(text: str) -> bytes:
    """In UTF-8; what is no text in a path is written as an escape."""
    return text.encode(errors="backslashreplace")
