"""The figures of the cures: a method a row, beside the baseline of the same recordings."""

import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from stubs import stub
from test_opponents import MET, STUDY, family, joint, runs  # noqa: F401

from experiments import benchmarks
from experiments.show import cures, in_short, memory, opponents
from experiments.show.arms import words, wrapped
from experiments.show.groups import groups
from experiments.show.intervals import mean_interval
from experiments.show.plotting import style
from forgetting.measures import KEPT


def test_cures_draws_differences_that_are_paired(runs, tmp_path, monkeypatch):  # noqa: F811
    what = (benchmarks.TIME, benchmarks.MEMORY)
    table = [
        benchmarks.row(benchmarks.cost("rotation", w), "cpu", [1.1, 1.2, 1.5], "-") for w in what
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": table}))
    monkeypatch.setattr(cures, "BENCH", tmp_path / "bench.json")
    (found,) = cures.with_cures(groups(runs, STUDY))
    memory_of, past = found.columns
    assert memory_of.of == past.of == "3 recordings"
    assert memory_of.differences == {"rotation": pytest.approx([0.02, 0.04, 0.06])}
    assert past.differences["replay"] == pytest.approx([0, -0.03, -0.12])
    # Joint training reaches 0.25 above the twins, and 0.925: paired with each recording's.
    assert memory_of.reference == pytest.approx(np.mean([0.25 - m for m in (0.1, 0.13, 0.22)]))
    assert past.reference == pytest.approx(np.mean([0.925 - m for m in (0.775, 0.805, 0.895)]))
    axes = cures.cures([found]).axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["rotation", "replay"]
    for axis, column in zip(axes, found.columns, strict=False):
        drawn = {round(bar.lines[0].get_ydata()[0]): bar for bar in axis.containers}
        assert drawn.keys() == set(range(len(column.differences)))
        for y, method in enumerate(column.differences):
            interval = mean_interval(column.differences[method])
            assert drawn[y].lines[0].get_xdata()[0] == pytest.approx(interval.mean)
            low_high = drawn[y].lines[2][0].get_segments()[0][:, 0]
            assert low_high == pytest.approx([interval.low, interval.high])
        (dashed,) = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
        assert dashed == column.reference
    assert [axis.containers[0].lines[0].get_xdata()[0] for axis in axes[2:]] == [1.2, 1.2]


def test_cures_in_short_has_what_cures_has_of_memory_the_best_first(runs):  # noqa: F811
    better = [run for unit in (1, 2, 3) for run in family(unit, 0.3, method="shuffled")]
    runs = [*runs, *memory.with_memory(better)]
    found = groups(runs, STUDY)
    (group,) = in_short.with_answer(found)
    (axis,) = in_short.cures_in_short([group]).axes
    memory_of = cures.with_cures(found)[0].columns[0]
    means = {m: mean_interval(v).mean for m, v in memory_of.differences.items()}
    best_first = sorted(means, key=means.get, reverse=True)
    assert best_first == ["shuffled", "rotation"]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        wrapped(words(STUDY, method), 28) for method in best_first
    ]
    drawn = [bar.lines[0].get_xdata()[0] for bar in axis.containers]
    assert drawn == pytest.approx([means[method] for method in best_first])
    (dashed,) = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
    assert dashed == memory_of.reference
    # What a method was not measured in is no gap that a reader has to explain.
    other = memory_of._replace(measure=KEPT.name, differences={"shuffled": [0.1, 0.2]})
    both = cures.SideBySide(group.runs, "", [memory_of, other])
    axes = in_short.cures_in_short([both]).axes
    said = [[t.xy[1] for t in a.texts if t.get_text().strip() == "not measured"] for a in axes]
    assert said == [[], [1]]
    one = [run for run in runs if run.unit == 1]
    assert in_short.with_answer(groups(one, STUDY)) == []  # no interval, no answer


def test_what_is_written_at_three_columns_does_not_overlap():
    columns = [
        cures.Column(name, "", {"replay": [0.1, 0.2, 0.3]}, None, "10 recordings")
        for name in in_short.IN_WORDS
    ]
    style()
    figure = in_short.cures_in_short([cures.SideBySide([stub(MET)], "", columns)])
    figure.canvas.draw()
    written = {
        axis: [t for t in axis.findobj(Text) if "\n" in t.get_text()] for axis in figure.axes
    }
    assert [len(texts) for texts in written.values()] == [2, 1, 1]  # a title, and what is measured
    boxes = [[t.get_window_extent() for t in texts] for texts in written.values()]
    for left, right in itertools.pairwise(boxes):
        assert max(box.x1 for box in left) < min(box.x0 for box in right)


def test_without_an_arm_beside_the_baseline_there_is_no_cure():
    style()
    assert cures.with_cures(groups([stub(MET), joint()], STUDY)) == []
    two = [stub(MET), stub(MET, method="replay")]
    (found,) = cures.with_cures(groups(two, STUDY))
    assert [column.reference for column in found.columns] == [None]  # no twins, no joint training
    for draw, name in (
        (cures.cures, "cures"),
        (opponents.opponents, "opponents, sequential tasks"),
    ):
        assert draw([]).texts[0].get_text() == f"{name}: no completed run"
    plt.close("all")


@pytest.mark.parametrize(
    "arm,method",
    [("uncond", "vanilla"), ("ssgan", "rotation"), ("uncond+ewc(weight=10)", "ewc(weight=10)"),
     ("ssgan+replay", "replay+rotation"), ("cond", None), ("rotation_only", None),
     ("supervised", None), ("der(alpha=0.02)", "der(alpha=0.02)")],
)  # fmt: skip
def test_a_live_gans_arm_stands_in_its_methods_row(arm, method):
    assert cures.as_method(arm) == method
