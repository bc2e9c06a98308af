"""What docs/results.md says in sentences of the shipped runs of planted nets."""

import re

import numpy as np
import pytest
from conftest import PROJECT

from experiments.run.stored import runs_and_rest
from experiments.show.drift import drift_matrix
from experiments.show.intervals import Interval, mean_interval
from experiments.show.planted import planted as beside_twins
from experiments.show.planted import with_kept
from experiments.show.texts import shown
from experiments.sweeps.kept import claims
from forgetting.measures import FINAL_LAYER

PAGE = PROJECT / "docs/results.md"


@pytest.fixture(scope="module")
def runs():
    shipped = runs_and_rest(PROJECT / "results/reference")[0]
    return with_kept([run for run in shipped if run.collection.startswith("planted")])


def planted(runs, arm="vanilla", width=32, switch="abrupt", planted=True):
    """The runs of the plan `planted`, by recording."""
    wanted = (arm, width, switch, 1500 if planted else 0)
    of = ("width", "stream.switch", "plant_updates")
    some = [run for run in runs if run.collection == "planted"]
    some = [run for run in some if (run.arm, *(run.identity.get(key) for key in of)) == wanted]
    return sorted(some, key=lambda run: run.seed)


def test_what_is_told_of_planted_nets(runs):
    text = " ".join(PAGE.read_text().split())

    def above_untrained(some, at):
        return shown(
            mean_interval([
                run.metrics[FINAL_LAYER][1][at] - run.result["probe_final_layer_untrained"]
                for run in some
            ]),
            "+",
        )  # fmt: skip

    narrow, wide = planted(runs), planted(runs, width=64)
    assert len(narrow) == len(wide) == 10
    assert f"Planting raises the final layer's probe by {above_untrained(narrow, 0)} at" in text
    plan = [run for run in runs if run.collection == "planted_as_gan"]
    as_gan = [run for run in plan if run.arm == "vanilla" and run.config["plant_updates"]]
    assert len(as_gan) == 5
    assert f"3,000 updates on the labels plant {above_untrained(as_gan, 0)}." in text
    kept = {
        (arm, width, switch): np.array([of.result["kept"] for of in some])
        for arm in ("vanilla", "rotation", "replay")
        for width in (16, 32, 64)
        for switch in ("abrupt", "none")
        if len(some := planted(runs, arm, width, switch)) == 10
    }
    stay = mean_interval(kept["rotation", 32, "none"] - kept["vanilla", 32, "none"])
    assert f"the loss costs what was planted, {shown(stay, '+')} of what is kept" in text
    after_one = [
        shown(mean_interval([with_twin.kept[1] for with_twin in beside_twins(some)]), "+")
        for some in (
            [*planted(runs, switch=switch), *planted(runs, switch=switch, planted=False)]
            for switch in ("abrupt", "none")
        )
    ]
    move, all_stay = after_one
    assert f"after one turn {move} where they move and {all_stay} where they stay" in text
    gains = [
        shown(paired_at_the_end(planted(runs, "rotation", 32, of), planted(runs, switch=of)), "+")
        for of in ("abrupt", "none")
    ]
    assert f"adds {gains[0]} to the end where opponents move, and {gains[1]} where they" in text
    more = {
        (arm, width): (kept[arm, width, "abrupt"] - kept["vanilla", width, "abrupt"]).mean()
        for arm, width in (("replay", 32), ("rotation", 64), ("rotation", 16))
    }
    replay, at_64, at_16 = more.values()
    assert f"what replay keeps more ({replay:.3f})" in text
    assert f"{at_64:.3f}" == f"{at_64 - at_16:.3f}" and f"16 (both {at_64:.3f})" in text
    # Each is smaller than what its claim said to matter.
    smallest = {claim.words: claim.smallest for claim in claims("sequential_tasks")}
    assert replay < smallest["it keeps more with replay than without"]
    assert (
        at_64 < smallest["with room (width 64) it keeps more with the rotation loss than without"]
    )
    for width, within in ((16, 0.028), (32, 0.029)):
        of = kept["rotation", width, "abrupt"] - kept["vanilla", width, "abrupt"]
        assert mean_interval(of).within(within), width
    room = "what rotation adds to what is kept is more at width 64 than at 16"
    assert at_64 - at_16 < smallest[room]


def paired_at_the_end(some, others) -> Interval:
    ends = [np.array([run.metrics[FINAL_LAYER][1][-1] for run in of]) for of in (some, others)]
    return mean_interval(ends[0] - ends[1])


def test_what_is_told_of_features_that_come_back(runs):
    text = " ".join(PAGE.read_text().split())
    told = []
    for of_planted in (True, False):
        for arm in ("vanilla", "rotation", "replay"):
            matrices = [drift_matrix([run]) for run in planted(runs, arm, planted=of_planted)]
            assert len(matrices) == 10
            matrix = np.mean(matrices, axis=0)
            # Row 0 is of the net before its first turn; turns 9 to 16 are generators' second ones.
            second = range(9, 17)
            own = [matrix[turn, turn - 8] for turn in second]
            others = [matrix[turn, turn - lag] for turn in second for lag in (7, 9) if turn > lag]
            told += [f"{np.mean(own):.2f}", f"{np.mean(others):.2f}"]
    words = re.search(r"At the ends of one generator's.*CKA weighs", text)[0]
    assert re.findall(r"0\.\d\d", words) == told


def test_what_is_told_of_planted_live_gans():
    shipped = runs_and_rest(PROJECT / "results/reference")[0]
    of = {}
    for run in (run for run in shipped if run.collection == "figure2"):
        if run.arm in ("uncond", "ssgan"):
            of.setdefault((run.arm, run.config["plant_updates"]), []).append(
                run.metrics[FINAL_LAYER]
            )
    assert [len(some) for some in of.values()] == [5] * 4
    steps, told = of["uncond", 0][0][0].tolist(), []
    for updates in (3000, 0):
        curves = [np.mean([of_run[1] for of_run in of[a, updates]], 0) for a in ("uncond", "ssgan")]
        ends = steps.index(1000) if updates else -1
        told.append({(f"{curve[0]:.2f}", f"{curve[ends]:.2f}") for curve in curves})
        assert all(np.ptp(curve[1:]) < 0.007 for curve in curves) or not updates
    (planted,), (bare,) = told
    text = " ".join(PAGE.read_text().split())
    assert "probe falls from {} to {} within 1,000 updates".format(*planted) in text
    assert "twin's climbs from {} to {}.".format(*bare) in text
