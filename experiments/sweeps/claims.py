"""What a plan's runs are to show, said beforehand: its claims.

A plan declares them beside its grid, each a measure of an arm against a baseline, or, without one,
against zero; those of plans that name the same `family` are corrected together. `make figures`
judges those of the plans in `plans/`, and of others those that a sweep kept beside its runs
(kept.py):

    family = "the paper's"

    [[claims]]
    words = "rotation's last cycle minus first is above vanilla's"
    measure = "cycle_gain"      # or a subject of measures: distance, a claim each
    arm = "rotation"
    baseline = "vanilla"
    expected = "above"          # or below, not above, not below, equivalent
    settings = { width = 32 }   # if wanted: beside the plan's, of which runs it is
    smallest = 0.02             # if wanted: the smallest effect of interest

An arm is written as in the grid, `./my_idea.py` among them; settings of a method's that are not the
default stand behind it, as in `ewc(weight=10.0)`. An undecided claim whose interval holds no effect
as large as `smallest` is called equivalent. Where that is what is expected, the claim is confirmed
by it, whether or not zero lies within, and a difference that is shown, and may be as large, is
against it. In place of arm and baseline a claim may have terms, whose weighted sum is compared with
zero:

    terms = [
        { weight = 1, arm = "rotation", settings = { width = 64 } },
        { weight = -1, arm = "rotation", settings = { width = 16 } },
    ]
"""

import ast
import functools
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.run.identity import identity
from experiments.run.study import Study, studies
from forgetting.arms import canonical, names, settings_of
from forgetting.errors import UserError
from forgetting.measures import HALF_LIFE, KEPT, MEMORY, REMEMBERED, SAVINGS, SHARE, is_name
from forgetting.measures import names as measures_names
from forgetting.methods import available
from forgetting.names import meant
from forgetting.settings import Setting, flat, validate

PLANS = Path(__file__).resolve().with_name("plans")
HASH = r"@[0-9a-f]{4}"  # behind a user's file in an arm's name
EQUIVALENT = "equivalent"
# Measure, or subject of some -> the setting in which a run and its twins differ, by which it is
# measured, its value in one of them, and all as a grid has them.
OMITS = (
    "stream.omit",
    "[]",
    "[[], [1, 5], [2, 6], [3, 7], [4]], so that each but the last has a twin",
)
PLANTS = ("plant_updates", "0", "[0, 1500]")
TOLD_BY_TWINS = {
    **dict.fromkeys((MEMORY.name, SHARE.name, SAVINGS.name, REMEMBERED), OMITS),
    **dict.fromkeys((KEPT.name, HALF_LIFE.name), PLANTS),
}
EXPECTED = ("above", "below", "not above", "not below", EQUIVALENT)
TEXTS = ("words", "measure", "expected")
DECLARED = "declared"  # key of a plan that a sweep kept
OPTIONAL = ("arm", "baseline", "terms", "settings", "smallest")


@dataclass(frozen=True)
class Term:
    """An arm, of runs with these settings (flat), and its weight in a claim's sum."""

    weight: float
    arm: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """words: where {measure} stands for the measure's name; settings: the plan's, those of the runs
    that the claim is about; terms: what is summed up; smallest: the smallest effect of interest,
    above 0 and in the measure's units; None where none was fixed; grid: (setting, value as a text)
    of what the plan's runs have in turn; declared: when a sweep first met it, UTC, if one did."""

    words: str
    measure: str
    expected: str
    terms: tuple[Term, ...]
    study: str
    family: str
    settings: Mapping[str, Any]
    smallest: float | None = None
    grid: frozenset[tuple[str, str]] = frozenset()
    declared: datetime | None = field(default=None, compare=False)

    @property
    def pair(self) -> tuple[str, str] | None:
        """(arm, baseline) where it is of these in the same runs, else None."""
        if [(term.weight, *term.settings) for term in self.terms] != [(1,), (-1,)]:
            return None
        return self.terms[0].arm, self.terms[1].arm


def claims_of(plan: Mapping[str, Any], name: str) -> list[Claim]:
    """The claims of a plan as read from TOML. Raises UserError with one line; name: its file's."""
    declared, family = plan.get("claims", []), plan.get("family", Path(name).stem)
    if not isinstance(family, str):
        raise UserError(f"PLAN: family in {name} must be a text")
    if not (isinstance(declared, list) and all(isinstance(claim, dict) for claim in declared)):
        raise UserError(f"PLAN: claims in {name} must be [[claims]], each with its settings")
    found = []
    for i, claim in enumerate(declared, 1):
        where = f"PLAN: claim {i} of {name}"
        unknown = sorted(claim.keys() - {*TEXTS, *OPTIONAL})
        if unknown:
            holds = ", ".join((*TEXTS, *OPTIONAL))
            raise UserError(f"{where} has {unknown[0]!r}; it holds {holds}")
        texts = {*TEXTS, *(claim.keys() & {"arm", "baseline"})}
        texts |= {"arm"} if "terms" not in claim else set()
        for key in sorted(texts):
            if not isinstance(claim.get(key), str):
                raise UserError(f"{where}: {key} must be a text")
        if claim["expected"] not in EXPECTED:
            raise UserError(f"{where}: expected must be one of {', '.join(EXPECTED)}")
        if "smallest" in claim and not _is_positive(claim["smallest"]):
            raise UserError(
                f"{where}: smallest must be a number above 0, not {claim['smallest']!r}"
            )
        if claim["expected"] == EQUIVALENT and "smallest" not in claim:
            raise UserError(f"{where}: equivalent needs smallest, the smallest effect of interest")
        known = {key: claim[key] for key in TEXTS} | {"smallest": claim.get("smallest")}
        if not is_name(claim["measure"]):
            hint = meant(claim["measure"], measures_names()) or "`differences` has their names"
            raise UserError(f"{where}: there is no measure {claim['measure']!r}; {hint}")
        own = claim.get("settings", {})
        if not isinstance(own, dict):
            raise UserError(f"{where}: settings must be settings and their values")
        settings = flat(plan.get("settings", {})) | flat(own)
        of_plan = {"study": plan["study"], "family": family, "grid": _in_turn(plan)}
        of_plan["declared"] = plan.get(DECLARED)
        terms = tuple(_named(term, plan["study"], where, settings) for term in _terms(claim, where))
        found.append(Claim(**known, **of_plan, terms=terms, settings=settings))
    return found


def _in_turn(plan: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """(setting, value as a text) of a plan's grid, but of seeds and arms."""
    study, grids = studies()[plan["study"]], plan.get("grid", [])
    found = []
    for grid in [grids] if isinstance(grids, dict) else grids:
        for key, values in flat(grid).items():
            for value in values if isinstance(values, list) else [values]:
                found += (flat(value) if isinstance(value, dict) else {key: value}).items()
    told = study.settings.keys() - {"seed", study.arm}
    return frozenset((key, str(value)) for key, value in found if key in told)


def _named(term: Term, study: str, where: str, settings: Mapping[str, Any]) -> Term:
    """A term whose arm is named as its runs are, its own settings in that name."""
    of, of_runs = studies()[study], settings | term.settings
    # What says where images and opponents lie is checked where runs are made.
    elsewhere = (of.arm, "dataset.", "stream.recording")
    told = {k: v for k, v in of_runs.items() if k in of.settings and not k.startswith(elsewhere)}
    try:
        of_runs = of_runs | validate(told, {key: of.settings[key] for key in told})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    arm = _as_named(term.arm, study, where, of_runs)
    kept = {k: v for k, v in term.settings.items() if k in told and not of.settings[k].of_arm}
    return replace(term, arm=arm, settings=kept)


def _terms(claim: Mapping[str, Any], where: str) -> tuple[Term, ...]:
    if "terms" not in claim:
        arms = [claim["arm"], *filter(None, [claim.get("baseline")])]
        return tuple(Term(weight, arm, {}) for weight, arm in zip((1, -1), arms, strict=False))
    if "arm" in claim or "baseline" in claim:
        raise UserError(f"{where}: it has terms, and needs no arm and no baseline beside them")
    found = []
    for term in claim["terms"] if isinstance(claim["terms"], list) and claim["terms"] else [None]:
        whole = isinstance(term, dict) and {"weight", "arm"} <= term.keys()
        whole = whole and not term.keys() - {"weight", "arm", "settings"}
        if not whole or not _is_number(term["weight"]) or not isinstance(term["arm"], str):
            raise UserError(f"{where}: terms must be a list of weight, arm and settings")
        if not isinstance(term.get("settings", {}), dict):
            raise UserError(f"{where}: settings of a term must be settings and their values")
        found.append(Term(term["weight"], term["arm"], flat(term.get("settings", {}))))
    return tuple(found)


def _as_named(arm: str, study: str, where: str, of_runs: Mapping[str, Any] | None = None) -> str:
    """An arm as its runs are called, but for the hash of a user's file.

    of_runs: settings of all runs, flat; the arm's own among them stand in its name. UserError for a
    setting of a built-in method's that it has not, or that may not be so, and for one of a user's
    method among those of all runs, which the arm does not name.
    """
    text, given = re.fullmatch(r"(.*?)(?:\(([^()]*=[^()]*)\))?", arm).groups()
    of = studies()[study]
    name = canonical(re.sub(HASH, "", text), of.models)
    shown = text if re.search(HASH, text) else name
    last, settings = name.split("+")[-1], {}
    own = {key: setting for key, setting in of.settings.items() if setting.of_arm}
    known = own | settings_of(name, of.models)
    for key, value in re.findall(r"([\w.]+)\s*=\s*(\[[^\]]*\]|[^,]*)", given or ""):
        key = key if "." in key or key in own else f"{last}.{key}"
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value.strip())
        settings[key] = value
    checked = {k: v for k, v in settings.items() if k in own or k.split(".")[0] in available()}
    try:
        settings |= validate(checked, known)
    except UserError as error:
        raise UserError(f"{where}: {arm}: {error}") from None
    try:
        own_of_runs = _own_of(name, of, known, of_runs or {})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    for key, value in own_of_runs.items():
        if key not in settings and key not in known:
            written = f"{text}({key.removeprefix(last + '.')}={value})"
            raise UserError(
                f"{where}: {key} in the plan's settings is the arm's own; where it is not the "
                f'default, write arm = "{written}", else leave it out there'
            )
        settings.setdefault(key, value)
    if not settings:
        return shown
    # In the order in which an arm's name has them; of a user's method it is not known.
    in_order = [key for key in known if key in settings]
    in_order += [key for key in settings if key not in known]
    inside = ", ".join(f"{key.removeprefix(last + '.')}={settings[key]}" for key in in_order)
    return f"{shown}({inside})"


def _own_of(
    name: str, study: Study, known: Mapping[str, Setting], of_runs: Mapping[str, Any]
) -> dict[str, Any]:
    """Of the settings of all runs those that an arm goes by and is named by: its own, of built-in
    methods where they are not the default."""
    of_runs = {**of_runs, **validate({k: of_runs[k] for k in known if k in of_runs}, known)}
    whole = identity(study, {**of_runs, study.arm: name})
    users = {one for one in names(name, study.models) if one not in available()}
    return {
        key: value
        for key, value in of_runs.items()
        if (key in known and key in whole and value != known[key].default_in(whole))
        or key.split(".")[0] in users
    }


def without_runs(found: Sequence[Claim], arms: Iterable[str]) -> list[str]:
    """What is to be said of claims on an arm that is none of a plan's runs, or on what twins tell
    that it has not, a line each."""
    lines = []
    for claim in found:
        there = sorted({_as_named(arm, claim.study, "PLAN") for arm in arms})
        for arm in dict.fromkeys(term.arm for term in claim.terms):
            if re.sub(HASH, "", arm).partition("(")[0] not in there:
                lines.append(
                    f"the claim {claim.words!r} is on {arm}, and no run of the plan is of that; "
                    f"there are {', '.join(there)}"
                )
        key, bare, example = TOLD_BY_TWINS.get(claim.measure, ("", "", ""))
        there = {value for of, value in claim.grid if of == key}
        if key and not (bare in there and len(there) > 1):
            lines.append(
                f"the claim {claim.words!r} is on {claim.measure}, which twins tell: the grid "
                f"needs {key} = {example}"
            )
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


@functools.cache
def shipped(study: str) -> list[Claim]:
    """Those of the project's plans of a study."""
    found = []
    for path in sorted(PLANS.glob("*.toml")):
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
        if plan["study"] == study:
            found += claims_of(plan, str(path))
    return found
