"""Tables from stored runs: the paper's, ours beside its reported values, and our own.

A table is a DataFrame of texts, one row a measurement; a cell that is not known is empty. Rows of
other data, presets or settings are rows of their own.
"""

import csv
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show import grids
from experiments.show.gan import MODELS, PAST_FAKES, distance_metrics, with_past_fakes
from experiments.show.groups import Group, groups
from experiments.show.intervals import Interval, holm, mean_interval, paired_interval
from experiments.show.sequential import ARMS, MEASURES, TRANSFER_MEASURES
from gan import past_fakes

DIFFERENCES = (("rotation", "vanilla"), ("rotation", "augment"))
REPORTED = Path(__file__).with_name("reported.csv")
EMPTY = "\N{EN DASH}"  # how a cell that is not known is shown
# Table 2's grid: Chen et al., arXiv 1811.11212, Section 4.1.
REGULARIZERS = (("spectral_norm", None), ("gradient_penalty", 1.0), ("gradient_penalty", 10.0))
BETAS = ((0.0, 0.9), (0.5, 0.9), (0.5, 0.999))
D_STEPS = (1, 2)


@dataclass(frozen=True)
class Table:
    """`made_by`: a command that makes runs for it; `note`: what a reader must know; `select`: the
    runs it is made of; `make`: their table."""

    made_by: str
    title: str
    note: str
    select: Callable[[Sequence[StoredRun]], list[StoredRun]]
    make: Callable[[Sequence[StoredRun]], pd.DataFrame]


# ------------------------------------------------------------------ the paper's


@functools.cache
def reported(table: str) -> dict[tuple[str, str], str]:
    """(data, model) -> the paper's value as it is printed there, or ""."""
    with REPORTED.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == table]
    return {(row["data"], row["model"]): row["value"] for row in rows}


def papers_data(label: str, table: str) -> str | None:
    """The paper's name of the data set of a label: CIFAR-10 for "CIFAR-10 (JPEG q75)"."""
    names = {data for data, _ in reported(table)}
    return next((name for name in names if label.split(" (")[0] == name), None)


MINUS_UNCOND = "at the end, minus uncond's"


def table1(runs: Sequence[StoredRun]) -> pd.DataFrame:
    rows, seen = [], set()
    models = [model for model in MODELS if model != "rotation_only"]
    for group in groups(runs, "gan_probe"):
        data = papers_data(group.runs[0].data, "table1")
        for model in (m for m in models if m in group.arms()):
            seen.add((data, model))
            of_arm = group.of_arm(model)
            metrics = distance_metrics(of_arm)
            beyond = [
                (metric, _difference(*(_by_seed(group, m, metric) for m in (model, "uncond"))))
                for metric in metrics
                if model != "uncond"
            ]
            distances = {
                metric: min(run.result[f"{metric}_best"] for run in of_arm) for metric in metrics
            }
            rows.append(
                _where(group)
                | {
                    "model": model,
                    "seeds": str(len(of_arm)),
                    "best FID, ours": f"{distances['fid']:.2f}" if "fid" in distances else "",
                    "best FID, paper": reported("table1").get((data, model), ""),
                    "other distance, ours": ", ".join(
                        f"{value:.2f} {metric}"
                        for metric, value in distances.items()
                        if metric != "fid"
                    ),
                    MINUS_UNCOND: ", ".join(f"{metric} {d}" for metric, d in beyond if d),
                }
            )
    for (data, model), value in reported("table1").items():
        if (data, model) not in seen:
            rows.append({"data": data, "model": model, "best FID, paper": value})
    columns = ["data", "preset", "settings", "model", "seeds"]
    columns += ["best FID, ours", "best FID, paper", "other distance, ours", MINUS_UNCOND]
    return _frame(rows, columns)


def table2(runs: Sequence[StoredRun]) -> pd.DataFrame:
    models = ("uncond", "ssgan")
    of_models = [g for g in groups(runs, "gan_probe") if set(models) & set(g.arms())]
    families = grids.families(of_models)
    are_grids = [family for family in families if len(family) >= grids.LEAST_CELLS]
    rows = []
    for family, scale in zip(families or [[]], grids.scales(families) or [""], strict=True):
        cells = {grids.cell(group.runs[0]): group for group in family}
        lr = statistics.mode([*(cell[-1] for cell in cells), grids.PAPERS_CELL[-1]])
        papers = [(*r, betas, d, lr) for r in REGULARIZERS for betas in BETAS for d in D_STEPS]
        # What is missing of the paper's grid is said of a grid, not beside one of every other run.
        whole = papers if family in are_grids or not are_grids else []
        for cell in dict.fromkeys([*whole, *cells]):
            _, weight, betas, d_steps, lr = cell
            name = "spectral norm" if weight is None else f"gradient penalty {weight:g}"
            row = _where(family[0]) | {"settings": scale} if family else {}
            row |= {
                "regularizer": name,
                "beta1, beta2": f"{betas[0]:g}, {betas[1]:g}",
                "D steps": str(d_steps),
                "learning rate": f"{lr:g}",
            }
            for model in models:
                of_arm = cells[cell].of_arm(model) if cell in cells else []
                row[f"{model}, ours"] = _distances(of_arm)
                row[f"{model}, paper"] = ""
                if lr == grids.PAPERS_CELL[-1] and family:
                    data = papers_data(family[0].runs[0].data, "table2")
                    where = f"{model}, {name}, {row['beta1, beta2']}, {d_steps} D steps"
                    row[f"{model}, paper"] = reported("table2").get((data, where), "")
            rows.append(row)
    columns = ["data", "preset", "settings", "regularizer", "beta1, beta2", "D steps"]
    columns.append("learning rate")
    return _frame(rows, columns + [f"{m}, {who}" for m in models for who in ("ours", "paper")])


def _distances(runs: Sequence[StoredRun]) -> str:
    texts = []
    for metric in distance_metrics(runs):
        values = [run.result[metric] for run in runs]
        deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        count = f"{len(values)} seed" + ("s" if len(values) > 1 else "")
        texts.append(f"{np.mean(values):.2f}{deviation} {metric} ({count})")
    return ", ".join(texts)


PEAK_MINUS_END = "peak minus end"


def table3(runs: Sequence[StoredRun]) -> pd.DataFrame:
    rows, seen = [], set()
    for group in groups(runs, "gan_probe"):
        data = papers_data(group.runs[0].data, "table3")
        for model in (m for m in MODELS if m in group.arms()):
            of_arm = [run for run in group.of_arm(model) if "probe/best" in run.metrics]
            if not of_arm:
                continue
            seen.add((data, model))
            blocks = sorted(m for m in of_arm[0].metrics if m.startswith("probe/block_"))
            falls = peak_minus_final(of_arm)
            fall = mean_interval(list(falls.values())) if falls else None
            for metric in [*blocks, "probe/best"]:
                best = metric == "probe/best"
                last = mean_interval([run.metrics[metric][1][-1] for run in of_arm])
                rows.append(
                    _where(group)
                    | {
                        "model": model,
                        "seeds": str(last.n),
                        "block": metric.removeprefix("probe/").removeprefix("block_"),
                        "accuracy, ours": shown(last),
                        "accuracy, paper": reported("table3").get((data, model), "")
                        if best
                        else "",
                        PEAK_MINUS_END: _with_verdict(fall) if best and fall else "",
                    }
                )
    for (data, model), value in reported("table3").items():
        if (data, model) not in seen:
            rows.append({"data": data, "model": model, "block": "best", "accuracy, paper": value})
    columns = ["data", "preset", "settings", "model", "seeds", "block"]
    return _frame(rows, [*columns, "accuracy, ours", "accuracy, paper", PEAK_MINUS_END])


# ------------------------------------------------------------------ our own


def measures(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Each arm's mean over seeds and differences paired by seed, with 95 % t intervals."""
    rows = []
    for group in groups(runs, "sequential_tasks"):
        for measure, words in {**MEASURES, **TRANSFER_MEASURES}.items():
            if measure not in group.runs[0].result:
                continue
            row = _where(group) | {"measure": words.replace("\n", " ")}
            for arm in (arm for arm in ARMS if arm in group.arms()):
                row[arm] = shown(mean_interval(list(_by_seed(group, arm, measure).values())))
            for a, b in DIFFERENCES:
                row[f"{a} - {b}"] = _difference(
                    _by_seed(group, a, measure), _by_seed(group, b, measure)
                )
            rows.append(row)
    columns = ["data", "preset", "settings", "measure", *ARMS]
    return _frame(rows, columns + [f"{a} - {b}" for a, b in DIFFERENCES])


PAST_FAKES_MEASURES = {
    "past_fakes_accuracy": "accuracy on past fakes",
    "past_fakes_accuracy_drop": "its drop since they were current",
    "past_fakes_accuracy_forgetting": "its drop since its best",
    "past_fakes_auc": "area under the ROC curve",
    "past_fakes_auc_drop": "its drop since they were current",
    "past_fakes_auc_forgetting": "its drop since its best",
}


def of_past_fakes(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """What the last discriminator knows of the fakes of earlier generators, by model."""
    rows, columns = [], ["data", "preset", "settings", "measure"]
    for group in groups(runs, "gan_probe"):
        found: dict[str, dict[int, dict[str, float]]] = {}
        for run in group.runs:
            matrix = run.table(PAST_FAKES).to_dict("records")
            kinds = [past_fakes.measures(matrix, name) for name in ("accuracy", "auc")]
            found.setdefault(run.arm, {})[run.seed] = kinds[0] | kinds[1]
        for measure, words in PAST_FAKES_MEASURES.items():
            by_seed = {
                model: {seed: of[measure] for seed, of in seeds.items() if measure in of}
                for model, seeds in found.items()
            }
            row = _where(group) | {"measure": words}
            for model in (m for m in MODELS if by_seed.get(m)):
                row[model] = shown(mean_interval(list(by_seed[model].values())), "+")
            row["ssgan - uncond"] = _difference(by_seed.get("ssgan", {}), by_seed.get("uncond", {}))
            rows.append(row)
    models = [model for model in MODELS if any(model in row for row in rows)]
    return _frame(rows, [*columns, *models, "ssgan - uncond"])


def claims(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """The paper's claims, each a mean over seeds that it says is above zero (or, where so said,
    not above), with Holm's correction over the claims on equal data and preset."""
    found = []
    for group in groups(runs, "sequential_tasks"):
        for control, words in (("vanilla", "vanilla's"), ("augment", "the control's")):
            difference = paired_interval(
                _by_seed(group, "rotation", "cycle_gain"), _by_seed(group, control, "cycle_gain")
            )
            claim = f"rotation's last cycle minus first is above {words}"
            found.append((group, claim, True, difference))
    for group in groups(runs, "gan_probe"):
        final = {m: _by_seed(group, m, "probe_final") for m in ("uncond", "ssgan")}
        forgotten = {m: peak_minus_final(group.of_arm(m)) for m in ("uncond", "ssgan")}
        above = paired_interval(final["ssgan"], final["uncond"])
        found.append((group, "ssgan's final probe is above uncond's", True, above))
        for model, falls in (("uncond", True), ("ssgan", False)):
            words = "falls from its peak" if falls else "does not fall from its peak"
            fall = mean_interval(list(forgotten[model].values())) if forgotten[model] else None
            found.append((group, f"{model}'s probe {words}", falls, fall))
        distances = distance_metrics([run for m in final for run in group.of_arm(m)])
        for metric in distances:
            lower = paired_interval(
                _by_seed(group, "uncond", metric), _by_seed(group, "ssgan", metric)
            )
            found.append((group, f"ssgan's {metric} is below uncond's", True, lower))
    found = [claim for claim in found if claim[3] is not None]
    families: dict[tuple, list[int]] = {}
    for i, (group, *_) in enumerate(found):
        run = group.runs[0]
        families.setdefault((run.data, run.preset, run.config["precision"]), []).append(i)
    adjusted = [float("nan")] * len(found)
    for members in families.values():
        # Seeds that do not differ at all are no evidence, but their claim was looked at, too.
        p = [1.0 if d.n > 1 and np.isnan(d.p) else d.p for d in (found[i][3] for i in members)]
        for i, corrected in zip(members, holm(p), strict=True):
            adjusted[i] = corrected
    rows = [
        _where(group)
        | {
            "the paper's claim": claim,
            "difference": shown(difference, "+"),
            "seeds": str(difference.n),
            "p, Holm": "" if np.isnan(p) else f"{p:.3f}",
            "verdict": verdict(difference, p, expected),
        }
        for (group, claim, expected, difference), p in zip(found, adjusted, strict=True)
    ]
    columns = ["data", "preset", "settings", "the paper's claim", "difference", "seeds"]
    return _frame(rows, [*columns, "p, Holm", "verdict"])


def verdict(difference: Interval, p: float, expected: bool) -> str:
    """What a difference says of a claim that it is (or, expected False, is not) above zero; p:
    Holm's."""
    if not p < 0.05 or difference.contains_zero:
        return "undecided"
    return "confirmed" if (difference.mean > 0) == expected else "against"


def peak_minus_final(runs: Sequence[StoredRun]) -> dict[int, float]:
    """Seed -> probe accuracy at the peak minus at the end; {} for fewer than two seeds.

    The peak is that of the other seeds' mean: a run's own maximum is above its end by chance alone.
    """
    runs = [run for run in runs if "probe/best" in run.metrics]
    if len(runs) < 2:
        return {}
    # The untrained net is no peak to fall from.
    curves = np.stack([run.metrics["probe/best"][1][1:] for run in runs])
    others = (curves.sum(0) - curves) / (len(runs) - 1)
    peaks = others.argmax(1)
    return {
        run.seed: float(curve[peak] - curve[-1])
        for run, curve, peak in zip(runs, curves, peaks, strict=True)
    }


def shown(interval: Interval, sign: str = "") -> str:
    """ "0.805 [0.797, 0.812]"; the mean alone for one seed."""
    if interval.n < 2:
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _difference(a: dict[int, float], b: dict[int, float]) -> str:
    """Of a - b, paired by seed: "+0.041 [+0.033, +0.050]", "undecided" behind it where it contains
    zero, "" without a seed that both have."""
    difference = paired_interval(a, b)
    return "" if difference is None else _with_verdict(difference)


def _with_verdict(difference: Interval) -> str:
    return shown(difference, "+") + (" undecided" if difference.contains_zero else "")


def _by_seed(group: Group, arm: str, measure: str) -> dict[int, float]:
    return {run.seed: run.result[measure] for run in group.of_arm(arm) if measure in run.result}


def _where(group: Group) -> dict[str, str]:
    run = group.runs[0]
    return {"data": run.data, "preset": str(run.preset), "settings": group.differs}


def _frame(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(columns), dtype=object).fillna("")


def _of(study: str) -> Callable[[Sequence[StoredRun]], list[StoredRun]]:
    return lambda runs: [run for run in runs if run.study == study]


def _with_distance(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.study == "gan_probe" and distance_metrics([run])]


def _with_probe(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if run.study == "gan_probe" and "probe/best" in run.metrics]


UNCORRECTED = (
    "Means over seeds; in brackets 95 % t intervals, of differences paired by seed. An interval "
    "that contains zero is undecided. "
)
BESIDE = 'The paper\'s values for CIFAR-10 stand beside every data set called "CIFAR-10 (...)".'
TABLES = {
    "table1": Table(
        "python experiments/gan_probe.py with cpu",
        "Table 1: best FID by model and data set",
        "The best over seeds and training. FID is Inception's; a distance on other features is "
        "named after them and does not compare with it. The paper's are the best of three seeds. "
        + BESIDE
        + " Differences at the end of training are means over seeds, with 95 % t intervals, paired "
        "by seed and not corrected for their number; one that contains zero is undecided.",
        _with_distance,
        table1,
    ),
    "table2": Table(
        "python experiments/sweep.py table2 --preset cpu",
        "Table 2: robustness to regularizer, Adam's betas and discriminator steps",
        "Mean and standard deviation over seeds at the end of training. Runs of another scale have "
        "rows of their own. Of four settings or more, the curves and the other tables show the "
        "paper's at most. Of the paper's values, which are FID, one is at hand; its grid has one "
        "learning rate, 0.0002.",
        lambda runs: [r for r in _with_distance(runs) if r.arm in ("uncond", "ssgan")],
        table2,
    ),
    "table3": Table(
        "python experiments/gan_probe.py with cpu",
        "Table 3: linear probe of the discriminator by block",
        "Test accuracy at the end of training, mean over seeds with its 95 % t interval. "
        + BESIDE
        + " The fall from the peak, as in the claims, is not corrected for the number of arms; an "
        "interval that contains zero is undecided.",
        _with_probe,
        table3,
    ),
    "measures": Table(
        "python experiments/sequential_tasks.py with cpu",
        "Sequential tasks: the measures",
        UNCORRECTED + "Not corrected for looking at several measures.",
        _of("sequential_tasks"),
        measures,
    ),
    "past_fakes_measures": Table(
        "python experiments/gan_probe.py with cpu",
        "Past fakes: the measures",
        "Real images against the fakes of earlier generators (but the untrained one's), by the "
        "discriminator at the end. A drop from the moment they were current is negative where a "
        "good generator made that moment hard; the drop from the best since is what was forgotten. "
        + UNCORRECTED,
        lambda runs: [
            run for group in with_past_fakes(groups(runs, "gan_probe")) for run in group.runs
        ],
        of_past_fakes,
    ),
    "claims": Table(
        "python experiments/sweep.py figure3 --preset cpu",
        "The paper's claims",
        UNCORRECTED + "p is of the t test, by Holm's correction over all rows of equal data and "
        "preset; a claim is confirmed, or the result against it, below 0.05. A fall from the peak "
        "is measured at the step where the other seeds' mean is highest, so that its seeds are not "
        "quite independent; that there is none is confirmed only by an end above that step's.",
        lambda runs: list(runs),
        claims,
    ),
}


# ------------------------------------------------------------------ as files


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
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    EMPTY: "--",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
