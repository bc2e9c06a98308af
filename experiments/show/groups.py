"""Runs put together that differ in arm and seed alone."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.run.stored import StoredRun


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one study that differ in arm and seed alone."""

    runs: list[StoredRun]
    differs: str  # what tells it from other groups of the same data and preset, or ""

    @property
    def title(self) -> str:
        run = self.runs[0]
        return ", ".join(filter(None, [run.data, f"preset {run.preset}", self.differs]))

    def settings_but(self, keys: Iterable[str]) -> str:
        """The settings its runs share but `keys`, as one comparable text."""
        kept = {k: v for k, v in json.loads(self.runs[0].settings).items() if k not in keys}
        return json.dumps(kept, sort_keys=True)

    def readable_settings(self, but: Iterable[str]) -> dict:
        """The same as a dictionary, the data's as dataset.name and so on."""
        return _readable(json.loads(self.settings_but(but)))

    def arms(self) -> list[str]:
        return list(dict.fromkeys(run.arm for run in self.runs))

    def of_arm(self, arm: str) -> list[StoredRun]:
        """The arm's runs by seed."""
        return sorted((run for run in self.runs if run.arm == arm), key=lambda run: run.seed)


def groups(runs: Iterable[StoredRun], study: str) -> list[Group]:
    """The runs of one study, put together where they differ in arm and seed alone."""
    by_settings: dict[str, list[StoredRun]] = {}
    for run in runs:
        if run.study == study:
            by_settings.setdefault(run.settings, []).append(run)
    result = []
    for key, members in by_settings.items():
        kin = [
            json.loads(other)
            for other, those in by_settings.items()
            if (those[0].data, those[0].preset) == (members[0].data, members[0].preset)
        ]
        own = _readable(json.loads(key))
        kin = [_readable(other) for other in kin]
        differing = [k for k in own if any(other.get(k) != own[k] for other in kin)]
        # What a reader can choose says more than what follows from it.
        chosen = [k for k in differing if k not in ("dataset.fingerprint", "extractor")]
        result.append(Group(members, ", ".join(f"{k}={own[k]}" for k in chosen or differing)))
    return result


def _readable(settings: dict) -> dict:
    """Settings with those of the data written as on the command line."""
    data = {f"dataset.{k}": v for k, v in settings.get("dataset", {}).items()}
    return {k: v for k, v in settings.items() if k != "dataset"} | data
