"""Figures from stored runs, and from nothing else.

python experiments/figures.py [--runs DIR ...] [--out DIR] [--only figure3,summary]
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from experiments import gan_figures, sequential_figures
from experiments.plotting import style
from experiments.results import PROJECT, Group, groups, stored_runs
from forgetting.errors import UserError

FIGURES: dict[str, tuple[str, Callable[[Sequence[Group]], Figure]]] = {
    "figure1": ("gan_probe", gan_figures.figure1),
    "figure2": ("gan_probe", gan_figures.figure2),
    "figure3": ("sequential_tasks", sequential_figures.figure3),
    "accuracy_matrix": ("sequential_tasks", sequential_figures.accuracy_matrix),
    "representation": ("sequential_tasks", sequential_figures.representation),
    "summary": ("sequential_tasks", sequential_figures.summary),
    "forgetting": ("sequential_tasks", sequential_figures.forgetting),
    "probe_by_block": ("gan_probe", gan_figures.probe_by_block),
    "past_fakes": ("gan_probe", gan_figures.past_fakes),
    "samples": ("gan_probe", gan_figures.samples),
}


def draw(folders: Sequence[str | Path], out: str | Path, only: Sequence[str] = ()) -> list[Path]:
    """Write the figures as PNG and PDF into `out`; the PNGs' paths."""
    style()
    runs = stored_runs(*folders)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot write to {out}: {error.strerror}") from None
    written = []
    for name in only or FIGURES:
        study, function = FIGURES[name]
        figure = function(groups(runs, study))
        for suffix in ("png", "pdf"):
            # No date inside: the same runs draw the same file.
            figure.savefig(
                out / f"{name}.{suffix}", metadata={} if suffix == "png" else {"CreationDate": None}
            )
        plt.close(figure)
        written.append(out / f"{name}.png")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the figures from stored runs.")
    default = [PROJECT / "results/runs", PROJECT / "results/reference"]
    parser.add_argument("--runs", action="append", metavar="DIR", help="a folder of Sacred runs")
    parser.add_argument("--out", default=PROJECT / "results/figures", metavar="DIR")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(FIGURES))
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    try:
        for name in only:
            if name not in FIGURES:
                raise UserError(f"--only: no figure {name!r}; there are {', '.join(FIGURES)}")
        for folder in options.runs or []:
            if not Path(folder).is_dir():
                raise UserError(f"--runs: there is no folder {folder}")
        for path in draw(options.runs or default, options.out, only):
            print(os.path.relpath(path))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
