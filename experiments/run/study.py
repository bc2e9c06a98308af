"""What the runner, the sweeps and the figures need to know of a study."""

import importlib
import importlib.util
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sacred import SETTINGS, Experiment

from experiments import PROJECT
from forgetting.arms import names
from forgetting.declared import require_known
from forgetting.errors import UserError
from forgetting.methods import Arm, Model, available, overridable, parse
from forgetting.settings import Setting, check_key, overridden

__all__ = ["Experiment", "Study", "has_code_version", "require_own_code", "studies"]

# File descriptors would be captured from the progress bar, too; and the code version is git's.
SETTINGS.CAPTURE_MODE = "sys"
SETTINGS.DISCOVER_SOURCES = "none"


ARMS = {"method", "model"}  # the settings by which studies name an arm


@dataclass(frozen=True)
class Study:
    """experiment: Sacred's, told of the settings; `name` is its, and the script's that runs it.
    arm: the setting that names a run's arm; unset, each of `default_arms` becomes a run.
    check(settings, dataset): raises UserError where settings and data do not fit each other.
    build(settings, dataset, device, autocast, fresh): the study, ready to step; fresh: or else to
    be given a checkpoint's state. With to_train=False, where there are commands, as much of it as
    they need.
    updates(settings, dataset): how many there are in a run.
    widest(settings): the most channels of a net that a run trains.
    presets: name -> (one line of words, flat values, some of them functions of what was asked
    for).
    least_classes: 1 where images without labels (one class folder) will do.
    commands: name -> function(study, folder of the run) -> a line to print, for a stored run.
    for_all: command -> function(record of a stored run) -> whether it is for that; where no run is
    named, it goes over all of those.
    facts(settings): what tells the files that settings name, of `identity.FACTS`.
    parse: what an arm's text means; models: what it has to begin with, where there are such.
    """

    experiment: Experiment
    arm: str
    default_arms: Sequence[str]
    settings: Mapping[str, Setting]
    check: Callable[[Mapping[str, Any], Any], None]
    build: Callable[..., Any]
    updates: Callable[[Mapping[str, Any], Any], int]
    least_classes: int = 2
    parse: Callable[[str], Arm] = parse
    models: Mapping[str, Model] = field(default_factory=dict)
    commands: Mapping[str, Callable[[Any, Path], str]] = field(default_factory=dict)
    for_all: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    facts: Callable[[Mapping[str, Any]], dict[str, str]] = lambda settings: {}
    presets: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    widest: Callable[[Mapping[str, Any]], int] = lambda settings: settings["width"]

    @property
    def name(self) -> str:
        return self.experiment.path

    @property
    def incidental(self) -> set[str]:
        """The settings that only say how, where or by which name a run proceeds."""
        return {key for key, setting in self.settings.items() if setting.incidental}

    def chosen_by(self, preset: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a preset sets, flat, beside what was asked for; nothing where there is no such."""
        _, values = self.presets.get(preset, ("", {}))
        return {k: value(asked) if callable(value) else value for k, value in values.items()}

    def chosen_otherwise(self, preset: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of what a preset sets what a run's settings have otherwise: presets change."""
        usual = self.chosen_by(preset, settings)
        return {k: settings[k] for k in usual if k in settings and settings[k] != usual[k]}

    def table(self, arm: str | None) -> dict[str, Setting]:
        """The settings that a run of this arm has: with those of its methods, and with the
        defaults that these go with. Raises UserError for what is no arm."""
        if not arm:
            return dict(self.settings)
        of_arm = self.parse(arm)
        users = {file.name for file in of_arm.files}
        for method in (one for one in of_arm.methods if one.name in users):
            known = {key: None for study in studies().values() for key in study.settings}
            require_known(method, f"{method.name}.py", known)
        return {**overridden(self.settings, of_arm.overrides), **of_arm.settings}

    def explicit(
        self, settings: Mapping[str, Any], typed: Mapping[str, Any], preset: bool
    ) -> Mapping[str, Any]:
        """Of all settings those that were asked for: what was typed, and with a preset the others,
        too, but what an arm may go with where none is named."""
        left = set() if settings[self.arm] else overridable()
        rest = {key: value for key, value in settings.items() if key not in left}
        return {**rest, **typed} if preset else typed

    def require_known(self, key: str, arm: str | None) -> None:
        """Raise UserError, in a line that helps, where a run of this arm has no such setting."""
        table, method = self.table(arm if isinstance(arm, str) else None), key.partition(".")[0]
        if key in ARMS - {self.arm}:
            here = f"{self.arm}={self.default_arms[-1]}"
            raise UserError(f"{key}: in {self.name} it is {self.arm}, as in {here}")
        if method in available() and not any(k.startswith(f"{method}.") for k in table):
            if isinstance(arm, str) and method in names(arm, self.models):
                by = ", ".join(available()[method].uses) or "none"
                raise UserError(f"{key}: no such setting; of the study's, {method} goes by {by}")
            raise UserError(
                f"{key}: {method} is no part of {arm or 'the arms'}; add it, as in "
                f"{self.arm}={arm or self.default_arms[0]}+{method}"
            )
        check_key(key, table)

    def own_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of flat settings those of the arm's methods."""
        return {key: value for key, value in settings.items() if key not in self.settings}


def studies() -> dict[str, Study]:
    """Name -> study, of all there are."""
    names = ("sequential_tasks", "gan_probe")
    return {name: importlib.import_module(f"experiments.{name}").STUDY for name in names}


def has_code_version() -> bool:
    """Whether git can tell the project's commit, and not that of a repository around it which does
    not hold it. Where it cannot, Sacred must not ask."""
    here = f"HEAD:./{Path(__file__).relative_to(PROJECT).as_posix()}"
    try:
        asked = subprocess.run(
            ["git", "-C", str(PROJECT), "cat-file", "-e", here], capture_output=True
        )
    except OSError:
        return False
    return asked.returncode == 0


def require_own_code(script: str | Path) -> None:
    """UserError where `script`, whose commit a run records, would run another checkout's code."""
    project = Path(script).resolve().parents[1]
    for package in ("experiments", "forgetting", "gan"):
        found = Path(importlib.util.find_spec(package).origin).resolve().parents[1]
        if found != project:
            raise UserError(
                f"this is {project}, and Python takes {package} from {found}: use the environment "
                f"of {project} (make setup), or put PYTHONPATH={shlex.quote(str(project))} before "
                f"the command"
            )
