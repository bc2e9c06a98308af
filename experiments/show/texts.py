"""Numbers as texts, and tables of texts as files."""

from collections.abc import Sequence

import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show.groups import Group
from experiments.show.intervals import Interval

EMPTY = "\N{EN DASH}"  # how a cell that is not known is shown
UNCORRECTED = (
    "Means over seeds, or over recordings where opponents are recorded; in brackets 95 % t "
    "intervals, of differences paired by these. An interval that contains zero is undecided. "
)


def shown(interval: Interval, sign: str = "", digits: int = 3) -> str:
    """ "0.805 [0.797, 0.812]"; the mean alone for one seed."""
    mean, low, high = (
        f"{of:{sign}.{digits}f}" for of in (interval.mean, interval.low, interval.high)
    )
    return mean if interval.n < 2 else f"{mean} [{low}, {high}]"


def shown_difference(difference: Interval | None) -> str:
    """ "+0.041 [+0.033, +0.050]", "undecided" behind it where it contains zero; "" for None."""
    if difference is None:
        return ""
    return shown(difference, "+") + (" undecided" if difference.contains_zero else "")


def units(n: int, run: StoredRun) -> str:
    """Of what was drawn at random for runs like this one: "5 seeds", "1 recording"."""
    return f"{n} {run.unit_is}" if n == 1 else f"{n} {run.unit_is}s"


def where(group: Group) -> dict[str, str]:
    """The first cells of a row: of which runs it is."""
    run = group.runs[0]
    return {"data": run.data, "preset": str(run.preset), "settings": group.differs}


def frame(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns), dtype=object).fillna("")


def markdown(table: pd.DataFrame) -> str:
    rows = [table.columns, *table.replace("", EMPTY).itertuples(index=False)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(table.columns) + "|", *lines[1:]]) + "\n"


def latex(table: pd.DataFrame, title: str) -> str:
    """A table by booktabs."""
    rows = [table.columns, *table.replace("", EMPTY).itertuples(index=False)]
    head, *body = [" & ".join(map(_latex_text, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex_text(title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    EMPTY: "--",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
