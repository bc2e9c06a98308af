"""What the text of an arm tells by itself, with no user's file read: for runs that are stored.

`Arm`, which does read them, is in forgetting/methods.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from forgetting.learner import Method
from forgetting.methods import PLAIN, Model, available, key_of
from forgetting.settings import Setting


def names(text: str | None, models: Mapping[str, Model]) -> list[str]:
    """The methods of an arm by name, those of its model among them; a file's is its stem."""
    words = [PurePath(w).stem if w.endswith(".py") else w for w in (text or PLAIN).split("+")]
    if models and words[0] in models:
        words[:1] = models[words[0]].methods
    return sorted({word for word in words if word != PLAIN})


def canonical(text: str, models: Mapping[str, Model]) -> str:
    """The same text for all ways to write an arm: `uncond+rotation` is `ssgan`."""
    first = text.split("+")[0]
    if models and first not in models:
        return text  # of another version of this program
    return key_of(first, set(names(text, models)), models)


def settings_of(text: str | None, models: Mapping[str, Model]) -> dict[str, Setting]:
    """The settings of an arm's built-in methods: {"ewc.weight": Setting, ...}."""
    built_in = [available()[name] for name in names(text, models) if name in available()]
    return {f"{m.name}.{key}": setting for m in built_in for key, setting in m.settings.items()}


def goes_by(setting: str, text: str | None, models: Mapping[str, Model]) -> bool:
    """Whether a method of the arm goes by a study's setting; a user's may go by any."""
    first = (text or "").split("+")[0]
    if models and first in models and setting in models[first].fixed:
        return False
    found = names(text, models)
    return any(n not in available() or setting in available()[n].uses for n in found)


def overrides(text: str | None, models: Mapping[str, Model]) -> dict[str, Any]:
    """The settings of the studies that an arm's built-in methods go with, and their values."""
    built_in = [available()[name] for name in names(text, models) if name in available()]
    return {key: value for method in built_in for key, value in method.overrides.items()}


def has_objective(text: str | None, models: Mapping[str, Model]) -> bool:
    """Whether an arm goes by the study's own objective; a user's method may replace it."""
    found = names(text, models)
    return not any(n in available() and available()[n].replaces for n in found)


def has_boundaries(text: str | None, models: Mapping[str, Model]) -> bool:
    """Whether a method of the arm does anything where a task ends; a user's may."""
    found = names(text, models)
    return any(
        n not in available() or available()[n].boundary is not Method.boundary for n in found
    )
