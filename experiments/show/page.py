"""What stands where on the page: the answer first, then the user's own runs, the paper's figures
and tables, and the rest of the shipped ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments import PROJECT
from experiments.run.stored import StoredRun
from experiments.run.study import studies
from experiments.show.findings import sentences
from experiments.show.groups import groups
from experiments.show.memory import that_tell_of
from experiments.show.report import Entry, Part

SHIPPED = PROJECT.resolve() / "results/reference"
ANSWER = ("claims", "cures", "planted")
PAPERS = ("figure", "table")  # with which names of the paper's begin


def parts(
    entries: Mapping[str, Entry],
    runs_for: Callable[[str], Sequence[StoredRun]],
    make: Callable[[str, Sequence[StoredRun]], Entry],
) -> list[Part]:
    """Of all entries, made of runs_for(name), in order. Those that show own runs and shipped ones
    are made again of either."""
    own, shipped = {}, {}
    for name, entry in entries.items():
        if name in ANSWER or entry.shows_nothing:
            continue
        mine, others = sides(runs_for(name))
        if mine and others:
            of_own = make(name, mine)
            if of_own.shows_nothing:
                shipped[name] = entry
            else:
                own[name], shipped[name] = of_own, make(name, others)
        else:
            (own if mine else shipped)[name] = entry
    shipped = {name: entry for name, entry in shipped.items() if not entry.shows_nothing}
    answer = [entries[n] for n in ANSWER if n in entries and not entries[n].shows_nothing]
    papers = [entry for name, entry in shipped.items() if name.startswith(PAPERS)]
    others = [entry for name, entry in shipped.items() if not name.startswith(PAPERS)]
    missing = [entry for entry in entries.values() if entry.shows_nothing]
    found = sentences([run for run in sides(runs_for("claims"))[0] if run.completed]) if own else []
    return [
        Part("What the claims came to", answer),
        Part("Your own runs", list(own.values()), found),
        Part("The paper's figures and tables, of the shipped runs", papers),
        Part("Other figures and tables of the shipped runs", others, folded=True),
        Part("Nothing to show yet", missing, folded=True),
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


def is_shipped(run: StoredRun) -> bool:
    return Path(str(run.folder)).resolve().is_relative_to(SHIPPED)
