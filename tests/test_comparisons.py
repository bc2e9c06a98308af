"""Which arms, variants and settings are compared, and the tables of their differences."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.run.stored import stored_runs
from experiments.show import own_tables
from experiments.show.compare import alike_but_one, by_learner, difference, measures_of, pairs
from experiments.show.groups import Group, groups
from experiments.show.intervals import mean_interval, paired_interval
from experiments.show.own_tables import claims, measures
from experiments.show.sequential import draw_measure
from experiments.show.shipped import SHIPPED


@pytest.fixture
def found(sequential_runs):
    return groups(stored_runs(sequential_runs), "sequential_tasks")


def test_the_table_holds_the_same_numbers(found):
    table = measures(found[0].runs)
    by_seed = {arm: by_learner(found[0].of_arm(arm), "recovery") for arm in found[0].arms()}
    (row,) = [row for _, row in table.iterrows() if row["measure"].startswith("recovery")]
    interval = mean_interval(list(by_seed["augment"].values()))
    assert row["augment"] == f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    difference = paired_interval(by_seed["rotation"], by_seed["augment"])
    text = row["rotation - augment"]
    assert text.startswith(f"{difference.mean:+.3f} [{difference.low:+.3f}")
    assert text.endswith("undecided") == (difference.low <= 0 <= difference.high)


def test_every_measure_of_every_pair_is_compared(found):
    group = found[0]
    table = own_tables.differences(group.runs)
    assert pairs(group) == [
        ("rotation", "vanilla"), ("augment", "vanilla"), ("rotation", "augment"),
    ]  # fmt: skip
    names = [measure.name for measure in measures_of(group.runs)]
    assert {"first_cycle", "probe_last_cycle", "forgetting/cycle_2"} <= set(names)
    assert table["measure"].tolist() == 3 * names
    row = table.set_index(["compared", "measure"]).loc["augment - vanilla", "recovery"]
    apart = paired_interval(
        *(by_learner(group.of_arm(arm), "recovery") for arm in ("augment", "vanilla"))
    )
    assert row["difference"].startswith(f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]")
    assert (row["p"], row["over"], row["better"]) == (f"{apart.p:.3f}", "2 seeds", "higher")
    assert row["p, Holm"] == row["family"] == ""
    claimed = table[table["family"] != ""]
    assert claimed["compared"].tolist() == ["rotation - vanilla", "rotation - augment"]
    assert set(claimed["measure"]) == {"cycle_gain"}
    assert claimed["p, Holm"].tolist() == claims(group.runs)["p, Holm"].tolist()


def test_ones_own_method_comes_first_and_ones_own_runs_before_the_shipped_ones(found):
    shipped = [
        replace(
            run,
            folder=SHIPPED / run.id,
            config=run.config | {"width": 7},
            identity=run.identity | {"width": 7},
        )
        for run in found[0].runs
    ]
    mine = [replace(run, arm="mine@77aa") for run in found[0].of_arm("rotation")]
    table = own_tables.differences([*shipped, *found[0].runs, *mine])
    told = (table["compared"] + ", " + table["settings"]).drop_duplicates().tolist()
    own = f"width={found[0].runs[0].config['width']}"
    assert told[:2] == [f"mine@77aa - vanilla, {own}", f"rotation - vanilla, {own}"]
    compared = [f"{pair}, width=7" for pair in ("rotation - vanilla", "augment - vanilla")]
    assert [of for of in told if of.endswith("width=7")][:2] == compared
    assert told.index(compared[0]) > told.index(f"augment - vanilla, {own}")


def test_below_a_measure_stands_ones_own_method_where_there_is_one(found):
    mine = [replace(run, arm="mine@77aa") for run in found[0].of_arm("rotation")]
    for runs, arm in ((found[0].runs, "rotation"), ([*found[0].runs, *mine], "mine@77aa")):
        axis = plt.figure().subplots()
        draw_measure(axis, Group(runs, ""), "cycle_gain")
        apart = difference(Group(runs, ""), "rotation", "vanilla", "cycle_gain")
        assert axis.get_xlabel().startswith(f"{arm} - vanilla\n{apart.mean:+.3f}\n[")
        plt.close()


def test_claims_on_the_same_data_stand_together(found):
    other = [
        replace(run, data="other images", identity=run.identity | {"images": "else"})
        for run in found[0].runs
    ]
    table = claims([*found[0].runs, *other])
    assert list(table.columns)[:3] == ["data", "preset", "claim"]
    of, claimed = table["data"].tolist(), table["claim"].tolist()
    half = len(table) // 2
    assert half and of == [found[0].runs[0].data] * half + ["other images"] * half
    assert claimed[:half] == claimed[half:]


def test_a_variant_is_compared_with_its_arm_too(found):
    name = "rotation(rotation_weight=0.5)"
    variants = [replace(run, arm=name) for run in found[0].of_arm("rotation")]
    assert pairs(Group([*found[0].runs, *variants], ""))[-1] == (name, "rotation")


def test_groups_that_one_setting_tells_apart_are_compared_like_arms(found):
    def other(runs, result=(), **settings):
        return [
            replace(
                run, identity={**run.identity, **settings}, result={**run.result, **dict(result)}
            )
            for run in runs
        ]

    runs = found[0].of_arm("vanilla")
    higher = other(runs, {"recovery": 0.9}, lr=0.01)
    several = groups([*higher, *runs], "sequential_tasks")
    ((key, alike),) = alike_but_one(several)
    assert key == "lr" and [group.runs[0].identity["lr"] for group in alike] == [0.001, 0.01]
    table = own_tables.differences([*higher, *runs])
    assert set(table["compared"]) == {"vanilla, lr=0.01 - lr=0.001"}
    assert set(table["settings"]) == {""}
    row = table[table["measure"] == "recovery"].iloc[0]
    mean = 0.9 - np.mean([run.result["recovery"] for run in runs])
    assert row["difference"].startswith(f"{mean:+.3f} [") and row["over"] == "2 seeds"
    # One seed in common is no comparison, two settings that differ are none, and what the machine
    # chose is no question of a study.
    assert own_tables.differences([*higher, runs[0]]).empty
    assert own_tables.differences([*other(higher, eval_every=7), *runs]).empty
    assert own_tables.differences([*other(runs, precision="bf16"), *runs]).empty
    # An arm that does not use the setting is the same run on both sides.
    unused = [
        replace(run, arm="augment", identity={k: v for k, v in run.identity.items() if k != "lr"})
        for run in runs
    ]
    assert len(groups([*higher, *runs, *unused], "sequential_tasks")[0].arms()) == 2
    table = own_tables.differences([*higher, *runs, *unused])
    of_setting = table[table["compared"].str.contains("lr=")]
    assert set(of_setting["compared"]) == {"vanilla, lr=0.01 - lr=0.001"}
