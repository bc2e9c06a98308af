"""Stored runs as one tidy table, for notebooks, and as copies fit to be published.

    from experiments.results import load_runs
    table = load_runs("results/runs")   # run, study, data, preset, arm, seed, metric, step, value

A command makes the copies:

    python experiments/results.py export --runs results/runs --out results/reference
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from experiments import PROJECT
from experiments.run import output
from experiments.run.identity import as_text
from experiments.run.stored import load_runs, read_run, sample_grids, stored_runs
from forgetting.errors import UserError
from forgetting.files import write_atomically

__all__ = ["export", "load_runs"]


def export(folders: Iterable[str | Path], out: str | Path) -> int:
    """Copy completed runs into `out`, without weights, host name and paths, and of the grids of
    samples with those alone that a figure shows; how many runs there were.

    Raises UserError where a folder is missing, or is `out` itself.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"--runs: there is no folder {folder}")
        if folder.resolve() == Path(out).resolve():
            raise UserError(f"--out: {out} holds the runs themselves; name another folder")
    runs = stored_runs(*folders)
    for run in runs:
        target = Path(out) / f"{run.study}-{run.preset}-{run.arm}-{run.seed}"
        if target.exists() and read_run(target).identity != run.identity:
            digest = hashlib.sha256(as_text(run.identity).encode()).hexdigest()[:6]
            target = target.with_name(f"{target.name}-{digest}")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
        shown = [path.name for path in sample_grids(run.folder)]
        published = [
            name for name in record["artifacts"] if name in shown or not name.startswith("samples-")
        ]
        for path in run.folder.iterdir():
            if path.name in ("config.json", "info.json", "run.json"):
                content = json.loads(path.read_text(encoding="utf-8"))
                if path.name == "run.json":
                    content["host"].pop("hostname", None)
                    content["artifacts"] = published
                content = json.dumps(_without_paths(content), indent=2, sort_keys=True)
                write_atomically(target / path.name, content.encode())
            elif path.name == "cout.txt":
                write_atomically(
                    target / path.name, _WHERE.sub("", path.read_text(encoding="utf-8")).encode()
                )
            elif path.name == "metrics.json" or path.name in published:
                shutil.copyfile(path, target / path.name)
    return len(runs)


_WHERE = re.compile(r", stored in .*")


# Up to its last part: a path, that of KEY=PATH, of git:PATH and of NAME+PATH.
_FOLDERS = re.compile(r"(?:^|(?<=[=:'\"+]))(?:/|~|\.\./)(?:[^'\"+]*/)?")


def _without_paths(value, key=""):
    """JSON with every path outside the project cut down to its last part. What data are called
    (`label`) is no path, whatever stands in it."""
    if isinstance(value, dict):
        return {k: _without_paths(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    if not isinstance(value, str) or key == "label" or value.startswith("dataset.label="):
        return value
    return _FOLDERS.sub("", value)


def main() -> None:
    shipped = os.path.relpath(PROJECT / "results/reference")
    parser = output.parser("Publish stored runs.", "export", "--runs", shipped, "--out", "copies")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export", help="copy completed runs without weights and paths")
    command.add_argument("--runs", action="append", required=True, metavar="DIR")
    command.add_argument("--out", required=True, metavar="DIR")
    options = parser.parse_args()
    try:
        print(f"{export(options.runs, options.out)} runs in {options.out}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    output.never_fail()
    main()
