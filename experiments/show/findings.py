"""What runs found, in a sentence a question: the least that one wants to know who made them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of, defaults, is_of_user
from experiments.show.compare import difference, measures_of
from experiments.show.groups import Group, groups
from experiments.show.intervals import Interval
from experiments.show.texts import shown, units
from experiments.sweeps.claims import shipped
from forgetting.measures import meets_fakes


@dataclass(frozen=True)
class Question:
    """Of the study's second arm minus its first. measures: the first of them that both have; of:
    which runs it is asked of."""

    words: str
    study: str
    measures: Sequence[str]
    of: Callable[[StoredRun], bool] = lambda run: True


QUESTIONS = (
    Question(
        "Sequential tasks", "sequential_tasks", ["cycle_gain"], lambda r: not meets_fakes(r.config)
    ),
    Question(
        "Recorded opponents", "sequential_tasks", ["past_auc"], lambda r: meets_fakes(r.config)
    ),
    # The best block may be the first in all arms, and alike; older runs know no other. A planted
    # net's probe begins above what training is to teach.
    Question(
        "GAN probe",
        "gan_probe",
        ["final_layer_end", "probe_final"],
        lambda r: not r.config.get("plant_updates"),
    ),
)


def sentences(runs: Sequence[StoredRun]) -> list[str]:
    """The answers, each of the group with the latest run of those on the same images that have
    one: by their ids, which are numbers in a folder. Shipped runs have names, and of their groups
    the largest is meant. Beside the study's second arm they are of methods of one's own."""
    found = []
    for question in QUESTIONS:
        of = groups([run for run in runs if question.of(run)], question.study)
        by_data: dict[str, list[str]] = {}
        for group in sorted(of, key=_latest, reverse=True):
            if not by_data.get(data := group.runs[0].data):
                by_data[data] = _answers(question, group)
        found += [answer for answers in by_data.values() for answer in answers]
    return found


def _latest(group: Group) -> tuple:
    numbered = [int(run.id) for run in group.runs if run.id.isdecimal()]
    return max(numbered, default=-1), len(group.runs)


def _answers(question: Question, group: Group) -> list[str]:
    first, second = defaults(question.study)
    own = filter(is_of_user, arms_of(group))
    found = (_answer(question, group, arm, first) for arm in (second, *own))
    return [answer for answer in found if answer]


def _answer(question: Question, group: Group, second: str, first: str) -> str | None:
    run = group.runs[0]
    for measure in question.measures:
        if apart := difference(group, second, first, measure):
            break
    else:
        return None
    words = {known.name: known.words for known in measures_of(group.runs)}[measure]
    over = f"one {run.unit_is}" if apart.n == 1 else units(apart.n, run)
    return (
        f"{question.words}, {run.data}, preset {run.preset}: {second} minus {first} in {words!r} "
        f"is {shown(apart, '+')} ({over}{_verdict(question, second, first, measure, apart)})."
    )


def _verdict(question: Question, second: str, first: str, measure: str, apart: Interval) -> str:
    """What the claim of it says, where one of the project's is: without a correction."""
    if not apart.contains_zero:
        return ""
    of = [c for c in shipped(question.study) if c.pair == (second, first) and c.measure == measure]
    return ", equivalent" if any(apart.within(c.smallest) for c in of) else ", undecided"
