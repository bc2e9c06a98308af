"""What a plan asks for, and what is stored of it already.

A plan is a TOML file of a study, [settings] that all its runs share and a [grid] of values to
combine, or several [[grid]], one after another; the project's own are in experiments/sweeps/plans/.
What its runs are to show is read by claims.py.
"""

import functools
import itertools
import os
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.run.study import studies
from experiments.sweeps.claims import PLANS, claims_of
from forgetting.errors import UserError
from forgetting.settings import flat, word

ELSEWHERE = "running elsewhere"
PRESETS = ("quick", "cpu", "paper")


@dataclass(frozen=True)
class Planned:
    """One run of a plan: what follows `with` on its command line, and what is stored of it."""

    study: str
    words: tuple[str, ...]
    name: str  # of the words, those that tell it from the plan's other runs
    id: str | None  # of a stored run with these settings
    state: str  # to do, unfinished, failed, running elsewhere or complete
    seconds_left: float | None  # as runs of its kind took; None: there is none to tell
    elsewhere: bool  # whether those ran on another machine: they were shipped with the project

    @property
    def to_do(self) -> bool:
        return self.state != "complete"


def read_plan(name: str) -> tuple[str, list[tuple[str, ...]]]:
    """The study of a plan, and KEY=VALUE words for each of its runs, the last key varying fastest.

    name: of a plan of the project, or a path. Raises UserError with one line.
    """
    named = {path.stem: path for path in sorted(PLANS.glob("*.toml"))}
    path = named.get(name, Path(name))
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"PLAN: there is no plan {name} ({error.strerror}); there are {', '.join(named)}, or "
            f"name a file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"PLAN: {path} is no TOML file: {error}") from None
    unknown = plan.keys() - {"study", "grid", "settings", "family", "claims"}
    if unknown:
        raise UserError(
            f"PLAN: {path} has {sorted(unknown)[0]!r}; it holds study, [grid], [settings], "
            "family, [[claims]]"
        )
    if plan.get("study") not in studies():
        raise UserError(f"PLAN: study in {path} must be {' or '.join(studies())}")
    settings, grids = plan.get("settings", {}), plan.get("grid", {})
    grids = grids if isinstance(grids, list) else [grids]
    for name, part in (("settings", settings), *(("grid", grid) for grid in grids)):
        if not isinstance(part, dict):
            raise UserError(f"PLAN: [{name}] of {path} must hold settings")
    claims_of(plan, str(path))
    runs = [run for grid in grids for run in _combined(settings, grid, path)]
    return plan["study"], list(dict.fromkeys(runs))


def arms_of(study: str, all_words: Sequence[tuple[str, ...]]) -> set[str]:
    """The arms of planned runs, as they are written."""
    of, found = studies()[study], set()
    for words in all_words:
        given = [word.partition("=")[2] for word in words if key_of(word) == of.arm]
        found |= {given[-1]} if given else set(of.default_arms)
    return found


def _combined(settings: dict, grid: dict, path: Path) -> list[tuple[str, ...]]:
    """The words of every run of a grid."""
    axes = [[_words(settings)]]
    for key, values in flat(grid).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"PLAN: {key} in [grid] of {path} must be a list of values")
        axes.append([_words(v if isinstance(v, dict) else {key: v}) for v in values])
    keys = [{key_of(word) for words in axis for word in words} for axis in axes]
    for key, times in Counter(key for axis in keys for key in axis).items():
        if times > 1:
            raise UserError(f"PLAN: {path} sets {key} in two places")
    return [tuple(itertools.chain(*parts)) for parts in itertools.product(*axes)]


def _words(settings: dict) -> tuple[str, ...]:
    return tuple(word_of(key, value) for key, value in flat(settings).items())


def key_of(word: str) -> str:
    return word.partition("=")[0].strip()


def word_of(key: str, value) -> str:
    """KEY=VALUE as the command line reads it; where a path leads must not depend on the folder a
    worker was started in. Raises UserError for what a sweep sets itself."""
    if key in ("results_dir", "resume", "stop_after"):
        raise UserError(f"{key}: a sweep sets it itself")
    if key == "preset":
        raise UserError("preset: choose one by --preset")
    if key == "dataset.root":
        value = os.path.abspath(os.path.expanduser(str(value)))
    return word(key, value)


def look_up(
    study: str, all_words: Sequence[tuple[str, ...]], folder: Path, elsewhere: bool
) -> list[Planned]:
    """The planned runs, each with what is stored of it in `folder`. elsewhere: they will not be on
    this machine. Raises UserError for settings that will not do, before anything starts."""
    from experiments.run import runner, twins  # PyTorch, only where plans are looked up
    from forgetting import data

    load = functools.cache(data.load)  # once for all runs
    known, asked = [], []
    chosen: tuple[str, ...] = ()
    for words in all_words:
        named = any(word.startswith("dataset.name=") for word in words)
        words = words if named else (*words, *chosen)
        here = [*words, f"results_dir={folder}"]
        run = runner.known(studies()[study], here, load, elsewhere)
        if run.data and not named:  # auto is looked up once, and is the same for every worker
            chosen = (f"dataset.name={run.data}",)
            words = (*words, *chosen)
        if (run.kind, run.seed) in {(other.kind, other.seed) for other in known}:
            continue  # the same run in other words
        asked.append(words)
        known.append(run)
    # A run takes as long as those of the same settings but the seed, else of the same arm, else as
    # one of the same settings that is shipped with the project.
    took: dict[tuple, list[float]] = {}
    for run in known:
        if run.seconds is not None:
            for kind in (run.kind, run.arm):
                took.setdefault(kind, []).append(run.seconds)
    states = {None: "to do", "COMPLETED": "complete", "FAILED": "failed", twins.HELD: ELSEWHERE}
    shared = _shared(asked)
    planned = []
    for words, run in zip(asked, known, strict=True):
        alike = took.get(run.kind) or took.get(run.arm)
        shipped = None if alike else run.shipped_seconds
        left = None
        if run.status == "COMPLETED":
            left = 0.0
        elif alike or shipped:
            left = (shipped or sum(alike) / len(alike)) * (1 - run.done)
        name = " ".join(word for word in words if word not in shared)
        state = states.get(run.status, "unfinished")
        planned.append(Planned(study, words, name, run.id, state, left, bool(shipped)))
    return planned


def show(runs: Sequence[Planned], workers: int) -> None:
    """A line a run with what tells it from the others, then the counts and an estimate."""
    shared = _shared([run.words for run in runs])
    print(runs[0].study + (f", all with: {' '.join(shared)}" if shared else ""))
    for run in runs:
        print(f"{run.state:<17} {run.id or '-':<5} {run.name}")
    print(summary(runs))
    to_do = [run for run in runs if run.to_do]
    lengths = [run.seconds_left for run in to_do]
    known = [length for length in lengths if length is not None]
    if lengths:
        text = "unknown: no complete run of the kind yet"
        if known:
            text = duration(max(max(known), sum(known) / workers))
        unknown = len(lengths) - len(known)
        more = f", and {unknown} runs of unknown length" if known and unknown else ""
        if any(run.elsewhere for run in to_do):
            more += "; by the runs shipped with the project, which another machine made"
        print(f"time left with {workers} at once: {text}{more}")


def _shared(all_words: Sequence[tuple[str, ...]]) -> list[str]:
    """The words that all of several runs have; none where there is one."""
    several = len(all_words) > 1
    return [w for w in all_words[0] if several and all(w in words for words in all_words)]


def summary(runs: Sequence[Planned]) -> str:
    counts = Counter(run.state for run in runs)
    kinds = ["complete", "unfinished", "to do"]
    kinds += [kind for kind in ("failed", ELSEWHERE) if counts[kind]]
    return f"{len(runs)} runs: " + ", ".join(f"{counts[kind]} {kind}" for kind in kinds)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
