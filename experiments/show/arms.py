"""Arms as figures and tables show them: in words, in order, each in its colour."""

import hashlib
import re
from collections.abc import Iterable, Sequence

import seaborn as sns

from experiments.run.study import Study, studies
from experiments.show.groups import Group
from forgetting.methods import available


def is_of_user(arm: str) -> bool:
    """Whether a method of the arm is a user's: its name then has the hash of its file."""
    return "@" in arm


def _words(study: Study) -> dict[str, str]:
    """Arm -> its words, of those that have some, in the order shown: a study's models as they stand
    there, of methods its default arms first. Other arms stand behind them by their names."""
    order = [*study.default_arms, *(n for n in available() if n not in study.default_arms)]
    of = study.models or {name: available()[name] for name in order}
    return {name: arm.words for name, arm in of.items() if arm.words}


WORDS = {name: _words(study) for name, study in studies().items()}
_COLOURS = {
    arm: colour
    for known in WORDS.values()
    for arm, colour in zip(known, sns.color_palette("colorblind"), strict=False)
}
# Of the other arms: between the hues of those, in degrees of HUSL.
_HUES = (*range(75, 125), *range(184, 224), *range(264, 298), *range(338, 366))
_LIGHTNESS = (0.3, 0.55, 0.75)


def in_order(study: str, arms: Iterable[str]) -> list[str]:
    known = list(WORDS[study])
    return sorted(set(arms), key=lambda a: (known.index(a) if a in known else len(known), a))


def arms_of(group: Group) -> list[str]:
    return in_order(group.runs[0].study, group.arms())


def defaults(study: str) -> Sequence[str]:
    """What a study runs where no arm is named; the first of them is its baseline."""
    return studies()[study].default_arms


def baseline(study: str) -> str:
    return defaults(study)[0]


def words(study: str, arm: str) -> str:
    return WORDS[study].get(arm, arm)


def colour_of(arm: str) -> tuple[float, float, float]:
    """RGB from 0 to 1. Of an arm nobody foresaw it is made from the name alone, so that it is the
    same in every figure, whatever else is drawn there."""
    if arm in _COLOURS:
        return _COLOURS[arm]
    number = int.from_bytes(hashlib.sha256(arm.encode()).digest()[:4])
    lightness, place = number % len(_LIGHTNESS), number // len(_LIGHTNESS) % len(_HUES)
    return sns.husl_palette(1, h=_HUES[place] / 360, s=0.8, l=_LIGHTNESS[lightness])[0]


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters where it has spaces, or a + ( , of a name to
    break behind."""
    lines = [""]
    for part in re.findall(r"[^ +(,]*[ +(,]?", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)
