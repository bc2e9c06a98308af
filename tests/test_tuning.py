"""How the cures are tuned, and the plans in which they meet."""

import ast
import contextlib
import tomllib
from collections import Counter

import pandas as pd
import pytest
from conftest import PROJECT
from stubs import stub

from experiments.run.identity import arm_name, identity, on_any_device
from experiments.run.study import studies
from experiments.show import verdicts
from experiments.show.groups import groups
from experiments.sweeps.claims import PLANS, Claim, Term
from experiments.sweeps.kept import claims
from experiments.sweeps.plan import read_plan
from experiments.sweeps.tuning import to_be_tried, tuning
from forgetting.errors import UserError
from forgetting.methods import available

STUDY = "sequential_tasks"


def measures(arms, **other):
    """A table of two seeds an arm; arms: name -> (past_auc, learning accuracy)."""
    rows = [
        {"study": STUDY, "data": "digits", "preset": "cpu", "settings": "", "unit": "uncond_11 0"}
        | {"arm": arm, "seed": seed, "metric": metric, "value": value + sign * 0.01, **other}
        for arm, values in arms.items()
        for metric, value in zip(("past_auc", "learning_accuracy/cycle_2"), values, strict=True)
        for seed, sign in ((100, -1), (101, 1))
    ]
    return pd.DataFrame(rows)


def test_the_best_that_still_learns_is_chosen_and_an_edge_is_named():
    table = tuning(
        measures(
            {
                "vanilla": (0.6, 0.9),
                "ewc": (0.7, 0.885),  # weight 100, by default
                "ewc(weight=10.0)": (0.65, 0.9),
                "ewc(weight=1000.0)": (0.8, 0.87),  # learns too little
                "rotation": (0.62, 0.9),
                "rotation(rotation_weight=10.0)": (0.63, 0.9),
                "slow": (0.5, 0.7),
                "slow(factor=0.01)": (0.4, 0.6),
            }
        )
    ).set_index(["method", "value"])
    assert (table["runs"] == 2).all()
    chosen = table[table["chosen"]].drop("vanilla", level="method")
    assert list(chosen.index) == [("ewc", 100.0), ("rotation", 10.0)]
    assert list(chosen["at_edge"]) == [False, True]
    assert list(table.loc["ewc"].index) == [10.0, 100.0, 1000.0]
    assert table.loc[("ewc", 1000.0), "past_auc"] == pytest.approx(0.8)
    assert set(table.loc["slow"].index) == {0.01, 0.1}
    assert to_be_tried(table.reset_index()) == [
        "rotation: 10.0 is the best, at the edge of what was tried; try beyond it",
        "slow: no value learns well enough; try some nearer to plain training",
    ]


def test_a_value_that_lacks_a_seed_is_not_chosen():
    whole = {"vanilla": (0.6, 0.9), "r1": (0.7, 0.9), "r1(weight=1.0)": (0.65, 0.9)}
    table = measures(whole | {"r1(weight=100.0)": (0.8, 0.9)})
    table = tuning(table[(table["arm"] != "r1(weight=100.0)") | (table["seed"] == 100)])
    assert table[table["chosen"] & (table["method"] == "r1")]["value"].tolist() == [10.0]
    assert to_be_tried(table) == ["r1: runs are lacking at 100.0"]
    # The baseline lacks one; nothing more is said of a method whose runs are not all there.
    table = measures(whole)
    table = tuning(table[(table["arm"] == "r1") | (table["seed"] == 100)])
    assert to_be_tried(table) == ["r1: runs are lacking at 1.0", "vanilla: runs are lacking"]


def test_runs_that_are_no_one_experiment_and_none_without_the_baseline_are_tuned_by():
    one = {"vanilla": (0.6, 0.9)}
    two = pd.concat([measures(one), measures(one, unit="uncond_1 0")])
    with pytest.raises(UserError, match="differ in more than arm and seed"):
        tuning(two)
    for lacking in (measures({"ewc": (0.6, 0.9)}), measures(one)[:0]):
        with pytest.raises(UserError, match="there is no vanilla"):
            tuning(lacking)


def identities(plan):
    """Of each run of a plan, as far as its words decide; with its arm."""
    study, all_words = read_plan(plan)
    found = {}
    for words in all_words:
        settings = dict(word.split("=", 1) for word in words)
        for key, text in settings.items():
            with contextlib.suppress(ValueError, SyntaxError):  # a text
                settings[key] = ast.literal_eval(text)
        own = identity(studies()[study], settings)
        of = {"stream.recording": settings.get("stream.recording")}
        found[on_any_device(own | of)] = own
    return found


def test_tuning_has_every_method_its_default_among_its_values_and_one_recording_alone():
    plan = tomllib.loads((PLANS / "tune_cures.toml").read_text())
    runs = identities("tune_cures").values()
    assert plan["settings"]["stream"]["recording"] == "uncond_11"
    assert {run["method"] for run in runs} == available().keys() - {"supervised"}
    assert {run["seed"] for run in runs} == {100, 101, 102}
    for name in available().keys() - {"supervised"}:
        weight, default = f"{name}.weight", available()[name].settings.get("weight")
        if default:
            tried = {run[weight] for run in runs if run["method"] == name}
            # Where the default hardly learns, as had been seen before, more below it.
            powers = {"ewc": (-2, -1, 0)} | dict.fromkeys(("averaging", "l2", "r1"), range(-2, 2))
            decades = [default.default * 10**k for k in powers.get(name, (-1, 0, 1))]
            assert sorted(tried) == pytest.approx(decades), name
    text = (PROJECT / "docs/searches.md").read_text()
    written = text[text.index("| values to be tried |") :].partition("\n\n")[0]
    methods = {run["method"] for run in runs} - {"vanilla"}
    assert all(f"`{method}`" in text for method in methods)
    assert "0.01, 0.03, **0.1**" in written


@pytest.mark.parametrize(
    "plan,earlier,arms",
    [("cures_opponents", "opponents", 5), ("cures_planted", "planted", 6)],
)
def test_what_an_earlier_plan_has_made_is_not_made_again(plan, earlier, arms):
    """The baseline and what else both plans have, of ten recordings, planted and not."""
    ours, theirs = identities(plan), identities(earlier)
    both = {run["method"] for key, run in ours.items() if key in theirs}
    assert len(both) >= arms and "vanilla" in both
    moving = [
        run
        for key, run in theirs.items()
        if run["method"] in both and run["stream.switch"] == "abrupt" and not run["stream.omit"]
        and run["width"] == (16 if plan == "cures_opponents" else 32)
        and run.get("replay.size", 1000) == 1000
    ]  # fmt: skip
    assert set(map(on_any_device, moving)) <= set(map(on_any_device, ours.values()))
    assert {run["method"] for run in ours.values()} == {
        *(available().keys() - {"supervised"}), "replay+rotation",
    }  # fmt: skip


def test_nine_claims_of_the_cures_are_one_family_over_two_plans():
    found = [claim for claim in claims(STUDY) if claim.family == "the cures"]
    assert len(found) == 9
    assert {claim.measure for claim in found} == {"memory", "kept", "taught"}
    assert {claim.smallest for claim in found} == {0.044, 0.029}
    runs = [run for plan in ("cures_opponents", "cures_planted")
            for run in identities(plan).values()]  # fmt: skip
    names = {arm_name(studies()[STUDY], run) for run in runs}
    assert {arm for claim in found for arm in claim.pair} <= names
    # What is said of memory needs twins that omit each generator but the last.
    for arm in {arm for claim in found if claim.measure == "memory" for arm in claim.pair}:
        omitted = [run["stream.omit"] for run in runs if arm_name(studies()[STUDY], run) == arm]
        of_units = Counter(j for omit in omitted for j in omit or ())
        assert of_units == dict.fromkeys(range(1, 8), 10), arm


@pytest.mark.parametrize(
    "shift,spread,verdict",
    [(0.0, 0.001, "confirmed"), (0.01, 0.0005, "confirmed"), (0.0, 0.2, "undecided"),
     (0.3, 0.01, "against"), (-0.3, 0.01, "against")],
)  # fmt: skip
def test_a_claim_may_expect_that_two_are_equivalent(shift, spread, verdict, monkeypatch):
    runs = []
    for unit, sign in ((1, -1), (2, 0), (3, 1)):
        met = [[0.5, 0.5], [0.6, 0.6]]
        runs.append(stub(met, unit=unit))
        more = shift + sign * spread
        runs.append(stub([[0.5, 0.5], [0.6 + more, 0.6]], unit=unit, method="rotation"))
    terms = (Term(1, "rotation", {}), Term(-1, "vanilla", {}))
    claim = Claim("words", "past_auc", "equivalent", terms, STUDY, "own", {}, 0.05)
    monkeypatch.setattr(verdicts, "claims", lambda *_: [claim])
    (found,) = verdicts.judged(groups(runs, STUDY))
    assert found.difference.mean == pytest.approx(shift) and found.verdict == verdict
