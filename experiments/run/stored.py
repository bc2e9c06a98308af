"""Stored runs, read: the one place that knows how a run's folder is laid out."""

import functools
import json
import re
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from forgetting.measures import Logged, of_run

# A run tells its study by the setting that names its arm: Sacred's --name may change its name.
ARM_SETTING = {"sequential_tasks": "method", "gan_probe": "model"}
# They do not change what a run computes, so runs that differ in them alone belong together.
INCIDENTAL = ("results_dir", "checkpoint_every", "resume", "stop_after", "seed")
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class StoredRun:
    """One completed run. `metrics`: name -> (steps (K,) int64, values (K,) float64).

    code: the commit it came from, with a + where files were changed. asked: what followed `with` on
    the command line.
    """

    id: str
    folder: Path
    study: str
    arm: str
    seed: int
    data: str
    preset: str
    config: dict
    result: dict
    info: dict
    code: str
    asked: tuple[str, ...]
    metrics: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)

    @functools.cached_property
    def settings(self) -> str:
        """All that the run computes from but arm and seed, as one comparable text."""
        kept = {k: v for k, v in self.config.items() if k not in INCIDENTAL}
        kept["dataset"] = {
            k: v for k, v in kept["dataset"].items() if k not in ("root", "memory_mb")
        }
        kept["dataset"]["fingerprint"] = self.info["data"]["fingerprint"]
        kept["extractor"] = self.info.get("extractor_sha256", self.info.get("extractor"))
        del kept[ARM_SETTING[self.study]]
        if kept.get("regularizer") == "spectral_norm":
            del kept["gradient_penalty_weight"]  # of no effect
        return json.dumps({"study": self.study, **kept}, sort_keys=True)

    def table(self, name: str) -> pd.DataFrame:
        """A CSV file that the study kept with the run. Raises OSError or ValueError."""
        return _csv(self.folder / name)

    @property
    def command(self) -> str:
        """The command line that makes this run, up to where it is stored, on another machine, too:
        with what was chosen by the kind of machine."""
        arm, by_machine = ARM_SETTING[self.study], ("device", "precision")
        own = [f"{key}=" for key in (arm, *by_machine, *INCIDENTAL)]
        words = [word for word in self.asked if not word.startswith(tuple(own))]
        if self.preset and self.preset not in words:
            words.insert(0, self.preset)
        words += [f"{key}={self.config[key]}" for key in by_machine]
        words += [f"{arm}={self.arm}", f"seed={self.seed}"]
        return f"python experiments/{self.study}.py with {shlex.join(words)}"


@functools.cache
def _csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def stored_runs(*folders: str | Path) -> list[StoredRun]:
    """All completed runs in `folders`, as `runs_and_rest` finds them."""
    return runs_and_rest(*folders)[0]


def runs_and_rest(*folders: str | Path) -> tuple[list[StoredRun], Counter[str]]:
    """All completed runs in `folders`, one a setting, arm and seed; how many of other statuses.

    Of equal runs the first folder's counts, and there the latest. A folder that cannot be read is
    named and passed over; runs that are not complete are counted in one line.
    """
    found: dict[tuple, StoredRun] = {}
    left_out: Counter[str] = Counter()
    repeated = 0
    for folder in map(Path, folders):
        here: dict[tuple, StoredRun] = {}
        runs = [p.parent for p in folder.glob("*/run.json")] if folder.is_dir() else []
        for path in sorted(runs, key=_natural):
            try:
                status = json.loads((path / "run.json").read_text())["status"]
                if status != "COMPLETED":
                    left_out[str(status).lower()] += 1
                    continue
                run = read_run(path)
            except READ_ERRORS as error:
                print(f"passed over {path}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            repeated += (run.settings, run.arm, run.seed) in here
            here[run.settings, run.arm, run.seed] = run
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
    """One row a logged value: run, study, data, preset, arm, seed, metric, step, value.

    The runs are those of `stored_runs`; a run's id stands behind its folder's name where several
    folders are given.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    curves = [
        (run, name, steps, values)
        for run in stored_runs(*folders)
        for name, (steps, values) in run.metrics.items()
    ]
    lengths = [len(steps) for _, _, steps, _ in curves]

    def column(of_run) -> pd.Series:
        # As categories: one text a run and not one a row.
        codes, texts = pd.factorize(np.array([of_run(*curve) for curve in curves], object))
        return pd.Series(pd.Categorical.from_codes(np.repeat(codes, lengths), texts))

    several = len(folders) > 1
    return pd.DataFrame(
        {
            "run": column(lambda run, *_: str(run.folder) if several else run.id),
            "study": column(lambda run, *_: run.study),
            "data": column(lambda run, *_: run.data),
            "preset": column(lambda run, *_: str(run.preset)),
            "arm": column(lambda run, *_: run.arm),
            "seed": np.repeat(np.array([run.seed for run, *_ in curves], np.int64), lengths),
            "metric": column(lambda _, name, *__: name),
            "step": np.concatenate([np.empty(0, np.int64)] + [steps for _, _, steps, _ in curves]),
            "value": np.concatenate([np.empty(0)] + [values for *_, values in curves]),
        }
    )


def read_run(path: Path) -> StoredRun:
    record = json.loads((path / "run.json").read_text())
    config = json.loads((path / "config.json").read_text())
    info = json.loads((path / "info.json").read_text())
    logged = json.loads((path / "metrics.json").read_text())
    metrics = {
        name: (np.array(m["steps"], np.int64), np.array(m["values"], np.float64))
        for name, m in logged.items()
    }
    for name, (steps, values) in metrics.items():
        if steps.shape != values.shape or steps.ndim != 1 or not len(steps):
            raise ValueError(f"{name}: {len(steps)} steps for {len(values)} values")
    (study,) = (study for study, arm in ARM_SETTING.items() if arm in config)
    repositories = record["experiment"].get("repositories") or [{}]
    commit = (repositories[0].get("commit") or "unknown")[:10]
    run = StoredRun(
        id=path.name,
        folder=path,
        study=study,
        arm=config[ARM_SETTING[study]],
        seed=config["seed"],
        data=config["dataset"]["label"],
        preset=config["preset"],
        config=config,
        result=record["result"] | of_run(Logged(metrics, config, _past_fakes(path))),
        info=info,
        code=commit + ("+" if repositories[0].get("dirty") else ""),
        asked=tuple(str(word) for word in record["meta"]["options"]["UPDATE"]),
        metrics=metrics,
    )
    run.settings  # noqa: B018  what it is made of must be there
    if not (type(run.seed) is int and isinstance(run.arm, str)):
        raise TypeError("seed or arm is not what this program writes")
    return run


def _past_fakes(path: Path) -> list[dict]:
    """The matrix of past fakes; [] where there is none, or none that can be read: the figure of it
    says which that was."""
    try:
        table = _csv(path / "past_fakes.csv")
        whole = {"discriminator", "generator", "accuracy", "auc"} <= set(table.columns)
        return table.to_dict("records") if whole else []
    except READ_ERRORS:
        return []


def _natural(path: Path) -> list:
    """Sort key by which run 10 comes after run 9."""
    return [(int(x), "") if x.isdigit() else (0, x) for x in re.split(r"(\d+)", path.name)]


def sample_grids(folder: Path) -> list[Path]:
    """Of a run's grids of samples, samples-<updates>.png, the first, the last and two between."""
    grids = sorted(folder.glob("samples-*.png"), key=_natural)
    last = len(grids) - 1
    return [grids[i] for i in sorted({0, last // 3, 2 * last // 3, last})] if grids else []
