"""What a plan's runs are to show, said beforehand: its claims.

A plan declares them beside its grid, each a measure of an arm against a baseline, or, without one,
against zero; those of plans that name the same `family` are corrected together:

    family = "the paper's"

    [[claims]]
    words = "rotation's last cycle minus first is above vanilla's"
    measure = "cycle_gain"      # or a subject of measures: distance, a claim each
    arm = "rotation"
    baseline = "vanilla"
    expected = "above"          # or below, not above, not below
    smallest = 0.02             # if wanted: the smallest effect of interest

An undecided claim whose interval holds no effect as large as `smallest` is called equivalent.
"""

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetting.errors import UserError
from forgetting.settings import flat

PLANS = Path(__file__).with_name("plans")
EXPECTED = ("above", "below", "not above", "not below")
TEXTS = ("words", "measure", "arm", "expected")
OPTIONAL = ("baseline", "smallest")


@dataclass(frozen=True)
class Claim:
    """words: where {measure} stands for the measure's name; settings: the plan's, those of the runs
    that the claim is about; baseline: None for a claim against zero; smallest: the smallest effect
    of interest, above 0 and in the measure's units; None where none was fixed."""

    words: str
    measure: str
    arm: str
    baseline: str | None
    expected: str
    study: str
    family: str
    settings: Mapping[str, Any]
    smallest: float | None = None


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
        for key in sorted((claim.keys() | set(TEXTS)) - {"smallest"}):
            if not isinstance(claim.get(key), str):
                raise UserError(f"{where}: {key} must be a text")
        if claim["expected"] not in EXPECTED:
            raise UserError(f"{where}: expected must be one of {', '.join(EXPECTED)}")
        if "smallest" in claim and not _is_positive(claim["smallest"]):
            raise UserError(
                f"{where}: smallest must be a number above 0, not {claim['smallest']!r}"
            )
        known = {key: claim.get(key) for key in (*TEXTS, *OPTIONAL)}
        settings = flat(plan.get("settings", {}))
        found.append(Claim(**known, study=plan["study"], family=family, settings=settings))
    return found


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf


@functools.cache
def claims(study: str) -> list[Claim]:
    """Those of the project's plans of a study."""
    found = []
    for path in sorted(PLANS.glob("*.toml")):
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
        if plan["study"] == study:
            found += claims_of(plan, str(path))
    return found
