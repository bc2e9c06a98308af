"""The figure `drift`: how alike a net's features are at each two probes of its run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.run.stored import StoredRun
from experiments.show.arms import arms_of
from experiments.show.gan import panel_an_arm, whole
from experiments.show.groups import Group, without_arms_of
from experiments.show.plotting import keep, label, leftmost, panels, rows

DRIFT = "drift.csv"
TICKS = 4


def with_drift(found: Sequence[Group]) -> list[Group]:
    """The runs that kept how their features drift; older ones did not. Of an arm that was planted,
    and not, the planted runs."""
    columns = {"step", "earlier", "cka"}
    kept = keep(found, lambda run: (run.folder / DRIFT).exists() and whole(run, DRIFT, columns))
    planted = [group for group in kept if group.planted]
    bare = without_arms_of((g for g in kept if not g.planted), planted, ("plant_updates",))
    return [*planted, *bare]


def drift(found: Sequence[Group]) -> Figure:
    """CKA of the final layer's features between each two probes, a panel an arm."""

    def draw(part, group):
        axes = panels(part, len(group.arms()), sharey=True)
        for axis, arm in zip(axes, arms_of(group), strict=True):
            runs = group.of_arm(arm)
            matrix = drift_matrix(runs)
            mesh = axis.pcolormesh(matrix.to_numpy(), cmap="mako", vmin=0, vmax=1)
            ticks = np.arange(0, len(matrix), max(1, len(matrix) // TICKS))
            axis.set_xticks(ticks[::2] + 0.5, matrix.columns[ticks[::2]])  # four panels are narrow
            axis.set_yticks(ticks + 0.5, matrix.index[ticks])
            axis.set_aspect("equal")
            axis.set_xlabel("features at update")
            axis.set_title(label(runs, 24), fontsize="small")
        for axis in leftmost(axes):
            axis.set_ylabel("features at update")
        part.colorbar(mesh, ax=axes, label="debiased linear CKA\n(1: the same features)")

    return rows(found, "drift", 2.6, draw, "mean over seeds", panel_an_arm)


def drift_matrix(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """CKA by update (rows and columns), mean over runs; NaN where features did not vary."""
    table = pd.concat([run.table(DRIFT) for run in runs])
    turned = table.rename(columns={"step": "earlier", "earlier": "step"})
    pairs = pd.concat([table, turned]).groupby(["step", "earlier"])["cka"]
    matrix = pairs.mean().unstack()
    return matrix.mask(np.eye(len(matrix), dtype=bool), 1.0)
