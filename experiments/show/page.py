"""What stands where on the page: the user's own runs first, then the answer, the paper's figures
and tables, and the rest of the shipped ones."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence

from experiments.run.stored import StoredRun
from experiments.run.study import studies
from experiments.show.findings import sentences
from experiments.show.groups import groups
from experiments.show.memory import that_tell_of
from experiments.show.report import Entry, Part, Section, section
from experiments.show.shipped import is_shipped

ANSWER = ("claims", "cures", "planted")
PAPERS = ("figure", "table")  # with which names of the paper's begin


def sections(
    name: str,
    entry: Entry,
    own: Sequence[StoredRun],
    shipped: Sequence[StoredRun],
    make: Callable[[Sequence[StoredRun]], Entry],
) -> dict[str, Section]:
    """Place on the page -> what stands there of an entry that was made of all runs. What shows own
    runs and shipped ones is made again of either; the answer, of which some is told by groups of
    both, stands there whole."""
    if entry.shows_nothing:
        return {"missing": section(entry)}
    of_others = "answer" if name in ANSWER else "shipped"
    if not (own and shipped):
        return {"own" if own else of_others: section(entry)}
    with contextlib.redirect_stderr(io.StringIO()):  # said when it was made of all runs
        of_own = make(own)
    if of_own.shows_nothing:
        return {of_others: section(entry)}
    apart = {"own": of_own, of_others: entry if name in ANSWER else make(shipped)}
    return {place: section(of) for place, of in apart.items() if not of.shows_nothing}


def parts(found: Mapping[str, Mapping[str, Section]], own: Sequence[StoredRun]) -> list[Part]:
    """The page's, of all that `sections` gave by name, in order; own: the user's own runs."""

    def of(place: str, wanted: Callable[[str], bool] = lambda name: True) -> list[Section]:
        names = dict.fromkeys([*(name for name in ANSWER if name in found), *found])
        return [found[name][place] for name in names if place in found[name] and wanted(name)]

    lines = sentences([run for run in own if run.completed]) if of("own") else []
    return [
        Part("Your own runs", of("own"), lines),
        Part("What the claims came to", of("answer")),
        Part(
            "The paper's figures and tables, of the shipped runs",
            of("shipped", lambda name: name.startswith(PAPERS)),
        ),
        Part(
            "Other figures and tables of the shipped runs",
            of("shipped", lambda name: not name.startswith(PAPERS)),
            folded=True,
        ),
        Part("Nothing to show yet", of("missing"), folded=True),
    ]


def sides(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[StoredRun]]:
    """(the runs of groups that hold some of the user's own, those of the others), each with what
    tells of their memory."""
    mine, others = {}, {}
    shipped = {id(run): is_shipped(run) for run in runs}
    for study in studies():
        for group in groups(runs, study):
            side = others if all(shipped[id(run)] for run in group.runs) else mine
            side.update({id(run): run for run in group.runs})
    for side in (mine, others):
        side.update({id(run): run for run in that_tell_of(list(side.values()), runs)})
    return list(mine.values()), list(others.values())
