"""The paper's tables, ours beside the values it reports."""

import csv
import functools
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show import grids
from experiments.show.arms import arms_of, baseline, defaults, in_order
from experiments.show.compare import difference, distance_metrics, with_metric
from experiments.show.groups import Group, groups
from experiments.show.intervals import mean_interval
from experiments.show.texts import frame, shown, shown_difference, where
from forgetting.measures import FALLS, FINAL_LAYER

STUDY = "gan_probe"
REPORTED = Path(__file__).with_name("reported.csv")
# Table 2's grid: Chen et al., arXiv 1811.11212, Section 4.1.
REGULARIZERS = (("spectral_norm", None), ("gradient_penalty", 1.0), ("gradient_penalty", 10.0))
BETAS = ((0.0, 0.9), (0.5, 0.9), (0.5, 0.999))
D_STEPS = (1, 2)


@functools.cache
def reported(table: str) -> dict[tuple[str, str], str]:
    """(data, model) -> the paper's value as it is printed there, or ""."""
    with REPORTED.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] == table]
    return {(row["data"], row["model"]): row["value"] for row in rows}


def papers_data(label: str, table: str) -> str | None:
    """The paper's name of the data set of a label: CIFAR-10 for "CIFAR-10 (JPEG q75)"."""
    names = {data for data, _ in reported(table)}
    return next((name for name in names if label.split(" (")[0] == name), None)


def _papers_data(group: Group, table: str) -> str | None:
    """None for planted nets, too, which the paper has not."""
    return None if group.planted else papers_data(group.runs[0].data, table)


MINUS_BASELINE = f"at the end, minus {baseline(STUDY)}'s"


def table1(runs: Sequence[StoredRun]) -> pd.DataFrame:
    rows, seen = [], set()
    for group in groups(runs, STUDY):
        data = _papers_data(group, "table1")
        for model in arms_of(group):
            of_arm = group.of_arm(model)
            metrics = distance_metrics(of_arm)
            if not metrics:
                continue
            seen.add((data, model))
            beyond = [
                (metric, shown_difference(difference(group, model, baseline(STUDY), metric)))
                for metric in metrics
                if model != baseline(STUDY)
            ]
            distances = {
                metric: min(run.result[f"{metric}_best"] for run in of_arm) for metric in metrics
            }
            rows.append(
                where(group)
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
                    MINUS_BASELINE: ", ".join(f"{metric} {d}" for metric, d in beyond if d),
                }
            )
    for (data, model), value in reported("table1").items():
        if (data, model) not in seen:
            rows.append({"data": data, "model": model, "best FID, paper": value})
    columns = ["data", "preset", "settings", "model", "seeds"]
    columns += ["best FID, ours", "best FID, paper", "other distance, ours", MINUS_BASELINE]
    return frame(rows, columns)


def table2(runs: Sequence[StoredRun]) -> pd.DataFrame:
    models = in_order(STUDY, {*defaults(STUDY), *(run.arm for run in runs)})
    families = grids.families(groups(runs, STUDY))
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
            row = where(family[0]) | {"settings": scale} if family else {}
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
                    cell_of = f"{model}, {name}, {row['beta1, beta2']}, {d_steps} D steps"
                    row[f"{model}, paper"] = reported("table2").get((data, cell_of), "")
            rows.append(row)
    columns = ["data", "preset", "settings", "regularizer", "beta1, beta2", "D steps"]
    columns.append("learning rate")
    return frame(rows, columns + [f"{m}, {who}" for m in models for who in ("ours", "paper")])


def of_table2(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Runs of the default arms, and of any other that a grid was run with."""
    shown = set(defaults(STUDY))
    for family in grids.families(groups(runs, STUDY)):
        cells = Counter(arm for group in family for arm in group.arms())
        shown |= {arm for arm, n in cells.items() if n >= grids.LEAST_CELLS}
    return [run for run in runs if run.arm in shown]


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
    for group in groups(runs, STUDY):
        data = _papers_data(group, "table3")
        for model in arms_of(group):
            of_arm = with_metric(group.of_arm(model), "probe/best")
            if not of_arm:
                continue
            seen.add((data, model))
            blocks = sorted(m for m in of_arm[0].metrics if m.startswith("probe/block_"))
            falls = {
                of.needs: shown_difference(difference(group, model, None, of.name)) for of in FALLS
            }
            final = [FINAL_LAYER] if any(FINAL_LAYER in run.metrics for run in of_arm) else []
            for metric in [*blocks, "probe/best", *final]:
                best = metric == "probe/best"
                of_metric = with_metric(of_arm, metric)
                last = mean_interval([run.metrics[metric][1][-1] for run in of_metric])
                rows.append(
                    where(group)
                    | {
                        "model": model,
                        "seeds": str(last.n),
                        "block": metric.removeprefix("probe/")
                        .removeprefix("block_")
                        .replace("_", " "),
                        "accuracy, ours": shown(last),
                        "accuracy, paper": reported("table3").get((data, model), "")
                        if best
                        else "",
                        PEAK_MINUS_END: falls.get(metric, ""),
                    }
                )
    for (data, model), value in reported("table3").items():
        if (data, model) not in seen:
            rows.append({"data": data, "model": model, "block": "best", "accuracy, paper": value})
    columns = ["data", "preset", "settings", "model", "seeds", "block"]
    return frame(rows, [*columns, "accuracy, ours", "accuracy, paper", PEAK_MINUS_END])
