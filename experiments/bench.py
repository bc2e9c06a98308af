"""Measure what speed is claimed, side by side in one run, and write results/bench.json.

python experiments/bench.py [--only NAME,...] [--rounds N] [--device cpu|cuda]
python experiments/bench.py merge DIR    # what `make gpu` left in DIR, into results/bench.json

Every row is a ratio of two times that were taken in turn, so that a busy machine slows both; given
are its median over the rounds and its spread (smallest to largest).
"""

import json
import sys
import traceback
from pathlib import Path

from experiments import PROJECT
from experiments.benchmarks import REHEARSAL, put
from experiments.run import output
from forgetting.errors import UserError

# What `make gpu` measures, the most wanted first; they can be rehearsed on a CPU.
OF_A_LOAN = (
    *("gan_iterations", "sequential_iterations", "launches", "runs_at_once", "linear_probe"),
)
NAMES = (
    *(*OF_A_LOAN, "growth", "evaluation_share", "precision", "compilation", "memory"),
    *("start_up", "checkpoint_cost", "methods", "threads", "sweeps", "draw_many"),
)
OF_THE_HOST = ("threads", "sweeps", "draw_many")  # always on the CPU: not measured beside a GPU
OF_THE_GPU = ("launches", "runs_at_once")


def main() -> None:
    example = ("--only", "checkpoint_cost", "--rounds", "1", "--out", "my_bench.json")
    parser = output.parser("Measure what speed is claimed.", *example)
    parser.add_argument("merge", nargs="*", metavar="merge DIR", help="rows that `make gpu` left")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is timed")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="unset: a GPU where there is one")
    text = "small sizes on the CPU; the figures mean nothing"
    parser.add_argument("--rehearse", action="store_true", help=text)
    parser.add_argument("--out", default=PROJECT / "results/bench.json", metavar="FILE")
    options = parser.parse_args()
    try:
        if options.merge:
            return merge(options.merge, Path(options.out))
        only = [name for name in options.only.split(",") if name]
        unknown = [name for name in only if name not in NAMES]
        if unknown:
            raise UserError(f"--only: no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
        if options.rounds < 1:
            raise UserError("--rounds: it must be 1 or more")
        if options.rehearse and not set(only or NAMES) <= set(OF_A_LOAN):
            raise UserError(f"--rehearse: it takes --only with some of {','.join(OF_A_LOAN)}")
        device = "cpu" if options.rehearse else options.device
        measure(only, options.rounds, device, Path(options.out), options.rehearse)
    except UserError as error:
        sys.exit(f"error: {error}")


def merge(words: list[str], out: Path) -> None:
    """`merge DIR`: put the rows of DIR/bench.json into `out`. UserError for a rehearsal's."""
    if len(words) != 2 or words[0] != "merge":
        raise UserError("merge: it takes one folder, as in: merge DIR")
    file = Path(words[1]) / "bench.json"
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"merge: there are no rows in {file}") from None
    if any(row["device"] == REHEARSAL for row in rows):
        raise UserError(f"merge: {file} is a rehearsal's, whose figures mean nothing")
    put(rows, out)
    print(f"{len(rows)} rows of {', '.join(sorted({r['device'] for r in rows}))} in {out}")


def measure(
    only: list[str], rounds: int, device: str | None, out: Path, rehearse: bool = False
) -> None:
    """Print the rows of these benchmarks, or of all, and put them into `out`: beside the rows that
    it has of others, and of other devices. UserError at the end where one of them failed."""
    import torch

    here = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if here.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: there is no CUDA device here")
    from experiments.benchmarks import (
        device_name,
        launches,
        methods,
        probe,
        runs,
        threads,
        training,
    )

    absent = OF_THE_HOST if here.type == "cuda" else () if rehearse else OF_THE_GPU
    possible = [name for name in NAMES if name not in absent]
    elsewhere = [name for name in only if name not in possible]
    if elsewhere:
        of, hint = ("the CPU", "cpu") if here.type == "cuda" else ("a GPU", "cuda")
        raise UserError(f"--only: {elsewhere[0]} is of {of} alone; add --device {hint}")
    replaced = None if only else device_name(here)
    failed = []
    print(f"{'':<64} {'device':<12} {'ratio':>8}  {'spread':<16}  aim")
    for name in only or possible:
        (function,) = (
            getattr(m, name)
            for m in (training, probe, launches, methods, runs, threads)
            if hasattr(m, name)
        )
        try:
            for r in function(rounds, here, **({"small": True} if rehearse else {})):
                r |= {"device": REHEARSAL} if rehearse else {}
                print(_line(r), flush=True)
                put([r], out, replaced)
                replaced = None
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
            failed.append(name)
        except Exception:  # the others' figures are not lost by it
            traceback.print_exc()
            failed.append(name)
    if failed:
        raise UserError(f"bench: not measured to the end: {', '.join(failed)}")


def _line(row: dict) -> str:
    spread = "{:.3g} to {:.3g}".format(*row["spread"])
    return f"{row['name']:<64} {row['device']:<12} {row['ratio']:8.3g}  {spread:<16}  {row['aim']}"


if __name__ == "__main__":
    output.command(main)
