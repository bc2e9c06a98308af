"""Every figure and table from stored runs, and from nothing else, and a page with all of them.

python experiments/figures.py [--runs DIR ...] [--out DIR] [--only figure3,table1] [--live]

Of all of them it ends with the page's place and what the latest runs found, in a sentence each.
"""

import contextlib
import io
import os
import signal
import sys
from pathlib import Path

from experiments import PROJECT
from experiments.run import output
from forgetting.errors import UserError


def main() -> None:
    try:
        from experiments.run.beside import cores
        from experiments.run.stored import stored_runs
        from experiments.show.drawings import NAMES, draw
        from experiments.show.findings import sentences
    except UserError as error:
        sys.exit(f"error: {error}")
    example = ("--only", "figure3,measures", "--out", "my_figures")
    parser = output.parser("Draw figures and tables from stored runs.", *example)
    results = PROJECT / "results"
    parser.add_argument(
        "--runs",
        action="append",
        metavar="DIR",
        help="a folder of Sacred runs; unset: results/runs and results/reference",
    )
    parser.add_argument("--out", metavar="DIR", help="unset: results/figures")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(NAMES))
    text = "runs that are not complete, too: dashed in figures of curves, in no table"
    parser.add_argument("--live", action="store_true", help=text)
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    out = Path(options.out) if options.out else results / "figures"
    page = out / "report.html" if options.out else results / "report.html"
    try:
        for name in only:
            if name not in NAMES:
                raise UserError(f"--only: no figure {name!r}; there are {', '.join(NAMES)}")
        for folder in options.runs or []:
            if not Path(folder).is_dir():
                raise UserError(f"--runs: there is no folder {folder}")
        folders = options.runs or [results / "runs", results / "reference"]
        whole = None if only else page
        for path in draw(folders, out, only, whole, options.live, cores()):
            print(os.path.relpath(path))
        if not only:
            with contextlib.redirect_stderr(io.StringIO()):  # drawing has said what it passes over
                own = stored_runs(*(options.runs or folders[:1]))
            for sentence in sentences(own):
                print(sentence)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    output.command(main)
