"""Claims that are weighted sums over arms and settings."""

from dataclasses import replace

import pytest
from conftest import with_settings
from stubs import stub

from experiments.show import own_tables, verdicts
from experiments.show.groups import groups
from experiments.sweeps.claims import Claim, Term, claims_of
from forgetting.errors import UserError

STUDY = "sequential_tasks"
CLAIM = {"words": "w", "measure": "kept", "expected": "above"}


def run(kept, **settings):
    of = stub([[0.5] * 3] * 6, **settings)
    return replace(of, result={"kept": kept}, metrics=of.metrics | {"probe/final_layer": None})


def interaction(monkeypatch, runs, **changes):
    terms = (
        Term(1, "rotation", {"width": 64}), Term(-1, "vanilla", {"width": 64}),
        Term(-1, "rotation", {"width": 16}), Term(1, "vanilla", {"width": 16}),
    )  # fmt: skip
    claim = Claim("w", "kept", "above", terms, STUDY, "f", {"plant_updates": 9, **changes}, 0.1)
    monkeypatch.setattr(verdicts, "claims", lambda *_: [claim])
    return verdicts.judged(groups(runs, STUDY))


def crossed(kept, **more):
    """A run of each arm and width, by recordings; kept: (arm, width, recording) -> value."""
    return [
        run(kept(arm, width, k), method=arm, width=width, unit=k, plant_updates=9, **more)
        for arm in ("vanilla", "rotation") for width in (16, 64) for k in (1, 2, 3)
    ]  # fmt: skip


def test_an_interaction_by_hand(monkeypatch):
    def kept(arm, width, k):
        return 0.1 * k + (0.2 + 0.01 * k) * (arm == "rotation") * (width == 64)

    (of,) = interaction(monkeypatch, crossed(kept))
    assert of.difference.mean == pytest.approx(0.22) and of.difference.n == 3
    assert of.verdict == "confirmed"


def test_only_recordings_that_every_term_has_count(monkeypatch):
    runs = crossed(lambda arm, width, k: float(k))
    (of,) = interaction(monkeypatch, runs[:-1])  # rotation at 64 lacks the third
    assert of.difference.n == 2
    without = [r for r in runs if not (r.arm == "rotation" and r.config["width"] == 64)]
    assert interaction(monkeypatch, without) == []
    assert interaction(monkeypatch, runs, plant_updates=5) == []


def test_groups_that_differ_in_more_than_the_terms_are_not_put_together(monkeypatch):
    runs = crossed(lambda arm, width, k: float(k))
    runs = [with_settings(r, batch_size=9) if r.config["width"] == 64 else r for r in runs]
    assert interaction(monkeypatch, runs) == []


@pytest.mark.parametrize(
    ("claim", "line"),
    [
        ({"terms": 3}, "terms must be a list of weight"),
        ({"terms": [{"arm": "a"}]}, "terms must be a list of weight"),
        ({"terms": [{"arm": "a", "weight": 0}]}, "terms must be a list of weight"),
        ({"terms": []}, "terms must be a list of weight"),
        ({"terms": [], "arm": "a"}, "it has terms, and needs no arm"),
        ({"terms": [{"arm": "a", "weight": 1, "settings": 1}]}, "settings of a term must be"),
        ({"arm": "a", "settings": 3}, "settings must be settings and their values"),
        ({}, "arm must be a text"),
    ],
)  # fmt: skip
def test_a_claim_that_will_not_do_is_one_line(claim, line):
    with pytest.raises(UserError, match="claim 1 of plan") as error:
        claims_of({"study": STUDY, "claims": [CLAIM | claim]}, "plan")
    assert line in str(error.value)


def test_settings_of_a_claim_stand_beside_the_plans():
    plan = {"study": STUDY, "settings": {"width": 16, "cycles": 2}}
    of_claim = CLAIM | {"arm": "a", "settings": {"width": 32, "stream": {"switch": "none"}}}
    (claim,) = claims_of(plan | {"claims": [of_claim]}, "plan")
    assert claim.settings == {"width": 32, "cycles": 2, "stream.switch": "none"}
    assert claim.terms == (Term(1, "a", {}),) and claim.pair is None


def test_a_users_method_is_judged_by_its_name_where_runs_of_one_text_are_there(monkeypatch, capsys):
    claim = Claim("mine keeps", "kept", "above", (Term(1, "mine", {}), Term(-1, "vanilla", {})),
                  STUDY, "f", {}, 0.1)  # fmt: skip
    monkeypatch.setattr(verdicts, "claims", lambda *_: [claim])
    runs = [
        replace(run(0.1 * k + gain, unit=k, plant_updates=9), arm=arm)
        for k in (1, 2, 3) for arm, gain in (("mine@5ff2", 0.2 + 0.01 * k), ("vanilla", 0))
    ]  # fmt: skip
    (of,) = verdicts.judged(groups(runs, STUDY))
    assert of.verdict == "confirmed" and of.difference.mean == pytest.approx(0.22)
    table = own_tables.differences(runs)
    row = table[(table["compared"] == "mine@5ff2 - vanilla") & (table["measure"] == "kept")]
    assert row["family"].tolist() == ["f"] and row["p, Holm"].item() == f"{of.p:.3f}"
    # Of two texts the one that ran last.
    again = [
        replace(one, arm="mine@77aa", id="z9", result={"kept": one.result["kept"] - 0.4})
        for one in runs if one.arm == "mine@5ff2"
    ]  # fmt: skip
    (of,) = verdicts.judged(groups([*runs, *again], STUDY))
    assert of.verdict == "against"
    assert own_tables.claims([*runs, *again])["claim"].tolist() == ["mine keeps (mine@77aa)"]
    assert own_tables.claims([one for one in runs if one.arm == "vanilla"]).empty
    said = (
        "warning: the claim 'mine keeps' is not judged: no runs of its settings have kept of mine"
    )
    assert said in capsys.readouterr().err


def test_a_users_method_that_goes_with_a_setting_stands_beside_its_baseline():
    """What it overrides is kept with its run, for its file may be gone."""
    info = {"methods": {"mine": {"overrides": {"spectral_norm": False}}}}
    plain = run(0.1, plant_updates=9, spectral_norm=True)
    own = run(0.2, plant_updates=9, spectral_norm=False)
    mine = replace(own, arm="mine@5ff2", info=own.info | info)
    assert [group.arms() for group in groups([plain, mine], STUDY)] == [["vanilla", "mine@5ff2"]]
    assert len(groups([plain, replace(mine, info=own.info)], STUDY)) == 2
