"""When a claim is confirmed, spoken against, undecided or equivalent, and claims as a family."""

import math
from dataclasses import replace

import pytest
from conftest import with_settings

from experiments.run.stored import stored_runs
from experiments.show import verdicts
from experiments.show.compare import by_learner
from experiments.show.groups import groups
from experiments.show.intervals import Interval, holm, paired_interval
from experiments.show.own_tables import claims
from experiments.show.verdicts import Judged, negative
from experiments.sweeps.claims import Claim, Term, claims_of

PAIR = (Term(1, "a", {}), Term(-1, "b", {}))


@pytest.fixture
def found(sequential_runs):
    return groups(stored_runs(sequential_runs), "sequential_tasks")


def test_claims_are_corrected_as_a_family(found):
    table = claims(found[0].runs)
    differences = [
        paired_interval(
            *(by_learner(found[0].of_arm(arm), "cycle_gain") for arm in ("rotation", other))
        )
        for other in ("vanilla", "augment")
    ]
    # Of the six of the family that no run here tells of count as well.
    expected = holm([*(difference.p for difference in differences), *[1.0] * 4])[:2]
    assert table["p, Holm"].tolist() == [f"{p:.3f}" for p in expected]
    for text, difference in zip(table["difference"], differences, strict=True):
        assert text.startswith(f"{difference.mean:+.3f} [")
    # Runs of the other precision are looked at in a family of their own.
    other = {"fp32": "bf16", "bf16": "fp32"}
    precision = other[found[0].runs[0].config["precision"]]
    twins = [with_settings(run, precision=precision) for run in found[0].runs]
    assert claims([*found[0].runs, *twins])["p, Holm"].tolist() == 2 * table["p, Holm"].tolist()
    # Seeds that do not differ at all are undecided, and one claim of the family all the same.
    of_vanilla = {run.seed: run.result["cycle_gain"] for run in found[0].of_arm("vanilla")}
    even = [
        replace(run, result={**run.result, "cycle_gain": of_vanilla[run.seed]})
        if run.arm == "augment"
        else run
        for run in found[0].runs
    ]
    same = [replace(run, arm="rotation") for run in even if run.arm == "augment"]
    rest = [run for run in even if run.arm != "rotation"]
    table = claims([*rest, *same])
    assert table["p, Holm"].tolist() == ["1.000"] * 2
    assert table["verdict"].tolist() == ["undecided"] * 2


def test_what_somebody_tries_beside_changes_no_p_value_of_what_was_planned(found):
    planned = claims(found[0].runs)
    beside = [with_settings(run, lr=5e-4) for run in found[0].runs]
    both = claims([*found[0].runs, *beside])
    assert len(both) == 4 and set(both["settings"]) == {"lr=0.001", "lr=0.0005"}
    there = both[both["settings"] == "lr=0.001"]
    assert there[["claim", "p, Holm", "verdict"]].values.tolist() == (
        planned[["claim", "p, Holm", "verdict"]].values.tolist()
    )
    # One seed of other settings decides nothing, and is no row.
    assert len(claims([*found[0].runs, *(run for run in beside if run.seed == 0)])) == 2


def test_the_cells_of_a_plans_own_grid_are_one_family(found, monkeypatch):
    plan = {"study": "sequential_tasks", "grid": {"seed": [0, 1], "lr": [1e-3, 5e-4]}, "claims": [
        {"words": "w", "measure": "cycle_gain", "arm": "rotation", "baseline": "vanilla",
         "expected": "above"}
    ]}  # fmt: skip
    of_plan = claims_of(plan, "mine")
    assert of_plan[0].grid == {("lr", "0.001"), ("lr", "0.0005")}
    monkeypatch.setattr(verdicts, "claims", lambda *_: of_plan)
    runs = [*found[0].runs, *(with_settings(run, lr=5e-4) for run in found[0].runs)]
    looked_at = verdicts.judged(groups(runs, "sequential_tasks"))
    assert [of.p for of in looked_at] == holm([of.difference.p for of in looked_at])
    assert len({of.departs for of in looked_at}) == 1 and "lr=" not in looked_at[0].departs
    monkeypatch.setattr(verdicts, "claims", lambda *_: claims_of({**plan, "grid": {}}, "mine"))
    apart = verdicts.judged(groups(runs, "sequential_tasks"))
    assert {of.p for of in apart} == {of.difference.p for of in apart}
    assert [of for of in apart if "lr=0.0005" in of.departs.split(", ")]


def test_runs_that_stand_in_several_groups_are_one_row_of_a_family(found):
    """An arm that uses a setting that the others do not, at two values."""
    runs = [
        replace(run, identity={k: v for k, v in run.identity.items() if k != "probe_features"})
        for run in found[0].runs
    ]
    more = [
        with_settings(replace(run, arm="mine"), probe_features=n)
        for n in (8, 16) for run in found[0].of_arm("vanilla")
    ]  # fmt: skip
    several = groups([*runs, *more], "sequential_tasks")
    assert len(several) == 2
    assert claims([*runs, *more])["p, Holm"].tolist() == claims(runs)["p, Holm"].tolist()


@pytest.mark.parametrize(
    "expected,low,p,verdict",
    [
        ("above", 0.05, 0.002, "confirmed"),
        ("below", 0.05, 0.002, "confirmed"),  # the difference is above zero where the words hold
        ("not above", 0.05, 0.002, "against"),
        ("above", 0.05, 0.06, "undecided"),
        ("above", -0.01, 0.002, "undecided"),
        ("above", 0.05, math.nan, "undecided"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_holms_p(expected, low, p, verdict):
    claim = Claim("words", "recovery", expected, PAIR, "sequential_tasks", "family", {})
    interval = Interval(0.1, low, 0.15, 5, 0.001)  # its own p, before Holm's
    assert Judged(None, claim, None, interval, p).verdict == verdict
    against = {"confirmed": "against", "against": "confirmed"}.get(verdict, verdict)
    if low > 0:
        assert Judged(None, claim, None, negative(interval), p).verdict == against


@pytest.mark.parametrize(
    "low,high,p,smallest,verdict",
    [
        (-0.02, 0.02, 0.5, 0.02, "equivalent"),
        (-0.02, 0.021, 0.5, 0.02, "undecided"),
        (-0.021, 0.02, 0.5, 0.02, "undecided"),
        (-0.01, 0.01, 0.5, None, "undecided"),
        (0.001, 0.01, 0.06, 0.02, "equivalent"),
        (0.001, 0.01, 0.01, 0.02, "confirmed"),  # small, and yet decided
        (math.nan, math.nan, math.nan, 0.02, "undecided"),
    ],
)
def test_an_undecided_claim_without_room_for_an_effect_of_interest_is_equivalent(
    low, high, p, smallest, verdict
):
    claim = Claim("words", "recovery", "above", PAIR, "sequential_tasks", "f", {}, smallest)
    interval = Interval((low + high) / 2, low, high, 5, p)
    assert Judged(None, claim, None, interval, p).verdict == verdict
    if verdict != "confirmed":
        assert Judged(None, claim, None, negative(interval), p).verdict == verdict


@pytest.mark.parametrize(
    "expected,high,by_interval",
    [("equivalent", 0.01, True), ("equivalent", 0.03, False), ("above", 0.01, False)],
)
def test_where_two_were_to_be_equal_no_p_confirms_it(expected, high, by_interval):
    claim = Claim("words", "recovery", expected, PAIR, "sequential_tasks", "f", {}, 0.02)
    interval = Interval(high / 2, 0.0, high, 5, 0.5)
    assert Judged(None, claim, None, interval, 0.5).by_its_interval == by_interval
