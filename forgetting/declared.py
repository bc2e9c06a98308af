"""What a method's class says of itself, checked as its file is read: nothing is passed over.

Every breach is one line, a `UserError` that begins with the file's name.
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from forgetting.errors import UserError
from forgetting.learner import PLAYERS, Method
from forgetting.settings import Rule, Setting

HOOKS = ("setup", "draw", "extend", "loss", "after_objective", "after_backward", "after_step",
         "boundary", "evaluate")  # fmt: skip
_WAYS_IN = [name for name in (*vars(Method), *Method.__annotations__) if name[0] != "_"]


def require_whole(method: type[Method], file: str, text: str) -> None:
    """UserError for what of it would never be called, or could not be gone by. text: the file's."""
    if "__init__" in vars(method):
        raise UserError(
            f"{file}: a method has no __init__ of its own; what it keeps is made in setup"
        )
    for name, value in vars(method).items():
        meant = next((vars(base)[name] for base in method.__mro__[1:] if name in vars(base)), None)
        if not name.startswith("_") and name not in _WAYS_IN and meant is None:
            _require_helper(name, value, file, text)
        elif inspect.isfunction(value) and inspect.isfunction(meant):
            _require_parameters(name, value, meant, file)
    for name in ("uses", "players"):
        value = getattr(method, name)
        if not isinstance(value, tuple | list) or not all(isinstance(v, str) for v in value):
            raise UserError(f'{file}: {name} must be names, as in ("{value}",), not {value!r}')
    for player in method.players:
        if player not in PLAYERS:
            raise UserError(f"{file}: players: {_near(player, PLAYERS)}")
    if not isinstance(method.overrides, Mapping):
        raise UserError(f"{file}: overrides must be settings and their values, as {{key: value}}")
    _require_settings(method.settings, file)


def require_known(method: type[Method], file: str, known: Mapping[str, Any]) -> None:
    """UserError unless all that it goes by, or goes with, is among the known settings."""
    for what in ("uses", "overrides"):
        for name in getattr(method, what):
            if name not in known:
                raise UserError(f"{file}: {what}: {_near(name, known, 'setting of a study')}")


def _require_helper(name: str, value: Any, file: str, text: str) -> None:
    near = difflib.get_close_matches(name, _WAYS_IN, n=1, cutoff=0.75)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(HOOKS)}"
    if near or (inspect.isfunction(value) and not re.search(rf"\.{name}\b", text)):
        raise UserError(
            f"{file}: {name} is nothing that a method has; {meant} (the name of a helper begins "
            f"with _)"
        )


def _require_parameters(name: str, value: Any, meant: Any, file: str) -> None:
    wanted = list(inspect.signature(meant).parameters)
    try:
        inspect.signature(value).bind(*wanted)
    except TypeError:
        has = ", ".join(inspect.signature(value).parameters)
        raise UserError(f"{file}: {name} must take ({', '.join(wanted)}), not ({has})") from None


def _require_settings(settings: Any, file: str) -> None:
    if not isinstance(settings, Mapping):
        raise UserError(f"{file}: settings must be {{name: Setting(default, rule, help)}}")
    for name, setting in settings.items():
        if hasattr(Method, name) or name in (*Method.__annotations__, "seed", "draws"):
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
        try:
            setting.rule.accept(setting.default)
        except (ValueError, TypeError):
            raise UserError(
                f"{file}: settings: {name} must be {setting.rule.wanted}, and its default is "
                f"{setting.default!r}"
            ) from None


def _near(word: str, names: Mapping[str, Any], what: str = "player") -> str:
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
    return f"{word} is no {what}; {hint}"
