"""The claims of users' plans: a sweep keeps a plan beside its runs, where figures look for it.

As it was when the first of its runs began, since a claim is written down before its runs.
"""

import hashlib
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from experiments.run.study import studies
from experiments.sweeps.claims import (
    DECLARED,
    PLANS,
    Claim,
    claims_of,
    shipped,
    without_runs,
)
from forgetting.errors import UserError
from forgetting.files import write_atomically

FOLDER = "plans"  # in a folder of runs


def claims(study: str, folders: Iterable[Path] = ()) -> list[Claim]:
    """Those of a study: of the project's plans, and of what is kept beside the runs in folders.

    A copy of a plan of the project's has that one's claims once; others that name a family of the
    project's are a family of their own, so that nothing changes the p values of those.
    """
    found = list(shipped(study))
    families = {claim.family for of in studies() for claim in shipped(of)}
    for path in sorted({path for folder in folders for path in (folder / FOLDER).glob("*.toml")}):
        for claim in _read(path):
            if claim.family in families and claim not in found:
                claim = replace(claim, family=f"{claim.family}, {path.stem[:-5]}")
            if claim.study == study and claim not in found:
                found.append(claim)
            elif claim.study == study and claim.declared:
                same = found.index(claim)
                first = min(filter(None, (claim.declared, found[same].declared)))
                if found[same] not in shipped(study):
                    found[same] = replace(claim, declared=first)
    return found


def warn(plan: Path, arms: Iterable[str]) -> None:
    """Say which claims of a user's plan its runs, of these arms, cannot tell of."""
    for line in without_runs(_of_users(plan), arms):
        print(f"warning: {line}")


def _of_users(plan: Path) -> list[Claim]:
    """The claims of a plan; none where it is one of the project's."""
    if not plan.is_file() or plan.resolve().parent == PLANS:
        return []
    return claims_of(tomllib.loads(plan.read_text(encoding="utf-8")), plan.name)


def keep(plan: Path, folder: Path, complete: int, arms: Iterable[str]) -> None:
    """Keep a plan that has claims, and is none of the project's, beside its runs in `folder`.
    complete: how many of them there are already; arms: of all of them. Says what a reader of its
    verdicts must know."""
    asked = _of_users(plan)
    if not asked:
        return
    warn(plan, arms)
    place = hashlib.sha256(str(plan.resolve()).encode()).hexdigest()[:4]
    path = folder / FOLDER / f"{plan.stem}-{place}.toml"
    if path.exists():
        if _read(path) != asked:
            print(
                f"warning: the claims of {plan} are not those that its runs began with, which are "
                f"judged: {path} has them; remove it to declare others"
            )
        return
    if complete:
        print(f"warning: the claims of {plan} come after {complete} of its runs")
    when = datetime.now(UTC).replace(tzinfo=None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{DECLARED} = {when}\n".encode() + plan.read_bytes())
    except OSError as error:
        print(f"warning: the claims of {plan} will not be judged: {path}: {error.strerror}")


def _read(path: Path) -> list[Claim]:
    """A kept plan's claims; none, and a warning, where it will not do."""
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
        if plan.get("study") is None:
            raise UserError("it names no study")
        return claims_of(plan, f"{path.stem[:-5]}.toml")  # less its place
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        print(f"warning: the claims in {path} are not judged: {error}", file=sys.stderr)
        return []
