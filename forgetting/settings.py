"""What each setting may be: one rule a key, and one clear line when it is broken."""

import ast
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from forgetting.errors import UserError
from forgetting.names import meant


@dataclass(frozen=True)
class Rule:
    """`wanted` in words; `accept` returns the value to use or raises ValueError."""

    wanted: str
    accept: Callable[[Any], Any]


def _always(settings: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Setting:
    """All that is to be said of a setting.

    default: its value, or a function of the other settings that it follows from, of those that do
    not follow themselves.
    help: one line for print_config.
    used: whether a run of these settings computes from it; else it is no part of the run.
    of_arm: whether it is the arm's own, which is named by it where it is not the default.
    incidental: whether it only says how, where or by which name a run proceeds.
    """

    default: Any
    rule: Rule
    help: str
    used: Callable[[Mapping[str, Any]], bool] = _always
    of_arm: bool = False
    incidental: bool = False

    def default_in(self, settings: Mapping[str, Any]) -> Any:
        """The default beside these other settings."""
        return self.default(settings) if callable(self.default) else self.default


LARGEST = 10**9  # beyond it lies a slip of the keyboard


def integer(at_least: int, at_most: int = LARGEST) -> Rule:
    def accept(value):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if not at_least <= value <= at_most:
            raise ValueError
        return value

    return Rule(f"a whole number from {at_least} to {at_most}", accept)


def number(above: float | None = None, at_least: float | None = None) -> Rule:
    words = "a number"
    if above is not None:
        words += f" above {above:g}"
    elif at_least is not None:
        words += f", {at_least:g} or more"

    def accept(value):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        value = float(value)
        inside = above is None or value > above
        inside &= at_least is None or value >= at_least
        if not inside or not math.isfinite(value):
            raise ValueError
        return value

    return Rule(words, accept)


def share(above: float | None = None) -> Rule:
    """A number from 0, or above `above`, to 1."""
    rule = number(above=above, at_least=0)

    def accept(value):
        value = rule.accept(value)
        if value > 1:
            raise ValueError
        return value

    lowest = "from 0" if above is None else f"above {above:g} and up"
    return Rule(f"a number {lowest} to 1", accept)


def boolean() -> Rule:
    def accept(value):
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Rule("True or False", accept)


def choice(*options: str) -> Rule:
    def accept(value):
        if value not in options:
            raise ValueError
        return value

    return Rule(" or ".join([", ".join(options[:-1]), options[-1]]), accept)


def path() -> Rule:
    """A text, with ~ made the user's home: a shell does not do that behind a =."""

    def accept(value):
        return os.path.expanduser(text().accept(value))

    return Rule("a path", accept)


class ReadAsNumber(ValueError):
    """A text was asked for, and what was typed is read as a number or a word of Python."""


def text() -> Rule:
    def accept(value):
        if value is None or isinstance(value, bool | int | float):
            raise ReadAsNumber
        if not isinstance(value, str) or not value:
            raise ValueError
        return value

    return Rule("text", accept)


def optional(rule: Rule, unset: str) -> Rule:
    """The same rule, or None, which means `unset`."""

    def accept(value):
        return None if value is None else rule.accept(value)

    return Rule(f"{rule.wanted}, or None ({unset})", accept)


def adam_betas() -> Rule:
    def accept(value):
        first, second = value
        for beta in (first, second):
            if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 <= beta < 1:
                raise ValueError
        return [float(first), float(second)]

    return Rule("two numbers from 0 up to, not including, 1, as [0.9,0.999]", accept)


def duration() -> Rule:
    def accept(value):
        seconds(value)
        return str(value)

    return Rule("a length of time as 90s, 10m or 2h", accept)


def seconds(value: str | int) -> float:
    """The length of time '90s', '10m', '2h' or a plain number of seconds, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
    if not match or float(match[1]) <= 0 or isinstance(value, bool):
        raise ValueError
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def run_id() -> Rule:
    def accept(value):
        if isinstance(value, bool) or not re.fullmatch(r"[\w-]+", str(value)):
            raise ValueError
        return str(value)

    return Rule("the id of a run or auto", accept)


def word(key: str, value: Any) -> str:
    """KEY=VALUE as the command line reads it."""
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError):
            ast.literal_eval(value)  # a text that would be read as a number, say
            value = repr(value)
    return f"{key}={value}"


def flat(settings: Mapping) -> dict[str, Any]:
    """{"dataset": {"name": x}} -> {"dataset.name": x}."""
    result = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            result |= {f"{key}.{inner}": v for inner, v in flat(value).items()}
        else:
            result[key] = value
    return result


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, last = key.split(".")
        inner = result
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return result


def with_defaults(given: Mapping[str, Any], table: Mapping[str, Setting]) -> dict[str, Any]:
    """Flat settings -> the same with every other setting of the table at its default."""
    settings = {k: setting.default for k, setting in table.items()} | dict(given)
    for key in table.keys() - given.keys():
        settings[key] = table[key].default_in(settings)
    return settings


def overridden(table: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Setting]:
    """The same table, with other defaults for those of `values` that it has."""
    others = {key: replace(table[key], default=values[key]) for key in values if key in table}
    return {**table, **others}


def check_key(key: str, table: Mapping[str, Setting]) -> None:
    """Raise UserError unless there is a setting of that name."""
    if key in table:
        return
    members = [name for name in table if name.startswith(f"{key}.")]
    if members:
        raise UserError(f"{key}: is a group of settings; set one of {', '.join(members)}")
    hint = meant(key, table) or "print_config lists the settings"
    raise UserError(f"{key}: no such setting; {hint}")


def validate(
    settings: Mapping[str, Any], table: Mapping[str, Setting], words: Sequence[str] = ()
) -> dict[str, Any]:
    """Flat settings -> the same with every value as its rule wants it; UserError otherwise.

    words: KEY=VALUE as they were typed, for a hint: 2024_01 is read as 202401.
    """
    checked = {}
    for key, value in settings.items():
        check_key(key, table)
        rule = table[key].rule
        try:
            checked[key] = rule.accept(value)
        except ReadAsNumber:
            typed = {word.partition("=")[0].strip(): word.partition("=")[2] for word in words}
            shown = typed.get(key, f"{value}").strip()
            raise UserError(
                f"{key}: it must be {rule.wanted}, and {shown} is read as a number or word "
                f"of Python; quote it twice, as in \"{key}='{shown}'\""
            ) from None
        except (ValueError, TypeError, OverflowError):
            hint = ""
            if (
                value
                and isinstance(value, list | tuple)
                and all(_accepts(rule, part) for part in value)
            ):
                hint = "; a run has one of them, and the grid of a plan several (docs/sweeps.md)"
            raise UserError(f"{key}: it must be {rule.wanted}, not {value!r}{hint}") from None
    return checked


def _accepts(rule: Rule, value: Any) -> bool:
    with suppress(ValueError, TypeError, OverflowError):
        rule.accept(value)
        return True
    return False
