"""The paper's tables beside our numbers, and grids of settings in them and in figure 4."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import with_settings

from experiments.run.stored import stored_runs
from experiments.show import gan as gan_figures
from experiments.show import grids
from experiments.show import paper_tables as tables
from experiments.show.compare import by_learner
from experiments.show.groups import groups
from experiments.show.intervals import mean_interval
from experiments.show.plotting import style


@pytest.fixture
def found(gan_runs):
    style()
    yield groups(stored_runs(gan_runs), "gan_probe")
    plt.close("all")


def test_tables_hold_the_stored_numbers(found):
    runs = found[0].runs
    best = tables.table1(runs)
    uncond = [run.result["fd_digits_cnn_best"] for run in found[0].of_arm("uncond")]
    assert best.loc[0, "other distance, ours"] == f"{min(uncond):.2f} fd_digits_cnn"
    assert best.loc[0, "best FID, ours"] == "" == best.loc[0, "best FID, paper"]
    at_the_end = [run.result["fd_digits_cnn"] for run in found[0].of_arm("ssgan")]
    apart = best[best["seeds"] != ""].set_index("model")[tables.MINUS_BASELINE]
    difference = np.mean(at_the_end) - np.mean(
        [run.result["fd_digits_cnn"] for run in found[0].of_arm("uncond")]
    )
    assert apart["uncond"] == "" and apart["ssgan"].startswith(f"fd_digits_cnn {difference:+.3f} [")
    text = f"{np.mean(at_the_end):.2f} ± {np.std(at_the_end, ddof=1):.2f} fd_digits_cnn (2 seeds)"
    grid = tables.table2([run for run in runs if run.arm in ("uncond", "ssgan")])
    assert len(grid) == 18 and grid["ssgan, ours"].tolist() == [text] + [""] * 17
    probes = tables.table3(runs)
    row = probes[(probes["model"] == "ssgan") & (probes["block"] == "3")].iloc[0]
    last = mean_interval([r.metrics["probe/block_3"][1][-1] for r in found[0].of_arm("ssgan")])
    assert row["accuracy, ours"] == tables.shown(last) and row[tables.PEAK_MINUS_END] == ""
    row = probes[(probes["model"] == "ssgan") & (probes["block"] == "best")].iloc[0]
    fall = mean_interval(list(by_learner(found[0].of_arm("ssgan"), "probe_fall").values()))
    assert row[tables.PEAK_MINUS_END].startswith(tables.shown(fall, "+"))
    # Beside CIFAR-10 stand the paper's values, under whatever images are called CIFAR-10 (...).
    named = [dataclasses.replace(run, data="CIFAR-10 (JPEG q75)") for run in runs]
    probes = tables.table3(named)
    papers = probes[probes["block"] == "best"].set_index(["data", "model"])["accuracy, paper"]
    assert papers["CIFAR-10 (JPEG q75)", "uncond"] == "0.778"
    grid = tables.table2(named)
    known = grid[grid["ssgan, paper"] != ""]
    assert known["ssgan, paper"].tolist() == ["17.88 ± 0.64"] and known["D steps"].tolist() == ["2"]
    assert papers["CIFAR-10", "ssgan_sbn"] == "0.799" and ("CIFAR-10", "uncond") not in papers


def variants(runs, **values):
    """The runs as if one setting had been each of these values in turn."""
    ((key, values),) = values.items()
    return [with_settings(run, **{key: value}) for value in values for run in runs]


def test_a_grid_is_in_its_table_and_figure_alone(found):
    runs = [run for run in found[0].runs if run.arm in ("uncond", "ssgan")]
    assert found[0].runs[0].config["adam_betas"] == [0.0, 0.9]
    three = variants(runs, adam_betas=[[0.0, 0.9], [0.5, 0.9], [0.5, 0.999]])
    assert grids.without_grids(three) == three, "a comparison, not a grid"
    grid = variants(three, d_steps=[1, 2])
    assert [run.identity for run in grids.without_grids(grid)] == [r.identity for r in runs]
    longer = variants(runs, steps=[5])
    both = grids.without_grids([*grid, *longer])
    assert [run.identity for run in both] == [run.identity for run in longer]
    assert len(grids.without_grids([*grid, *variants(longer, d_steps=[1, 2, 3, 4])])) == 8

    # Some seeds of other rates beside a planned run of several make no grid of it.
    rates = variants([run for run in runs if run.seed == 0], lr=[1e-4, 5e-4, 1e-3])
    kept = grids.without_grids([*runs, *rates])
    assert [run.identity for run in kept] == [run.identity for run in runs]

    boxes = grids.pooled(groups([*grid, *longer], "gan_probe"))
    assert [len(group.runs) for group in boxes] == [24, 4]
    assert [group.differs[:9] for group in boxes] == ["4 updates", "5 updates"]
    families = [groups(runs, "gan_probe") for runs in (grid, variants(longer, probe_every=[99]))]
    assert not any("probe_every" in scale for scale in grids.scales(families))
    families = [groups(runs, "gan_probe") for runs in (grid, variants(runs, probe_every=[99]))]
    assert all("probe_every=" in scale for scale in grids.scales(families))
    figure = gan_figures.figure4(boxes)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [
        "uncond\n6 settings,\n12 runs",
        "ssgan\n6 settings,\n12 runs",
    ]
    table = tables.table2([*grid, *longer])
    assert len(table) == 18 + 1 and (table["ssgan, ours"] != "").sum() == 7
    # Another learning rate is one more setting of the grid, and the paper's is not asked for there.
    table = tables.table2([*grid, *variants(runs, lr=[1e-3])])
    assert table["learning rate"].tolist() == ["0.0002"] * 18 + ["0.001"]
    table = tables.table2(variants(grid, lr=[1e-3]))
    assert set(table["learning rate"]) == {"0.001"} and len(table) == 18


def test_a_fall_from_the_peak_is_not_a_maximums_luck(found):
    runs = found[0].of_arm("uncond")
    curves = [run.metrics["probe/best"][1] for run in runs]
    peaks = [curve[1:].argmax() + 1 for curve in curves]
    expected = {(i, i): curves[i][peaks[1 - i]] - curves[i][-1] for i in (0, 1)}
    assert by_learner(runs, "probe_fall") == pytest.approx(expected)
    assert by_learner(runs[:1], "probe_fall") == {}
    final = [run.metrics["probe/final_layer"][1] for run in runs]
    peaks = [curve[1:].argmax() + 1 for curve in final]
    expected = {(i, i): final[i][peaks[1 - i]] - final[i][-1] for i in (0, 1)}
    assert by_learner(runs, "final_layer_fall") == pytest.approx(expected)
    # An untrained net is no peak, a planted one may be.
    name, high = "probe/final_layer", [1.0, *[0.3] * (len(final[0]) - 1)]
    begins_high = [
        dataclasses.replace(
            run, metrics=run.metrics | {name: (run.metrics[name][0], np.array(high))}
        )
        for run in runs
    ]
    assert list(by_learner(begins_high, "final_layer_fall").values()) == [0.0, 0.0]
    planted = [with_settings(run, plant_updates=5) for run in begins_high]
    assert list(by_learner(planted, "final_layer_fall").values()) == pytest.approx([0.7, 0.7])


def test_beside_planted_nets_there_is_no_value_of_the_papers(found):
    runs = [with_settings(run, **{"dataset.label": "CIFAR-10"}) for run in found[0].runs]
    runs = [dataclasses.replace(run, data="CIFAR-10") for run in runs]
    planted = [with_settings(run, plant_updates=5) for run in runs]
    for table, column in ((tables.table1, "best FID, paper"), (tables.table3, "accuracy, paper")):
        for some, theirs in ((runs, True), (planted, False)):
            rows = table(some)
            of_ours = rows[rows["seeds"].astype(str) != ""]
            assert (of_ours[column] != "").any() == theirs
