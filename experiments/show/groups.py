"""Runs put together that differ in arm and seed alone."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.run.identity import FACTS, as_text, shared
from experiments.run.stored import StoredRun
from experiments.run.study import studies
from experiments.sweeps.claims import HASH
from forgetting.names import natural
from forgetting.settings import flat


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one study that differ in arm and seed alone."""

    runs: list[StoredRun]
    differs: str  # what tells it from other groups of the same data and preset, or ""

    @property
    def title(self) -> str:
        run = self.runs[0]
        return ", ".join(filter(None, [run.data, f"preset {run.preset}", self.beside_its_preset]))

    @property
    def beside_its_preset(self) -> str:
        """What tells it from others, less what its preset says already; but how wide its nets are,
        which is the first that one compares, is always said."""
        run, told = self.runs[0], self.differs
        study = studies()[run.study]
        whole = flat(run.config)
        usual = {key: setting.default_in(whole) for key, setting in study.settings.items()}
        usual |= study.chosen_by(run.preset, whole)
        for key, value in self.readable_settings().items():
            if key in usual and key != "width" and as_text(value) == as_text(usual[key]):
                told = re.sub(rf"(^|, ){re.escape(f'{key}={value}')}(?=, |$)", "", told)
        return told.removeprefix(", ")

    def readable_settings(self, but: Collection[str] = ()) -> dict[str, Any]:
        """What its runs share of what they compute from, flat, but some of it."""
        widest = max((shared_of(run) for run in self.runs), key=len)
        return {key: value for key, value in widest.items() if key not in but}

    @property
    def planted(self) -> int:
        """Updates on the labels before their training began."""
        return self.readable_settings().get("plant_updates") or 0

    def arms(self) -> list[str]:
        return list(dict.fromkeys(run.arm for run in self.runs))

    def named(self, arm: str) -> str:
        """An arm as its runs here are called: a user's method may be named without the hash of its
        file, and is then the text of it that ran last."""
        if arm in self.arms():
            return arm
        of_texts = [run for run in self.runs if re.sub(HASH, "", run.arm) == arm]
        return max(of_texts, key=lambda run: natural(run.id)).arm if of_texts else arm

    def of_arm(self, arm: str) -> list[StoredRun]:
        """The arm's runs by seed."""
        name = self.named(arm)
        return sorted((run for run in self.runs if run.arm == name), key=lambda run: run.seed)


def groups(runs: Iterable[StoredRun], study: str) -> list[Group]:
    """The runs of one study, put together where they differ in arm and seed alone.

    An arm that does not use some setting stands in the group of each value that others have of it:
    it is the same run beside all of them. Omission twins stand in none: they are there to tell what
    others remember (experiments/show/memory.py).
    """
    by_shared: dict[str, list[StoredRun]] = {}
    for run in runs:
        if run.study == study and not run.identity.get("stream.omit"):
            by_shared.setdefault(as_text(shared_of(run)), []).append(run)
    kinds = [(shared_of(members[0]), members) for members in by_shared.values()]
    together = [
        (kind, [run for other, members in kinds if _within(other, kind) for run in members])
        for kind, _ in kinds
        if not any(_within(kind, other) for other, _ in kinds if len(other) > len(kind))
    ]
    result = []
    for own, members in together:
        kin = [
            other
            for other, those in together
            if (those[0].data, those[0].preset) == (members[0].data, members[0].preset)
        ]
        differing = [k for k in sorted(own) if any(other.get(k) != own[k] for other in kin)]
        # What a reader can choose says more than what follows from it.
        chosen = [key for key in differing if key not in FACTS]
        result.append(Group(members, ", ".join(f"{k}={own[k]}" for k in chosen or differing)))
    return result


def alike(one: Group, other: Group, but: Collection[str]) -> bool:
    """Whether two groups agree in all settings but some that both have: what only some arm uses, as
    a method that asks for boundaries, those without it lack."""
    a, b = one.readable_settings(but), other.readable_settings(but)
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def without_arms_of(
    found: Iterable[Group], others: Collection[Group], but: Collection[str]
) -> list[Group]:
    """The groups less the arms that a group like them has that differs in some settings alone."""
    result = []
    for group in found:
        like = [other for other in others if other is not group and alike(group, other, but)]
        there = {arm for other in like for arm in other.arms()}
        left = [run for run in group.runs if run.arm not in there]
        result += [Group(left, group.differs)] if left else []
    return result


def shared_of(run: StoredRun) -> dict[str, Any]:
    """What its group shares: of recorded opponents, too, how many there are and of which GAN."""
    of = run.info.get("recording")
    opponents = {"opponents": f"{len(of['steps'])} of {of['model']}"} if of else {}
    return shared(studies()[run.study], run.identity, run.info) | opponents


def _within(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(key in whole and whole[key] == value for key, value in part.items())
