"""Stored runs as one tidy table, for notebooks, and as copies fit to be published.

    from experiments.results import load_runs
    table = load_runs("results/runs")   # run, study, data, preset, arm, seed, metric, step, value

A command makes the copies, as folders or, those of a plan say, as one zip, which everything that
reads a folder of runs finds in it:

    python experiments/results.py export --runs results/runs --out results/reference
    python experiments/results.py export --runs results/runs --out results/reference \
        --plan opponents --pack opponents
"""

import hashlib
import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments import PROJECT
from experiments.run import output, packed
from experiments.run.identity import as_text, same
from experiments.run.stored import (
    ROUND_ROBIN,
    StoredRun,
    load_runs,
    read_run,
    sample_grids,
    stored_runs,
)
from experiments.run.study import studies
from experiments.sweeps.plan import PRESETS, read_plan
from forgetting.errors import UserError
from forgetting.files import write_atomically

__all__ = ["export", "load_runs"]

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can tell


def export(
    folders: Iterable[str | Path],
    out: str | Path,
    pack: str | None = None,
    plan: str | None = None,
    preset: str = "quick",
) -> int:
    """Copy completed runs into `out`, without weights, host name and paths, and of the grids of
    samples with the last alone; how many runs there were.

    pack: into one zip of this name, of the same bytes for the same runs. plan, preset: those runs
    alone that a sweep of this plan makes. Raises UserError where a folder is missing, or is `out`
    itself, and where there is nothing to pack.
    """
    folders, out = [Path(folder) for folder in folders], Path(out)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--runs: there is no folder {folder}")
        if folder.resolve() == out.resolve():
            raise UserError(f"--out: {out} holds the runs themselves; name another folder")
    if pack is not None and not re.fullmatch(r"\w[\w.+-]*", pack):
        raise UserError(f"--pack: a zip's name is letters, digits and - _ . +, not {pack!r}")
    runs = stored_runs(*folders)
    if plan:
        runs = _of_plan(runs, plan, preset)
    if pack is None:
        for run in runs:
            _copy(run, out)
    elif runs:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(_zip_of(pack, out), _zipped(runs))
    else:
        raise UserError(
            f"--pack: there is no completed run to pack in {', '.join(map(str, folders))}"
        )
    return len(runs)


def _of_plan(runs: Sequence[StoredRun], name: str, preset: str) -> list[StoredRun]:
    """Those of the runs that a plan asks for, of whatever images. Raises UserError."""
    from experiments.run import runner  # PyTorch, only where plans are looked up

    study, all_words = read_plan(name)
    asked = [runner.asked_for(studies()[study], (preset, *words)) for words in all_words]
    asked = list({as_text(wanted): (wanted, left_open) for wanted, left_open in asked}.values())
    # On whichever device: of one seed on two there is one left.
    found = [
        run
        for run in runs
        if any(same(run.identity, wanted, {*but, "device"}) for wanted, but in asked)
    ]
    print(f"of the {len(asked)} runs of {name} with preset {preset}, {len(found)} are complete")
    return found


def _zip_of(pack: str, out: Path) -> Path:
    return out / f"{pack.removesuffix(packed.SUFFIX)}{packed.SUFFIX}"


def _copy(run: StoredRun, out: Path) -> None:
    target = out / _name(run)
    if target.exists() and read_run(target).identity != run.identity:
        target = target.with_name(_long_name(run))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, content in _published(run).items():
        write_atomically(target / name, content)


def _zipped(runs: Sequence[StoredRun]) -> bytes:
    """The runs as one zip, of the same bytes in whatever order they come."""
    alike = Counter(map(_name, runs))
    folders = {_name(run) if alike[_name(run)] == 1 else _long_name(run): run for run in runs}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for folder in sorted(folders):
            for name, text in sorted(_published(folders[folder]).items()):
                entry = zipfile.ZipInfo(f"{folder}/{name}", LONG_AGO)
                entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, anywhere
                archive.writestr(entry, text, zipfile.ZIP_DEFLATED, compresslevel=9)
    return content.getvalue()


def _name(run: StoredRun) -> str:
    return f"{run.study}-{run.preset}-{run.arm}-{run.seed}"


def _long_name(run: StoredRun) -> str:
    """Told from other runs of its arm and seed."""
    return f"{_name(run)}-{hashlib.sha256(as_text(run.identity).encode()).hexdigest()[:6]}"


def _published(run: StoredRun) -> dict[str, bytes]:
    """The run's files as they are published, by their names."""
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    last = [path.name for path in sample_grids(run.folder)[-1:]]
    published = [
        name for name in record["artifacts"] if name in last or not name.startswith("samples-")
    ]
    files = {}
    for name in packed.files_of(run.folder):
        path = run.folder / name
        if name in ("config.json", "info.json", "run.json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            if name == "run.json":
                content["host"].pop("hostname", None)
                content["artifacts"] = published
            files[name] = json.dumps(_without_paths(content), indent=2, sort_keys=True).encode()
        elif name == "cout.txt":
            files[name] = _WHERE.sub("", path.read_text(encoding="utf-8")).encode()
        elif name in ("metrics.json", ROUND_ROBIN) or name in published:
            files[name] = path.read_bytes()
    return files


_WHERE = re.compile(r", stored in .*")


# Up to its last part: a path, that of KEY=PATH, of git:PATH and of NAME+PATH.
_FOLDERS = re.compile(r"(?:^|(?<=[=:'\"+]))(?:/|~|\.\./)(?:[^'\"+]*/)?")


_LABELLED = re.compile(r"\s*dataset\.label\s*=")


def _without_paths(value, key=""):
    """JSON with every path outside the project cut down to its last part. What data and classes are
    called is no path, whatever stands in it."""
    if isinstance(value, dict):
        return {k: _without_paths(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(v, key) for v in value]
    if not isinstance(value, str) or key in ("label", "classes") or _LABELLED.match(value):
        return value
    return _FOLDERS.sub("", value)


def main() -> None:
    shipped = os.path.relpath(PROJECT / "results/reference")
    parser = output.parser("Publish stored runs.", "export", "--runs", shipped, "--out", "copies")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export", help="copy completed runs without weights and paths")
    command.add_argument("--runs", action="append", required=True, metavar="DIR")
    command.add_argument("--out", required=True, metavar="DIR")
    command.add_argument("--pack", metavar="NAME", help="into NAME.zip in DIR; unset: as folders")
    command.add_argument("--plan", metavar="PLAN", help="those of a sweep's plan alone")
    text = "of that sweep: quick, if not given"
    command.add_argument("--preset", choices=PRESETS, default="quick", help=text)
    options = parser.parse_args()
    try:
        n = export(options.runs, options.out, options.pack, options.plan, options.preset)
        where = Path(options.out)
        print(f"{n} runs in {_zip_of(options.pack, where) if options.pack else where}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    output.command(main)
