"""Measure what speed is claimed, side by side in one run, and write results/bench.json.

python experiments/bench.py [--only NAME,...] [--rounds N] [--device cpu|cuda]

Every row is a ratio of two times that were taken in turn, so that a busy machine slows both; given
are its median over the rounds and its spread (smallest to largest).
"""

import argparse
import json
import sys
from pathlib import Path

from experiments import PROJECT
from forgetting.errors import UserError
from forgetting.files import write_atomically

NAMES = (
    *("gan_iterations", "sequential_iterations", "growth", "linear_probe", "evaluation_share"),
    *("precision", "compilation", "memory", "start_up", "checkpoint_cost", "sweeps", "draw_many"),
)
OF_THE_HOST = ("sweeps", "draw_many")  # always on the CPU: not measured beside a GPU


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what speed is claimed.")
    parser.add_argument("--only", default="", metavar="NAME,...", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is timed")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="unset: a GPU where there is one")
    parser.add_argument("--out", default=PROJECT / "results/bench.json", metavar="FILE")
    options = parser.parse_args()
    try:
        only = [name for name in options.only.split(",") if name]
        unknown = [name for name in only if name not in NAMES]
        if unknown:
            raise UserError(f"--only: no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
        if options.rounds < 1:
            raise UserError("--rounds: it must be 1 or more")
        measure(only, options.rounds, options.device, Path(options.out))
    except UserError as error:
        sys.exit(f"error: {error}")


def measure(only: list[str], rounds: int, device: str | None, out: Path) -> None:
    """Print the rows of these benchmarks, or of all, and put them into `out`: beside the rows that
    it has of others, and of other devices. UserError at the end where one of them failed."""
    import torch

    here = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if here.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: there is no CUDA device here")
    from experiments.benchmarks import device_name, runs, training

    possible = [name for name in NAMES if here.type == "cpu" or name not in OF_THE_HOST]
    elsewhere = [name for name in only if name not in possible]
    if elsewhere:
        raise UserError(f"--only: {elsewhere[0]} is of the CPU alone; add --device cpu")
    rows = {}
    if out.exists():
        rows = {(r["name"], r["device"]): r for r in json.loads(out.read_text())["rows"]}
    if not only:
        rows = {key: r for key, r in rows.items() if key[1] != device_name(here)}
    failed = []
    print(f"{'':<64} {'device':<12} {'ratio':>8}  {'spread':<16}  aim")
    for name in only or possible:
        module = training if hasattr(training, name) else runs
        try:
            for r in getattr(module, name)(rounds, here):
                rows[r["name"], r["device"]] = r
                print(_line(r), flush=True)
                content = json.dumps({"rows": list(rows.values())}, indent=1)
                write_atomically(out, content.encode() + b"\n")
        except UserError as error:
            print(error, file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        raise UserError(f"bench: not measured to the end: {', '.join(failed)}")


def _line(row: dict) -> str:
    spread = "{:.3g} to {:.3g}".format(*row["spread"])
    return f"{row['name']:<64} {row['device']:<12} {row['ratio']:8.3g}  {spread:<16}  {row['aim']}"


if __name__ == "__main__":
    main()
