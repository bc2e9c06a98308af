"""What plans declare of their runs."""

import re
import tomllib

import pytest
from conftest import PROJECT

from experiments.run.stored import stored_runs
from experiments.show.compare import measures_of
from experiments.sweeps.claims import claims, claims_of
from experiments.sweeps.plan import read_plan
from forgetting.errors import UserError
from forgetting.measures import is_name

CLAIM = {"words": "it helps", "measure": "recovery", "arm": "ewc", "expected": "above"}


def test_the_papers_six_claims_are_one_family_of_two_plans():
    found = [*claims("sequential_tasks"), *claims("gan_probe")]
    found = [claim for claim in found if claim.family == "the paper's"]
    assert len(found) == 6
    assert {claim.expected for claim in found} == {"above", "below", "not above"}
    assert [claim.pair and claim.pair[1] for claim in found] == [
        "vanilla", "augment", "uncond", None, None, "uncond",
    ]  # fmt: skip


def test_each_claim_of_planted_knowledge_has_the_smallest_effect_of_its_width():
    text = (PROJECT / "docs/claims.md").read_text()
    tenths = dict(re.findall(r"^\| (16|32|64) \| .* \| \*\*(0\.\d+)\*\* \|$", text, re.M))
    found = [c for c in claims("sequential_tasks") if c.family == "planted knowledge"]
    assert len(found) == 7 and len(tenths) == 3
    for claim in found:
        widths = {term.settings.get("width", claim.settings.get("width")) for term in claim.terms}
        assert claim.smallest == min(float(tenths[str(width)]) for width in widths), claim.words


def test_a_plans_name_is_its_family_where_it_names_none():
    plan = {"study": "gan_probe", "settings": {"dataset": {"size": 16}}, "claims": [CLAIM]}
    (claim,) = claims_of(plan, "plans/cures.toml")
    assert claim.family == "cures" and claim.pair is None
    assert claim.settings == {"dataset.size": 16} and claim.smallest is None
    plan["claims"] = [CLAIM | {"smallest": 0.02}]
    assert claims_of(plan, "plans/cures.toml")[0].smallest == 0.02


@pytest.mark.parametrize(
    "text,line",
    [
        ("family = 3", "family in {} must be a text"),
        ("claims = 3", "claims in {} must be [[claims]], each with its settings"),
        ("[[claims]]\nwords = 'x'", "claim 1 of {}: arm must be a text"),
        ("[[claims]]\nbaselines = 'x'", "claim 1 of {} has 'baselines'; it holds words, measure"),
        ("[[claims]]\nwords = 'x'\narm = 'a'\nmeasure = 'm'\nexpected = 'more'",
         "claim 1 of {}: expected must be one of above, below, not above, not below, equivalent"),
        ("[[claims]]\nwords = 'x'\narm = 'a'\nmeasure = 'm'\nexpected = 'equivalent'",
         "claim 1 of {}: equivalent needs smallest, the smallest effect of interest"),
        ("[[claims]]\nwords = 'x'\narm = 'uncond'\nmeasure = 'probe_fnal'\nexpected = 'above'",
         "claim 1 of {}: there is no measure 'probe_fnal'; did you mean probe_final?"),
        ("[[claims]]\nwords = 'x'\narm = 'ssgn'\nmeasure = 'probe_final'\nexpected = 'above'",
         "claim 1 of {}: no run of the plan is of ssgn; there are ssgan, uncond"),
        ("grid.model = ['uncond', 'uncond+./my_idea.py']\n[[claims]]\nwords = 'x'\n"
         "arm = 'ssgan'\nmeasure = 'probe_final'\nexpected = 'above'",
         "claim 1 of {}: no run of the plan is of ssgan; there are uncond, uncond+my_idea"),
    ],
)  # fmt: skip
def test_a_claim_that_will_not_do_is_named_in_one_line(text, line, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(f'study = "gan_probe"\n{text}\n')
    with pytest.raises(UserError) as error:
        read_plan(str(path))
    assert str(error.value).startswith("PLAN: " + line.format(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arm", ["./my_idea.py+ewc", "ewc+my_idea", "ewc(weight=10.0)+my_idea"])
def test_an_arm_of_ones_own_is_written_as_in_the_grid(arm, tmp_path):
    path = tmp_path / "plan.toml"
    claim = "\n".join(f"{key} = '{text}'" for key, text in (CLAIM | {"arm": arm}).items())
    path.write_text(
        "study = 'sequential_tasks'\ngrid.method = ['vanilla', 'ewc+./my_idea.py']\n"
        f"[[claims]]\n{claim}\n"
    )
    if "(" in arm:  # they stand behind the whole arm
        with pytest.raises(UserError, match="no run of the plan is of ewc; there are"):
            read_plan(str(path))
    else:
        assert len(read_plan(str(path))[1]) == 2
        (claim,) = claims_of(tomllib.loads(path.read_text()), "plan")
        assert claim.terms[0].arm == "ewc+my_idea"


def test_every_measure_of_a_stored_run_may_be_claimed():
    found = measures_of(stored_runs(PROJECT / "results/reference"))
    assert len(found) > 30 and all(is_name(m.name) and is_name(m.subject) for m in found)
    assert not is_name("probe_fnal") and is_name("fd_mine_best") and is_name("forgetting/cycle_9")


@pytest.mark.parametrize("value", ["'x'", "0", "-0.1", "nan", "inf", "true"])
def test_the_smallest_effect_of_interest_is_a_number_above_zero(value, tmp_path):
    path = tmp_path / "plan.toml"
    claim = "\n".join(f"{key} = '{text}'" for key, text in CLAIM.items())
    path.write_text(f'study = "gan_probe"\n[[claims]]\n{claim}\nsmallest = {value}\n')
    line = f"PLAN: claim 1 of {re.escape(str(path))}: smallest must be a number above 0, not .*"
    with pytest.raises(UserError) as error:
        read_plan(str(path))
    assert re.fullmatch(line, str(error.value))
