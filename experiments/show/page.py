"""What stands where on the page: the answer first, then the user's own runs, the paper's figures
and tables, and the rest of the shipped ones."""

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
    runs and shipped ones is made again of either."""
    if entry.shows_nothing:
        return {"missing": section(entry)}
    if name in ANSWER:
        return {"answer": section(entry)}
    if not (own and shipped):
        return {"own" if own else "shipped": section(entry)}
    of_own, of_shipped = make(own), make(shipped)
    if of_own.shows_nothing:
        return {"shipped": section(entry)}
    apart = {"own": of_own, "shipped": of_shipped}
    return {place: section(of) for place, of in apart.items() if not of.shows_nothing}


def parts(found: Mapping[str, Mapping[str, Section]], own: Sequence[StoredRun]) -> list[Part]:
    """The page's, of all that `sections` gave by name, in order; own: the user's own runs."""

    def of(place: str, wanted: Callable[[str], bool] = lambda name: True) -> list[Section]:
        return [at[place] for name, at in found.items() if place in at and wanted(name)]

    answer = [found[name]["answer"] for name in ANSWER if "answer" in found.get(name, ())]
    lines = sentences([run for run in own if run.completed]) if of("own") else []
    return [
        Part("What the claims came to", answer),
        Part("Your own runs", of("own"), lines),
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
