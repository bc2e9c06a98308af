"""What a method's class says of itself, checked as its file is read: nothing is passed over.

Every breach is one line, a `UserError` that begins with the file's name.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetting.errors import UserError
from forgetting.learner import PLAYERS, Method
from forgetting.names import meant
from forgetting.settings import Rule, Setting

HOOKS = ("setup", "draw", "extend", "loss", "after_objective", "after_backward", "after_step",
         "boundary", "evaluate")  # fmt: skip
_WAYS_IN = [name for name in (*vars(Method), *Method.__annotations__) if name[0] != "_"]
_TAKEN = {name for name, value in vars(Method).items() if inspect.isfunction(value)}
_TAKEN |= {"name", "settings", "uses", "players", "seed", "draws", "training"}


def require_whole(method: type[Method], path: Path) -> None:
    """UserError for what of it would never be called, or could not be gone by. path: its file's."""
    file = path.name
    for name, value in vars(method).items():
        hook = vars(Method).get(name)
        known = any(hasattr(base, name) for base in method.__mro__[1:]) or name in _WAYS_IN
        if not name.startswith("_") and not known:
            _require_helper(name, value, path)
        elif inspect.isfunction(value) and inspect.isfunction(hook):
            _require_parameters(name, value, hook, file)
    for name, example in (("uses", "rotation_weight"), ("players", "discriminator")):
        value = getattr(method, name)
        several = isinstance(value, tuple | list | set | frozenset)
        if not isinstance(value, property) and not (several and _all_texts(value)):
            raise UserError(f'{file}: {name} must be names, as in ("{example}",), not {value!r}')
    for player in () if isinstance(method.players, property) else method.players:
        if player not in PLAYERS:
            raise UserError(f"{file}: players: {_hint(player, PLAYERS, 'player')}")
    if not isinstance(method.overrides, Mapping):
        raise UserError(f"{file}: overrides must be settings and their values, as {{key: value}}")
    _require_settings(method.settings, file)


def require_known(method: type[Method], file: str, known: Mapping[str, Any]) -> None:
    """UserError unless all that it goes by, or goes with, is among the known settings."""
    for what in ("uses", "overrides"):
        value = getattr(method, what)
        for name in () if isinstance(value, property) else value:
            if name not in known:
                raise UserError(f"{file}: {what}: {_hint(name, known, 'setting of a study')}")


def _require_helper(name: str, value: Any, path: Path) -> None:
    near = meant(name, _WAYS_IN, cutoff=0.75)
    called = len(re.findall(rf"\b{name}\b", path.read_text(encoding="utf-8"))) > 1
    if near or (inspect.isfunction(value) and not called):
        raise UserError(
            f"{path.name}: {name} is nothing that a method has; {near or 'there are '}"
            f"{'' if near else ', '.join(HOOKS)} (the name of a helper begins with _)"
        )


def _require_parameters(name: str, value: Any, hook: Any, file: str) -> None:
    wanted = list(inspect.signature(hook).parameters)
    try:
        inspect.signature(value).bind(*wanted)
    except TypeError:
        has = ", ".join(inspect.signature(value).parameters)
        raise UserError(f"{file}: {name} must take ({', '.join(wanted)}), not ({has})") from None


def _require_settings(settings: Any, file: str) -> None:
    if not isinstance(settings, Mapping):
        raise UserError(f"{file}: settings must be {{name: Setting(default, rule, help)}}")
    for name, setting in settings.items():
        if name in _TAKEN:
            raise UserError(
                f"{file}: settings: {name} is a part of every method already; take another name"
            )
        if not isinstance(setting, Setting):
            raise UserError(
                f"{file}: settings: {name} must be a Setting(default, rule, help), not {setting!r}"
            )
        if not isinstance(setting.rule, Rule):
            hint = "; call it, as in number(at_least=0)" if callable(setting.rule) else ""
            raise UserError(
                f"{file}: settings: the rule of {name} must be one of forgetting/settings.py's"
                f"{hint}"
            )
        if callable(setting.default):  # it follows from other settings
            continue
        try:
            setting.rule.accept(setting.default)
        except (ValueError, TypeError):
            raise UserError(
                f"{file}: settings: {name} must be {setting.rule.wanted}, and its default is "
                f"{setting.default!r}"
            ) from None


def _all_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _hint(word: str, known: Mapping[str, Any], what: str) -> str:
    return f"{word} is no {what}; {meant(word, known) or 'there are ' + ', '.join(sorted(known))}"
