"""What plans declare of their runs."""

import re
import shutil
from dataclasses import replace

import pytest
from conftest import PROJECT

from experiments.run.stored import stored_runs
from experiments.show import own_tables
from experiments.show.compare import measures_of
from experiments.sweeps.claims import PLANS, claims_of, without_runs
from experiments.sweeps.kept import claims, keep, warn
from experiments.sweeps.plan import read_plan
from forgetting.errors import UserError
from forgetting.measures import is_name

CLAIM = {"words": "it helps", "measure": "recovery", "arm": "ewc", "expected": "above"}


def test_the_papers_six_claims_are_one_family_of_two_plans():
    found = [*claims("sequential_tasks"), *claims("gan_probe")]
    found = [claim for claim in found if claim.family == "the paper's"]
    assert len(found) == 6
    assert {claim.expected for claim in found} == {"above", "below", "equivalent"}
    assert [claim.settings.get("plant_updates") for claim in found] == [None] * 2 + [0] * 4
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
        ("[[claims]]\nwords = 'x'\narm = 'uncond+ewc(wieght=3)'\nmeasure = 'probe_final'\n"
         "expected = 'above'",
         "claim 1 of {}: uncond+ewc(wieght=3): ewc.wieght: no such setting; did you mean ewc.weig"),
        ("settings.batch_size = '64'\n[[claims]]\nwords = 'x'\narm = 'uncond'\n"
         "measure = 'probe_final'\nexpected = 'above'",
         "claim 1 of {}: batch_size: it must be a whole number from 4"),
        ("settings.ewc.weight = 'much'\n[[claims]]\nwords = 'x'\narm = 'uncond+ewc'\n"
         "measure = 'probe_final'\nexpected = 'above'",
         "claim 1 of {}: ewc.weight: it must be a number"),
    ],
)  # fmt: skip
def test_a_claim_that_will_not_do_is_named_in_one_line(text, line, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(f'study = "gan_probe"\n{text}\n')
    with pytest.raises(UserError) as error:
        read_plan(str(path))
    assert str(error.value).startswith("PLAN: " + line.format(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "written,named",
    [
        ("./my_idea.py+ewc", "ewc+my_idea"),
        ("ewc+/a (b)/my_idea.py", "ewc+my_idea"),
        ("ewc(weight=10)", "ewc(weight=10.0)"),
        ("replay+ewc(replay.rows=4, ewc.weight=10)", "ewc+replay(ewc.weight=10.0, rows=4)"),
        ("my_idea@5ff2(weight=0.5)", "my_idea@5ff2(weight=0.5)"),
        ("my_idea(sizes=[1, 2], weight=0.5)", "my_idea(sizes=[1, 2], weight=0.5)"),
    ],
)
def test_an_arm_is_written_as_in_the_grid_and_meant_as_its_runs_are_called(written, named):
    plan = {"study": "sequential_tasks", "claims": [CLAIM | {"arm": written}]}
    (claim,) = claims_of(plan, "plan")
    assert claim.terms[0].arm == named
    with_file = [word for word in ("ewc+./my_idea.py", "ewc", "ewc+replay", "my_idea.py")]
    assert without_runs([claim], with_file) == []
    (line,) = without_runs([claim], ["vanilla", "./other.py"])
    assert line.endswith("and no run of the plan is of that; there are other, vanilla")


def test_an_arm_has_the_studys_own_settings_too():
    written = CLAIM | {"arm": "uncond+rotation+ewc(weight=10, alpha=0.5)"}
    (claim,) = claims_of({"study": "gan_probe", "claims": [written]}, "plan")
    assert claim.terms[0].arm == "ssgan+ewc(alpha=0.5, weight=10.0)"


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


OWN = """
study = "sequential_tasks"
family = "{family}"
grid.method = ["vanilla", "./mine.py"]
[[claims]]
words = "mine gains"
measure = "cycle_gain"
arm = "./mine.py"
baseline = "vanilla"
expected = "{expected}"
"""


def test_a_plan_is_kept_as_its_runs_began_and_changes_no_shipped_family(tmp_path, capsys):
    plan, runs = tmp_path / "my_plan.toml", tmp_path / "runs"
    arms = ["vanilla", "./mine.py"]
    plan.write_text(OWN.format(family="the paper's", expected="above"))
    keep(plan, runs, 0, arms)
    shipped = claims("sequential_tasks")
    *same, own = claims("sequential_tasks", [runs])
    assert same == shipped and own.family == "the paper's, my_plan"
    assert capsys.readouterr().out == ""
    plan.write_text(OWN.format(family="the paper's", expected="below"))
    keep(plan, runs, 0, arms)
    assert "are not those that its runs began with" in capsys.readouterr().out
    assert claims("sequential_tasks", [runs]) == [*shipped, own]
    # A copy of a shipped plan, and one plan in two folders, have their claims once.
    copied = tmp_path / "figure3.toml"
    copied.write_text((PLANS / "figure3.toml").read_text())
    for folder in (runs, tmp_path / "other"):
        keep(copied, folder, 0, ["vanilla", "augment", "rotation"])
    keep(plan, tmp_path / "later", 2, arms)
    assert "come after 2 of its runs" in capsys.readouterr().out
    found = claims("sequential_tasks", [runs, tmp_path / "other", tmp_path / "later"])
    assert sorted(claim.expected for claim in found[len(shipped) :]) == ["above", "below"]


def test_a_plan_of_one_study_joins_no_shipped_family_of_the_other(tmp_path):
    plan = tmp_path / "my_plan.toml"
    text = OWN.format(family="the cures", expected="above").replace("sequential_tasks", "gan_probe")
    text = text.replace("cycle_gain", "probe_final").replace("vanilla", "uncond")
    plan.write_text(text.replace("./mine.py", "ssgan").replace("method", "model"))
    keep(plan, tmp_path / "runs", 0, ["uncond", "ssgan"])
    assert claims("gan_probe", [tmp_path / "runs"])[-1].family == "the cures, my_plan"


def test_what_all_runs_have_set_stands_in_the_names_of_a_claims_arms():
    plan = {
        "study": "sequential_tasks",
        "settings": {"rotation_weight": 0.1, "ewc": {"weight": 10}},
    }

    def arms(**claim):
        (found,) = claims_of(plan | {"claims": [CLAIM | claim]}, "plan")
        return [term.arm for term in found.terms]

    assert arms(arm="rotation", baseline="vanilla") == ["rotation(rotation_weight=0.1)", "vanilla"]
    assert arms(arm="ewc") == ["ewc(weight=10.0)"] and arms(arm="ewc(weight=5)") == [
        "ewc(weight=5.0)"
    ]
    plan["settings"]["ewc"]["weight"] = 100.0  # the default, which no arm is named by
    assert arms(arm="ewc") == ["ewc"]
    plan["settings"]["mine"] = {"weight": 0.5}
    assert arms(arm="./mine.py(weight=0.5)") == [
        "mine(rotation_weight=0.1, weight=0.5)"  # a user's method may go by any setting
    ]
    with pytest.raises(UserError, match=r"mine\.weight in the plan's settings is the arm's own"):
        arms(arm="./mine.py")


def test_an_arms_own_setting_in_a_terms_settings_is_in_its_name_alone():
    terms = [
        {"weight": 1, "arm": "rotation", "settings": {"rotation_weight": 2, "width": 16}},
        {"weight": -1, "arm": "vanilla", "settings": {"width": 16}},
    ]
    claim = {"words": "w", "measure": "recovery", "expected": "above", "terms": terms}
    (found,) = claims_of({"study": "sequential_tasks", "claims": [claim]}, "plan")
    assert [(term.arm, term.settings) for term in found.terms] == [
        ("rotation(rotation_weight=2.0)", {"width": 16}), ("vanilla", {"width": 16}),
    ]  # fmt: skip


def test_two_plans_of_one_name_are_both_kept_and_a_broken_one_is_in_nobodys_way(tmp_path, capsys):
    for folder, family in (("a", "f"), ("b", "g")):
        (tmp_path / folder).mkdir()
        plan = tmp_path / folder / "plan.toml"
        plan.write_text(OWN.format(family=family, expected="above"))
        keep(plan, tmp_path / "runs", 0, ["vanilla", "./mine.py"])
    kept = sorted((tmp_path / "runs/plans").glob("plan-*.toml"))
    shipped = claims("sequential_tasks")
    assert len(kept) == 2
    assert {c.family for c in claims("sequential_tasks", [tmp_path / "runs"])[len(shipped):]} == {
        "f", "g",
    }  # fmt: skip
    own = OWN.format(family="f", expected="above")
    for text in (
        "",
        own.replace("grid.method", "grid = 3 #"),
        own.replace("family", "settings = 3\nfamily"),
    ):
        kept[0].write_text(text)
        assert len(claims("sequential_tasks", [tmp_path / "runs"])) == len(shipped) + 1
        assert f"warning: the claims in {kept[0]} are not judged" in capsys.readouterr().err


def test_a_claim_on_an_arm_that_no_run_is_of_is_told(tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text(OWN.format(family="f", expected="above"))
    keep(plan, tmp_path / "runs", 0, ["vanilla"])
    said = "warning: the claim 'mine gains' is on mine, and no run of the plan is of that"
    assert said in capsys.readouterr().out


OMIT, PLANT = "grid.stream.omit = [{}]\n", "grid.plant_updates = [{}]\n"


@pytest.mark.parametrize(
    "measure,lacking,whole,words",
    [
        (
            "memory",
            ["", OMIT.format("[1], [2]")],
            OMIT.format("[], [1, 5], [2, 6], [3, 7], [4]"),
            "stream.omit = [[], [1, 5], [2, 6], [3, 7], [4]], so that each but the last has a twin",
        ),
        (
            "kept",
            ["", PLANT.format("100, 200"), PLANT.format("0")],
            PLANT.format("0, 100"),
            "plant_updates = [0, 1500]",
        ),
    ],
)
def test_a_claim_on_what_twins_tell_needs_them(measure, lacking, whole, words, tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    text = OWN.format(family="f", expected="above").replace("cycle_gain", measure)
    for grid in (*lacking, whole):
        plan.write_text(text.replace("grid.method", f"{grid}grid.method"))
        warn(plan, ["vanilla", "./mine.py"])
        said = f"'mine gains' is on {measure}, which twins tell: the grid needs {words}\n"
        expected = "" if grid == whole else f"warning: the claim {said}"
        assert capsys.readouterr().out == expected


def test_what_was_written_down_with_runs_to_be_seen_is_called_that(sequential_runs, tmp_path):
    plan, folder = tmp_path / "plan.toml", tmp_path / "runs"
    text = OWN.format(family="f", expected="above").replace("./mine.py", "augment")
    plan.write_text(text)
    keep(plan, folder, 0, ["vanilla", "augment"])  # before its runs
    shutil.copytree(sequential_runs, folder, dirs_exist_ok=True)
    of = ("confirmed", "undecided", "against")

    def verdict(*edited):
        found = stored_runs(folder)
        runs = [replace(run, ended=edited[0]) if edited and run.seed else run for run in found]
        table = own_tables.claims(runs)
        return table[table["claim"] == "mine gains"]["verdict"].item()

    assert all(run.ended for run in stored_runs(folder))
    assert re.fullmatch(rf"({'|'.join(of)}), declared after 4 runs", verdict())  # ended long ago
    assert re.fullmatch(rf"({'|'.join(of)}), declared after 2 runs", verdict("2999-01-01T00:00:00"))
    (kept,) = (folder / "plans").iterdir()
    kept.write_text(kept.read_text().replace("declared = 20", "declared = 19"))
    assert verdict() in of
    # Two plans with the same claim: it is as old as in the older one.
    (tmp_path / "again.toml").write_text(text)
    keep(tmp_path / "again.toml", folder, 4, ["vanilla", "augment"])
    assert verdict() in of
