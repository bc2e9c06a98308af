"""The one reader of runs' folders: it knows how they are laid out, and checks what it reads."""

import fnmatch
import functools
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.run import metrics_file, packed
from experiments.run.identity import arm_name, identity, on_any_device
from experiments.run.packed import DAMAGED, Folder, Unreadable
from experiments.run.study import Study, studies
from forgetting.arms import names
from forgetting.errors import UserError
from forgetting.measures import Logged, read_anew
from forgetting.names import natural, printable
from forgetting.settings import flat, nested, validate, with_defaults

READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, *DAMAGED)
# Settings that every run of this program has, of whatever version.
ROUND_ROBIN = "round_robin.csv"  # made when its run, and others of its seed, are complete
MET = "met"  # in a run's info: the arms whose past generators it was asked about there
ALWAYS_THERE = {"preset", "seed", "dataset.name", "dataset.label", "results_dir", "resume"}


@dataclass(frozen=True)
class Record:
    """What a run's folder says of it, whatever became of it.

    settings: flat, as they were stored. info, run: info.json ({} where it is not there yet) and
    run.json, as Sacred has them.
    """

    folder: Folder
    study: Study
    settings: dict[str, Any]
    info: dict[str, Any]
    run: dict[str, Any]

    @property
    def status(self) -> str:
        return self.run["status"]

    @property
    def copy_of(self) -> str | None:
        """The run of which this folder is a copy; None where it is none, or does not say."""
        return None if (own := self.run.get("_id")) in (None, self.folder.name) else str(own)

    @property
    def fingerprint(self) -> str | None:
        """Of the images that it was trained on; None where that is not known yet."""
        return self.info.get("data", {}).get("fingerprint")

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        extractor = self.info.get("extractor_sha256", self.info.get("extractor"))
        return identity(
            self.study,
            self.settings,
            images=self.fingerprint,
            extractor=extractor,
            files=self.files,
            recording=self.recording,
        )

    @property
    def recording(self) -> str | None:
        """Name and hash of the recording of its opponents."""
        of = self.info.get("recording")
        return f"{of['name']} {of['sha256'][:16]}" if of else None

    @property
    def files(self) -> str | None:
        """What tells its users' files from others of their names."""
        files = self.info.get("methods", {}).items()
        return ", ".join(f"{name} {about['sha256'][:16]}" for name, about in files) or None

    @property
    def seconds(self) -> float | None:
        """What it took so far, as far as it says."""
        try:
            return float(sum(self.info["seconds"].values()))
        except READ_ERRORS:
            return None


def read_record(folder: Folder) -> Record:
    """Raises Unreadable."""
    if folder.suffix == packed.SUFFIX and folder.is_file():
        packed.runs_in(folder)  # says what is wrong with it
    settings = flat(_json(folder / "config.json"))
    of = [study for study in studies().values() if study.arm in settings]
    if len(of) != 1 or not settings.keys() >= ALWAYS_THERE:
        raise Unreadable("it is a run of another program")
    (study,) = of
    run = _json(folder / "run.json")
    if not isinstance(run.get("status"), str):
        raise Unreadable("run.json says no status")
    info = _json(folder / "info.json") if (folder / "info.json").exists() else {}
    arm = settings[study.arm]
    if not isinstance(arm, str) or not arm:
        raise Unreadable(f"{study.arm} is {arm!r}")
    # Settings of methods are not looked at: the user's file that says what they may be may be gone.
    of_methods = tuple(f"{name}." for name in names(arm, study.models))
    own = {key: value for key, value in settings.items() if key.startswith(of_methods)}
    others = {k: v for k, v in settings.items() if k not in own and k != study.arm}
    try:
        settings = {**validate(others, study.settings), **own, study.arm: arm}
    except UserError as error:
        raise Unreadable(str(error)) from None
    return Record(folder, study, settings, info, run)


def _json(path: Folder) -> dict[str, Any]:
    """The object that a file holds."""
    try:
        content = json.loads(path.read_bytes().decode())
    except (OSError, *DAMAGED) as error:
        raise Unreadable(f"{path.name} cannot be read: {packed.reason(error)}") from None
    except ValueError as error:
        raise Unreadable(f"{path.name} is no whole JSON: {error}") from None
    if not isinstance(content, dict):
        raise Unreadable(f"{path.name} holds no object")
    return content


@dataclass(frozen=True)
class StoredRun:
    """One run. `metrics`: name -> (steps (K,) int64, values (K,) float64).

    arm: with those of its own settings that are not at their default. config: all settings, as
    Sacred nests them, what an older run lacks at its default. identity: what it computes from.
    code: the commit it came from, with a + where files were changed. asked: what followed `with` on
    the command line. status: "completed"; an unfinished one is "running" or "interrupted", and has
    no result.
    """

    id: str
    folder: Folder
    study: str
    arm: str
    seed: int
    data: str
    preset: str
    config: dict
    identity: dict[str, Any]
    result: dict
    info: dict
    code: str
    asked: tuple[str, ...]
    metrics: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    status: str = "completed"
    ended: str = ""  # when, UTC, in ISO 8601

    @property
    def completed(self) -> bool:
        return self.status == "completed"

    @property
    def collection(self) -> str:
        """By name what it lies in: a folder, or a zip less its ending."""
        return self.folder.parent.name.removesuffix(packed.SUFFIX)

    @property
    def unit(self) -> str | int:
        """What was drawn at random: the recording where opponents are recorded, else the seed."""
        return self.identity.get("recording", self.seed)

    @property
    def unit_is(self) -> str:
        """What the unit is called."""
        return "recording" if "recording" in self.identity else "seed"

    @property
    def updates(self) -> int:
        """Those done when it last logged something."""
        return int(max(steps[-1] for steps, _ in self.metrics.values()))

    def table(self, name: str) -> pd.DataFrame:
        """A CSV file that the study kept with the run. Raises one of READ_ERRORS."""
        return _csv(self.folder, name)


@functools.cache
def _csv(folder: Folder, name: str) -> pd.DataFrame:
    with (folder / name).open("rb") as file:
        return pd.read_csv(file)


def read_run(folder: Folder, status: str = "completed") -> StoredRun:
    """A completed run, or one of another status. Raises Unreadable."""
    record = read_record(folder)
    try:
        return _whole(record, status)
    except READ_ERRORS as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{type(error).__name__}: {error}") from None


def _whole(record: Record, status: str) -> StoredRun:
    settings = with_defaults(record.settings, record.study.settings)
    repositories = record.run["experiment"].get("repositories") or [{}]
    commit = (repositories[0].get("commit") or "unknown")[:10]
    if not record.fingerprint:
        raise Unreadable("info.json does not tell its images")
    completed = status == "completed"
    if completed and not isinstance(record.run["result"], dict):
        raise Unreadable("run.json has no result")
    if lacks := [key for key in ("preset", "dataset.label") if settings[key] is None]:
        raise Unreadable(f"config.json: {lacks[0]} is None")
    config, metrics, result = nested(settings), read_metrics(record.folder), {}
    info = record.info
    if completed:
        past, met = (_scores(record.folder, name) for name in ("past_fakes.csv", ROUND_ROBIN))
        result = read_anew(record.run["result"], Logged(metrics, config, past, met))
        info = info | {MET: sorted({str(row["arm"]) for row in met})} if met else info
    files = record.info.get("methods", {}).values()
    defaults = {key: value for about in files for key, value in about["defaults"].items()}
    return StoredRun(
        id=record.folder.name,
        folder=record.folder,
        study=record.study.name,
        arm=arm_name(record.study, record.identity, defaults),
        seed=settings["seed"],
        data=printable(settings["dataset.label"]),
        preset=settings["preset"],
        config=config,
        identity=record.identity,
        result=result,
        # A class that was named in bytes which are no text has question marks.
        info=json.loads(json.dumps(info, ensure_ascii=False).encode(errors="replace")),
        code=commit + ("+" if repositories[0].get("dirty") else ""),
        asked=tuple(str(word) for word in record.run["meta"]["options"]["UPDATE"]),
        metrics=metrics,
        status=status,
        ended=str(record.run.get("stop_time") or ""),
    )


def read_metrics(folder: Folder) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (steps (K,) int64, values (K,) float64), of a run under way, too: what it has logged
    so far. Raises Unreadable."""
    try:
        stored = metrics_file.read(folder)
        metrics = {
            name: (np.array(m["steps"], np.int64), np.array(m["values"], np.float64))
            for name, m in stored.items()
        }
    except (OSError, *DAMAGED) as error:
        raise Unreadable(f"metrics.json cannot be read: {packed.reason(error)}") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"metrics.json is no whole JSON: {error}") from None
    except READ_ERRORS as error:
        raise Unreadable(f"metrics.json: {type(error).__name__}: {error}") from None
    if not metrics:
        raise Unreadable("metrics.json holds no metric")
    for name, (steps, values) in metrics.items():
        if steps.shape != values.shape or steps.ndim != 1 or not len(steps):
            raise Unreadable(f"{name}: {len(steps)} steps for {len(values)} values")
    return metrics


def _scores(folder: Folder, name: str) -> list[dict]:
    """A matrix of discriminators' scores; [] where there is none, or none that can be read: the
    figure of past fakes says which that was."""
    try:
        table = _csv(folder, name)
        whole = {"discriminator", "generator", "accuracy", "auc"} <= set(table.columns)
        return table.to_dict("records") if whole else []
    except READ_ERRORS:
        return []


def _by_name(path: Folder) -> list:
    return natural(path.name)


def run_folders(folder: Path) -> list[Folder]:
    """Of all that may be runs in the zips in `folder`, and then in itself, in the order of their
    ids. A zip without any stands for itself: what reads it as a run is told why."""
    if not folder.is_dir():
        return []
    found: list[Folder] = []
    for path in sorted(folder.glob(f"*{packed.SUFFIX}")):
        try:
            found += sorted(packed.runs_in(path), key=_by_name) if path.is_file() else []
        except Unreadable:
            found.append(path)
    return found + sorted((path.parent for path in folder.glob("*/run.json")), key=_by_name)


def stored_runs(*folders: str | Path) -> list[StoredRun]:
    """All completed runs in `folders`, as `runs_and_rest` finds them."""
    return runs_and_rest(*folders)[0]


def runs_and_rest(*folders: str | Path) -> tuple[list[StoredRun], Counter[str]]:
    """All completed runs in `folders`, one an identity; how many of other statuses.

    Of equal runs, on whichever device, the first folder's counts, and there the latest. What cannot
    be read is named and passed over; runs that are not complete are counted in one line.
    """
    found: dict[str, StoredRun] = {}
    left_out: Counter[str] = Counter()
    repeated = 0
    for folder in map(Path, folders):
        here: dict[str, StoredRun] = {}
        for path in run_folders(folder):
            try:
                status = read_record(path).status
                if status != "COMPLETED":
                    left_out[status.lower()] += 1
                    continue
                run = read_run(path)
            except Unreadable as error:
                print(f"passed over {printable(str(path))}: {error}", file=sys.stderr)
                continue
            key = on_any_device(run.identity)
            repeated += key in here
            here[key] = run
        found = {**here, **found}
    if left_out:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(left_out.items()))
        print(f"left out, not complete: {counts}", file=sys.stderr)
    if repeated:
        print(
            f"left out, since a later run is equal in settings and seed: {repeated}",
            file=sys.stderr,
        )
    return list(found.values()), left_out


def load_runs(*folders: str | Path) -> pd.DataFrame:
    """One row a logged value: run, study, data, preset, arm, unit, seed, metric, step, value.

    unit: what was drawn at random, the recording of opponents or else the seed.
    The runs are those of `stored_runs`; a run's id stands behind its folder's name where they lie
    in several folders or zips.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    runs = stored_runs(*folders)
    curves = [
        (run, name, steps, values) for run in runs for name, (steps, values) in run.metrics.items()
    ]
    lengths = [len(steps) for _, _, steps, _ in curves]

    def column(of_run) -> pd.Series:
        # As categories: one text a run and not one a row.
        codes, texts = pd.factorize(np.array([of_run(*curve) for curve in curves], object))
        return pd.Series(pd.Categorical.from_codes(np.repeat(codes, lengths), texts))

    several = len(folders) > 1 or len({str(run.folder.parent) for run in runs}) > 1
    return pd.DataFrame(
        {
            "run": column(lambda run, *_: str(run.folder).rstrip("/") if several else run.id),
            "study": column(lambda run, *_: run.study),
            "data": column(lambda run, *_: run.data),
            "preset": column(lambda run, *_: str(run.preset)),
            "arm": column(lambda run, *_: run.arm),
            "unit": column(lambda run, *_: run.unit),
            "seed": np.repeat(np.array([run.seed for run, *_ in curves], np.int64), lengths),
            "metric": column(lambda _, name, *__: name),
            "step": np.concatenate([np.empty(0, np.int64)] + [steps for _, _, steps, _ in curves]),
            "value": np.concatenate([np.empty(0)] + [values for *_, values in curves]),
        }
    )


def sample_grids(folder: Folder) -> list[Folder]:
    """Of a run's grids of samples, samples-<updates>.png, the first, the last and two between."""
    names = fnmatch.filter(packed.files_of(folder), "samples-*.png")
    grids = sorted((folder / name for name in names), key=_by_name)
    last = len(grids) - 1
    return [grids[i] for i in sorted({0, last // 3, 2 * last // 3, last})] if grids else []
