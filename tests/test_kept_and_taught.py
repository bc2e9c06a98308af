"""What is told and drawn of planted nets beside their twins that were not."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import with_settings
from stubs import stub

from experiments.run.stored import stored_runs
from experiments.show import kept_and_taught
from experiments.show.arms import colour_of
from experiments.show.compare import claimed_pairs, comparisons
from experiments.show.gan import figure2
from experiments.show.groups import groups
from experiments.show.intervals import mean_interval
from experiments.show.planted import planted, with_kept
from experiments.show.plotting import style
from experiments.show.references import references
from forgetting.methods import available

STEPS = np.array([0, 100, 200, 400])
PLANTED, BARE = [0.6, 0.5, 0.42, 0.4], [0.3, 0.36, 0.38, 0.4]
KEPT = [0.3, 0.14, 0.04, 0.0]


def run(curve, plant_updates, unit=1, **settings):
    of = stub([[0.5] * 2] * 2, unit=unit, plant_updates=plant_updates, **settings)
    curve = (STEPS, np.asarray(curve, float))
    of = replace(of, folder=of.folder / f"{plant_updates}-{settings.get('stream_blend')}")
    return replace(of, metrics=of.metrics | {"probe/final_layer": curve})


def pair(unit=1, shift=0.0, plant_updates=50, **settings):
    """A planted run that keeps `shift` more from its first turn's end on, and its twin."""
    more = np.array(PLANTED) + np.array([0, shift, shift, shift])
    return [run(more, plant_updates, unit, **settings), run(BARE, 0, unit, **settings)]


def test_kept_taught_and_half_life_by_hand():
    (of,) = planted(pair())
    assert of.kept == pytest.approx(KEPT)
    one, twin = with_kept(pair())
    # Half of 0.3 is crossed between 0 (0.3) and 100 (0.14).
    expected = {"kept": np.mean(KEPT[1:]), "taught": np.mean(BARE[1:]) - BARE[0]}
    expected["kept_half_life"] = 100 * (0.3 - 0.15) / (0.3 - 0.14)
    assert {name: one.result[name] for name in expected} == pytest.approx(expected)
    assert not expected.keys() & twin.result.keys()


def test_where_nothing_is_lost_or_nothing_was_planted():
    stays = with_kept([run([0.6] * 4, 50), run([0.3] * 4, 0)])[0].result
    assert stays["kept_half_life"] == STEPS[-1] and stays["kept"] == pytest.approx(0.3)
    harmed = with_kept([run([0.2] * 4, 50), run(BARE, 0)])[0].result
    assert "kept_half_life" not in harmed and harmed["kept"] < 0


@pytest.mark.parametrize(
    "other",
    [
        *({"unit": 2}, {"unit": 2, "seed": 1}, {"seed": 2}, {"method": "rotation"}),
        *({"stream_switch": "none"}, {"width": 64}),
    ],
)
def test_a_twin_differs_in_planting_alone(other):
    assert planted([run(PLANTED, 50), run(BARE, 0, **other)]) == []


@pytest.mark.parametrize("plants", [50, 0])
def test_a_twin_may_be_of_another_device(plants):
    one, twin = pair()
    of = twin if plants else one
    other = with_settings(of, device="cuda")
    (found,) = planted([other, one if plants else twin])
    assert found.kept == pytest.approx(KEPT)


@pytest.fixture
def found():
    """Two arms and the reference on three recordings, where opponents move and where they stay."""
    runs = [run([0.3, 0.5, 0.6, 0.7], 0, unit, method="supervised") for unit in (1, 2, 3)]
    for unit in (1, 2, 3):
        runs += pair(unit, 0.01 * unit) + pair(unit, 0.05 + 0.01 * unit, method="rotation")
        runs += pair(unit, 0.1 + 0.01 * unit, stream_switch="none")
    style()
    yield with_kept(runs)
    plt.close("all")


def test_the_figure_draws_curves_plane_and_references_of_the_runs(found):
    (group,) = kept_and_taught.with_planted(groups(found, "sequential_tasks"))
    moving, still, plane = kept_and_taught.planted([group]).axes
    for axis, arms in ((moving, 2), (still, 1)):
        full = [
            line
            for line in axis.lines
            if line.get_linestyle() == "-" and len(line.get_xdata()) == 4
        ]
        dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert len(full) == len(dashed) == arms
        assert all(np.allclose(line.get_ydata(), BARE) for line in dashed)
    plain = np.add(PLANTED, [0, 0.02, 0.02, 0.02])
    assert np.allclose(moving.lines[0].get_ydata(), plain)
    stored = references(group.runs, "probe/final_layer")
    assert stored["supervised"] == pytest.approx(0.7) and stored["untrained"] == pytest.approx(0.3)
    lines = {line.get_ydata()[0] for line in moving.lines if line.get_linestyle() == ":"}
    assert lines == set(stored.values())
    points = {tuple(np.round([c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]], 6))
              for c in plane.containers}  # fmt: skip
    kept = [np.mean(KEPT[1:]) + shift for shift in (0.02, 0.07, 0.12)]
    taught = np.mean(BARE[1:]) - BARE[0]
    assert points == {tuple(np.round([k, taught], 6)) for k in kept}
    bars = mean_interval([np.mean(KEPT[1:]) + 0.01 * unit for unit in (1, 2, 3)])
    ends = plane.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx([bars.low, bars.high])


def test_of_more_arms_than_can_be_told_apart_those_of_claims_have_curves(found):
    many = sorted(available().keys() - {"vanilla", "rotation", "supervised"})
    runs = [of for name in many for unit in (1, 2, 3) for of in pair(unit, method=name)]
    (group,) = kept_and_taught.with_planted(groups(with_kept([*found, *runs]), "sequential_tasks"))
    moving, _, plane = kept_and_taught.planted([group]).axes
    drawn = {line.get_color() for line in moving.lines if line.get_linestyle() == "--"}
    claimed = {arm for of in claimed_pairs("sequential_tasks", group.runs) for arm in of}
    assert {"vanilla", "rotation", "ewc"} <= claimed < set(group.arms()) | claimed
    assert drawn == {colour_of(arm) for arm in group.arms() if arm in claimed}
    assert len(drawn) < len(many) and "claims' arms" in moving.get_title("left")
    assert len(plane.get_legend().get_texts()) == len(many) + 2
    usual = kept_and_taught.planted(kept_and_taught.planted_of(found))
    assert moving.figure.figure.get_figheight() > usual.get_figheight()
    assert "claims" not in plane.get_title("left")


def test_planted_and_not_are_compared_in_what_is_kept_and_lengths_of_planting(found):
    compared = list(comparisons(groups(found, "sequential_tasks")))
    named = {of.measure.name for of in compared if "stream.switch=" in of.subtrahend}
    assert {"kept", "taught"} <= named  # other settings are
    assert not any("plant_updates=" in of.subtrahend for of in compared)
    longer = [of for unit in (1, 2, 3) for of in pair(unit, 0.2, plant_updates=90)]
    compared = comparisons(groups(with_kept([*found, *longer]), "sequential_tasks"))
    lengths = {(of.minuend, of.subtrahend) for of in compared if "plant" in of.subtrahend}
    assert lengths == {("vanilla, plant_updates=90", "plant_updates=50")}


def test_the_legend_says_which_arm_is_of_fewer_recordings(found):
    fewer = [of for unit in (1, 2) for of in pair(unit, method="replay")]
    (group,) = kept_and_taught.planted_of(with_kept([*found, *fewer]))
    legend = kept_and_taught.planted([group]).axes[-1].get_legend()
    said = [" ".join(text.get_text().split()) for text in legend.get_texts()]
    assert said == ["vanilla", "rotation", "replay, 2 recordings"]


def test_the_table_holds_the_same_numbers(found):
    table = kept_and_taught.table(found).set_index(["task", "arm"])
    assert list(table.index) == [
        *(("moving", "vanilla"), ("all at once", "vanilla"), ("moving", "rotation")),
    ]
    row = table.loc["moving", "rotation"]
    kept = mean_interval([np.mean(KEPT[1:]) + 0.05 + 0.01 * unit for unit in (1, 2, 3)])
    assert row["kept"] == f"{kept.mean:+.3f} [{kept.low:+.3f}, {kept.high:+.3f}]"
    assert row["planted"].startswith(f"{KEPT[0]:+.3f} [") and row["over"] == "3 recordings"
    end = mean_interval([PLANTED[-1] + 0.05 + 0.01 * unit - BARE[0] for unit in (1, 2, 3)])
    assert row["planted, at the end"] == f"{end.mean:+.3f} [{end.low:+.3f}, {end.high:+.3f}]"
    shares = [
        np.mean(np.array(KEPT[2:]) + more) / (KEPT[1] + more)
        for more in (0.05 + 0.01 * unit for unit in (1, 2, 3))
    ]
    share = mean_interval(shares)
    assert row["of turn 1's"] == f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"
    # Of one that had nothing left after its first turn there is no share, and so of its arm none.
    nothing = [run([0.6, *BARE[1:]], 50, 4), run(BARE, 0, 4)]
    table_4 = kept_and_taught.table(with_kept([*found, *nothing])).set_index(["task", "arm"])
    assert table_4.loc["moving", "vanilla"]["of turn 1's"] == ""
    assert table_4.loc["moving", "vanilla"]["over"] == "4 recordings"
    # What a unit keeps more moves the step at which half of 0.3 is left.
    crossed = []
    for unit in (1, 2, 3):
        curve = np.array(KEPT) + np.array([0, *[0.05 + 0.01 * unit] * 3])
        crossed.append(np.interp(-0.15, -curve, STEPS))
    assert row["half-life"].startswith(f"{np.mean(crossed):.0f} [")
    assert kept_and_taught.table([run(BARE, 0)]).empty


def test_a_gans_discriminator_is_a_panel_and_rows_of_its_own(gan_runs):
    live = next(of for of in stored_runs(gan_runs) if of.arm == "uncond")
    runs = [
        with_settings(
            replace(live, folder=Path(f"{seed}{updates}"), seed=seed, metrics=live.metrics | curve),
            plant_updates=updates, seed=seed,
        )
        for seed in (0, 1)
        for updates, values in ((50, PLANTED), (0, BARE))
        for curve in [{"probe/final_layer": (STEPS, np.add(values, seed / 100))}]
    ]  # fmt: skip
    style()
    found = with_kept(runs)
    (group,) = kept_and_taught.with_planted(groups(found, "gan_probe"))
    curves, plane = kept_and_taught.planted([group]).axes
    assert curves.get_xlabel() == "updates of the generator"
    assert np.allclose(curves.lines[0].get_ydata(), np.add(PLANTED, 0.005))
    assert plane.containers[0].lines[0].get_xdata() == pytest.approx(np.mean(KEPT[1:]))
    plt.close("all")
    (row,) = kept_and_taught.table(found).to_dict("records")
    assert (row["task"], row["arm"], row["over"]) == ("with its generator", "uncond", "2 seeds")
    # In Figure 2 they stand behind those that were not planted, and are read against the same.
    of_labels = replace(runs[1], folder=Path("labels"), arm="supervised")
    both = groups([*runs, with_settings(of_labels, model="supervised")], "gan_probe")
    axes = figure2(both).axes
    of_bare, of_planted = (axis for axis in axes if "final layer" in axis.get_ylabel())
    assert np.allclose(of_bare.lines[0].get_ydata(), np.add(BARE, 0.005))
    assert np.allclose(of_planted.lines[0].get_ydata(), np.add(PLANTED, 0.005))
    lines = [
        [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"]
        for axis in (of_bare, of_planted)
    ]
    assert lines[0] == lines[1] and BARE[-1] in lines[1]
    plt.close("all")
    # A method without a planted run brings a setting that the others have not.
    more = [
        replace(with_settings(of, model="uncond+ewc", boundary_every=500), arm="uncond+ewc")
        for of in runs[1::2]
    ]
    found = with_kept([*runs, *(replace(of, folder=Path(f"{of.folder}+")) for of in more)])
    (group,) = kept_and_taught.with_planted(groups(found, "gan_probe"))
    assert {(of.arm, of.config["plant_updates"]) for of in group.runs} == {
        *(("uncond", 50), ("uncond", 0)),
    }
    # Where its twin is in no group, what the planted run says of the untrained net is drawn.
    alone = [
        replace(of, result=of.result | {"probe_final_layer_untrained": 0.31}) for of in runs[::2]
    ]
    assert references(alone, "probe/final_layer")["untrained"] == pytest.approx(0.31)


def test_other_lengths_of_planting_and_of_a_gradual_switch_are_other_figures(found):
    longer = [of for unit in (1, 2, 3) for of in pair(unit, 0.2, plant_updates=90)]
    both = kept_and_taught.with_planted(
        groups(with_kept([*found, *longer[::2]]), "sequential_tasks")
    )
    assert [group.differs for group in both] == ["plant_updates=50", "plant_updates=90"]
    for group, updates in zip(both, (50, 90), strict=True):
        assert {of.config["plant_updates"] for of in group.runs} == {0, updates}
    # One length has gradual switches, the other has none.
    mixed = [*found, *longer[::2], *pair(stream_switch="gradual", stream_blend=0.2)]
    both = kept_and_taught.with_planted(groups(with_kept(mixed), "sequential_tasks"))
    assert [group.differs for group in both] == ["plant_updates=50", "plant_updates=90"]
    blends = [
        of for blend in (0.2, 0.5) for unit in (1, 2, 3)
        for of in pair(unit, stream_switch="gradual", stream_blend=blend)
    ]  # fmt: skip
    apart = kept_and_taught.with_planted(groups(with_kept([*found, *blends]), "sequential_tasks"))
    assert [group.differs for group in apart] == ["stream.blend=0.2", "stream.blend=0.5"]


def test_references_are_of_complete_runs_alone(found):
    whole = references(found, "probe/final_layer")
    under_way = replace(run([0.3, 0.4, 0.4, 0.43], 0, 4, method="supervised"), status="INTERRUPTED")
    assert references([*found, under_way], "probe/final_layer") == whole
