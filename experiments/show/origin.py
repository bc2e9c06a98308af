"""Where a figure or table comes from: the ids of its runs, and the commands that make them."""

import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

import pandas as pd

from experiments.run.stored import StoredRun
from experiments.run.study import studies

FILES = ("dataset.root=", "dataset.memory_mb=", "stream.recording=")  # where a run's lie


class Origin(NamedTuple):
    """Of one run. command: what makes it, for any seed."""

    name: str
    data: str
    preset: str
    arm: str
    seed: int
    code: str
    recording: str
    command: str


def origins(runs: Sequence[StoredRun]) -> list[Origin]:
    return [
        Origin(
            f"{run.collection}/{run.id}",
            run.data,
            str(run.preset),
            run.arm,
            run.seed,
            run.code,
            run.identity.get("recording") or "",
            of_any_seed(run),
        )
        for run in runs
    ]


def line(of: Collection[Origin]) -> str:
    """In one line: "From 2 runs: ...; preset cpu; seeds 0, 1; code 0123456789"."""
    data, presets, codes = (
        ", ".join(sorted({getattr(one, name) for one in of})) for name in ("data", "preset", "code")
    )
    seeds = ", ".join(map(str, sorted({one.seed for one in of})))
    runs = f"{len(of)} run{'s'[: len(of) - 1]}"
    return f"From {runs}: {data}; preset {presets}; seeds {seeds}; code {codes}"


def table(of: Collection[Origin]) -> pd.DataFrame:
    """A row for the runs of an arm that one command makes, by one version of the code."""
    alike: dict[tuple, list[Origin]] = {}
    for one in of:
        key = (one.data, one.preset, one.arm, one.code, one.command)
        alike.setdefault(key, []).append(one)
    rows = [
        {
            "runs": ", ".join(one.name for one in those),
            "data": those[0].data,
            "preset": those[0].preset,
            "arm": those[0].arm,
            "seeds": ", ".join(str(one.seed) for one in those),
            "code version": those[0].code,
            "recordings": ", ".join(one.recording for one in those if one.recording),
        }
        for those in alike.values()
    ]
    return pd.DataFrame(rows)


def commands(of: Collection[Origin]) -> str:
    """A line a command."""
    seeds: dict[str, set[int]] = {}
    for one in of:
        seeds.setdefault(one.command, set()).add(one.seed)
    return "\n".join(for_each(command, sorted(those)) for command, those in seeds.items())


def command_of(run: StoredRun) -> str:
    """The command line that makes a run, up to where it is stored, on another machine, too: with
    what was chosen by the kind of machine, and with what its preset had otherwise than today."""
    study = studies()[run.study]
    last = {key: run.config[key] for key in ("device", "precision", study.arm, "seed")}
    unsaid = study.incidental | last.keys()
    asked = {word.partition("=")[0]: word for word in run.asked}
    kept = [word for key, word in asked.items() if key not in unsaid]
    kept += [word for word in run.asked if word.startswith(FILES)]
    otherwise = study.chosen_otherwise(run.preset, run.identity)
    kept += [f"{k}={v}" for k, v in otherwise.items() if k not in asked.keys() | unsaid]
    if run.preset and run.preset not in kept:
        kept.insert(0, run.preset)
    kept += [f"{key}={value}" for key, value in last.items()]
    return f"python experiments/{run.study}.py with {shlex.join(kept)}"


def of_any_seed(run: StoredRun) -> str:
    """Its command without the seed, in which a recording of the seed's number is one of $seed."""
    name = run.info["recording"]["name"] if "recording" in run.identity else ""
    numbered = f"{name.removesuffix(str(run.seed))}$seed"
    command = re.sub(r" seed=\d+$", "", command_of(run))
    if numbered == f"{name}$seed" or shlex.quote(name) != name:
        return command
    return command.replace(f" stream.recording={name} ", f" stream.recording={numbered} ")


def for_each(command: str, seeds: Sequence[int]) -> str:
    """command: of `of_any_seed`."""
    if len(seeds) == 1:
        of_it = re.sub(r"( stream\.recording=\S*)\$seed ", rf"\g<1>{seeds[0]} ", command)
        return f"{of_it} seed={seeds[0]}"
    return f"for seed in {shlex.join(map(str, seeds))}; do {command} seed=$seed; done"
