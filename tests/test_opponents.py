"""What is drawn and told of discriminators that met recorded generators."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import with_settings
from stubs import TURN, stub
from test_gan import study as gan

from experiments import sequential_tasks
from experiments.run import runner
from experiments.run.stored import stored_runs
from experiments.show import cures, memory, opponents, own_tables, verdicts
from experiments.show import drawings as figures
from experiments.show.arms import colour_of
from experiments.show.groups import groups
from experiments.show.intervals import mean_interval
from experiments.show.plotting import recordings, style
from experiments.sweeps.claims import Claim, Term
from forgetting.streams.fakes import HeldOut
from gan import recordings as gan_recordings

STUDY = "sequential_tasks"
# AUC after each turn (rows) on each of three generators, in two cycles.
FIRST = [[0.8, 0.5, 0.5], [0.6, 0.8, 0.5], [0.6, 0.7, 0.8]]
MET = [*FIRST, [0.9, 0.5, 0.6], [0.7, 0.95, 0.6], [0.75, 0.8, 0.9]]
WITHOUT_1 = [*FIRST, [0.6, 0.5, 0.6], [0.6, 0.95, 0.6], [0.65, 0.8, 0.9]]
WITHOUT_2 = [*FIRST, [0.9, 0.5, 0.6], [0.7, 0.6, 0.6], [0.75, 0.7, 0.9]]
JOINT = [*FIRST, *[[0.95, 0.9, 0.9]] * 3]


def family(unit=1, shift=0.0, **settings):
    """A run, its two twins; `shift` is added to what the run remembers."""
    met = np.array(MET)
    met[-1, :2] += shift
    return [
        stub(met, relearning={0: 10, 1: 20}, unit=unit, **settings),
        stub(WITHOUT_1, relearning={0: 50}, unit=unit, stream_omit=[1], **settings),
        stub(WITHOUT_2, relearning={1: 30}, unit=unit, stream_omit=[2], **settings),
    ]


def joint(unit=1):
    return stub(JOINT, unit=unit, stream_switch="none")


@pytest.fixture
def runs():
    """Two arms with twins and one without, the joint reference; three recordings."""
    found = []
    for unit, shift in ((1, 0.0), (2, 0.03), (3, 0.12)):
        found += [*family(unit, shift), joint(unit), stub(MET, unit=unit, method="replay")]
        found += family(unit, shift + 0.02 * unit, method="rotation")
    style()
    yield memory.with_memory(found)
    plt.close("all")


# ------------------------------------------------------------------ memory


def test_what_was_drawn_at_random_is_the_recording(runs):
    assert set(own_tables.differences(runs)["over"]) == {"3 recordings"}
    assert "the paper's" not in set(own_tables.claims(runs)["family"])  # it has no opponents
    claim = Claim("it remembers", "memory", "above", (Term(1, "vanilla", {}),), STUDY, "own", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, "claims", lambda *_: [claim])
        row = own_tables.claims(runs).iloc[0]
    assert tuple(row[["family", "claim", "over"]]) == ("own", "it remembers", "3 recordings")


def test_memory_by_hand():
    (run, *_), (of,) = (
        memory.with_memory([*family(), joint()]),
        memory.remembered([*family(), joint()]),
    )
    assert of.memory == pytest.approx([0.75 - 0.65, 0.8 - 0.7]) and of.generators == [1, 2]
    assert of.reachable == pytest.approx([0.95 - 0.65, 0.9 - 0.7])
    expected = {"memory": 0.1, "memory_share": 0.2 / 0.5, "memory_reachable": 0.25}
    expected["savings"] = ((50 - 10) + (30 - 20)) / 2
    assert {name: run.result[name] for name in expected} == pytest.approx(expected)
    lags = [(0, 0.925, 0.6), (1, 0.75, 0.65), (2, 0.625, 0.575)]
    assert np.array(of.by_lag()) == pytest.approx(np.array(lags))
    # Of these two, without the joint reference and without having learnt again, memory alone.
    found = [replace(run, metrics={k: v for k, v in run.metrics.items() if "re" not in k})
             for run in family()]  # fmt: skip
    (run, *twins) = memory.with_memory(found)
    assert run.result["memory"] == pytest.approx(0.1)
    assert not {"memory_share", "memory_reachable", "savings"} & run.result.keys()
    assert not any("memory" in twin.result for twin in twins)


def test_updates_saved_are_told_only_where_most_relearn_within_a_turn():
    run, *twins = family()
    capped = [replace(twin, metrics=twin.metrics | {
        name: (steps, np.array([TURN]))
        for name, (steps, _) in twin.metrics.items() if "relearn" in name
    }) for twin in twins]  # fmt: skip
    (of,) = memory.remembered([run, *capped])  # two of four
    assert of.savings == ((TURN - 10) + (TURN - 20)) / 2
    late = replace(run, metrics=run.metrics | {"relearning/task_1": (np.array([0]), [TURN])})
    (of,) = memory.remembered([late, *capped])  # three of four
    assert of.savings is None


def test_in_a_first_cycle_a_generator_to_come_has_no_lag():
    once = [stub(run_auc[3:], stream_omit=omit, cycles=1)
            for run_auc, omit in ((MET, []), (WITHOUT_1, [1]), (WITHOUT_2, [2]))]  # fmt: skip
    (of,) = memory.remembered(once)
    lags = [(0, 0.925, 0.6), (1, 0.75, 0.65), (2, 0.75, 0.65)]
    assert np.array(of.by_lag()) == pytest.approx(np.array(lags))


def test_in_another_order_the_last_to_come_is_at_hand():
    order = {"stream_order": [1, 2, 0]}
    found = [stub(MET, **order), stub(WITHOUT_2, stream_omit=[2], **order),
             stub(np.subtract(MET, 0.1), stream_omit=[3], **order)]  # fmt: skip
    (of,) = memory.remembered(found)
    assert of.generators == [2, 3] and of.memory == pytest.approx([0.1, 0.1])


def test_twins_are_of_the_same_settings_arm_and_recording():
    run, *twins = family()
    for other in (family(method="rotation"), family(2), family(width=5), family(stream_blend=0.3,
                  stream_switch="gradual")):  # fmt: skip
        assert not memory.remembered([run, *other[1:]])
        assert not memory.remembered([run, twins[0], other[2]])
    assert len(memory.remembered([run, *twins])) == 1
    # A GPU's run has what it is told by from a CPU, twins and joint reference.
    (on_gpu,) = memory.remembered([with_settings(run, device="cuda"), *twins, joint()])
    assert on_gpu.memory == pytest.approx([0.1, 0.1]) and on_gpu.joint is not None
    # Of two twins that never met a generator, the one that omits least is the nearest.
    both = stub(WITHOUT_1, stream_omit=[1, 2])
    (of,) = memory.remembered([run, both, *twins])
    assert of.memory == pytest.approx([0.1, 0.1])


def test_a_net_that_says_fake_of_everything_remembers_and_forgets_nothing(digits):
    fakes = torch.randint(256, (3, 40, 3, 8, 8), dtype=torch.uint8)
    held_out = HeldOut(digits, fakes, fakes[:, :30], 30)
    values = held_out.score(np.full((len(held_out.images(True)), 1), -1.0), whole=True)
    assert values["rate/real"] == 0.0
    auc, accuracy = (
        [[values[f"{kind}/task_{j}"] for j in range(3)]] * 6 for kind in ("auc", "accuracy")
    )
    found = [stub(auc, accuracy=accuracy, stream_omit=omit) for omit in ([], [1], [2])]
    run, *_ = memory.with_memory([*found, joint()])
    assert run.result["memory"] == run.result["memory_share"] == 0.0
    for name in ("forgetting/cycle_2", "forgetting_auc/cycle_2", "backward_transfer/cycle_2"):
        assert run.result[name] == 0.0


def test_a_damaged_run_is_named_and_the_others_are_told(capsys):
    run, *twins = family()
    lacks = {name: m for name, m in run.metrics.items() if name != "auc/task_1"}
    damaged, *_, whole = memory.with_memory(
        [replace(run, metrics=lacks), *twins, *family(2)[1:], family(2)[0]]
    )
    assert "memory" not in damaged.result and whole.result["memory"] == pytest.approx(0.1)
    assert capsys.readouterr().err == f"memory: passed over {run.folder}: KeyError: 'auc/task_1'\n"


# ------------------------------------------------------------------ groups and captions


def test_the_joint_reference_stands_in_the_groups_it_is_of(runs):
    gradual = stub(MET, stream_switch="gradual")
    found = opponents.with_joint(groups([*runs, gradual], STUDY))
    assert [sorted(set(group.arms())) for group in found] == [
        ["joint", "replay", "rotation", "vanilla"],
        ["joint", "vanilla"],
    ]
    assert [len(group.of_arm("joint")) for group in found] == [3, 1]
    assert opponents.with_joint(groups([joint(1), joint(2)], STUDY)) == []
    assert opponents.with_joint([]) == []


def test_what_was_planted_or_stays_is_shown_only_where_nothing_like_it_moves():
    def made(switch, planted, width=16):
        return [
            stub(MET, unit=unit, method="rotation", width=width, plant_updates=planted,
                 stream_switch=switch)
            for unit in (1, 2)
        ]  # fmt: skip

    moves, others = made("abrupt", 0), [*made("none", 0), *made("abrupt", 50), *made("none", 50)]
    gradual, wide = made("gradual", 0), made("abrupt", 50, width=32)
    found = opponents.in_turn(groups([*moves, *others, *gradual, *wide], STUDY))
    settings = ("stream.switch", "plant_updates", "width")
    shown = [tuple(group.readable_settings()[key] for key in settings) for group in found]
    assert shown == [("abrupt", 0, 16), ("gradual", 0, 16), ("abrupt", 50, 32)]
    assert len(opponents.in_turn(groups(others, STUDY))) == 3


def test_opponents_of_another_gan_or_number_are_never_pooled():
    others = [stub(MET, unit=4, model="ssgan"), stub([r[:2] for r in MET[1:3] + MET[4:]], unit=5)]
    found = groups([*(stub(MET, unit=unit) for unit in (1, 2)), *others], STUDY)
    assert [(group.differs, len(group.runs)) for group in found] == [
        ("opponents=3 of uncond", 2), ("opponents=3 of ssgan", 1), ("opponents=2 of uncond", 1),
    ]  # fmt: skip


def test_a_caption_names_the_recordings(runs):
    def of(*units):
        return recordings(groups([stub(MET, unit=unit) for unit in units], STUDY)[0])

    assert of(7) == "1 recording, uncond_7"
    assert of(10, 9, 2) == "3 recordings, uncond_2, uncond_9, uncond_10"
    assert of(*range(10, 0, -1)) == "10 recordings, uncond_1 to uncond_10"
    title = cures.cures(cures.with_cures(groups(runs, STUDY))).subfigs[0].get_suptitle()
    assert "3 recordings, uncond_1, uncond_2, uncond_3" in title and "seed" not in title
    one = opponents.with_joint(groups(memory.with_memory(family()), STUDY))
    assert "one recording, so no interval" in opponents.opponents(one).subfigs[0].get_suptitle()


# ------------------------------------------------------------------ figures


def test_opponents_draws_the_stored_matrices_and_curves(runs):
    # A second learner of recording 1 counts half of it.
    again = stub(1 - np.array(MET), unit=1, seed=9)
    found = opponents.with_joint(groups([*runs, again], STUDY))
    figure = opponents.opponents(found)
    axes = [axis for axis in figure.axes if axis.images]
    titles = [axis.get_title(loc="left") for axis in axes]
    assert titles == [
        "vanilla",
        "rotation",
        "replay",
        "joint (all at once)",
        "colour alone (no net)",
    ]
    cycle = np.array(MET[3:])
    vanilla = [cycle + shift * np.outer([0, 0, 1], [1, 1, 0]) for shift in (0, 0.03, 0.12)]
    vanilla[0] = (vanilla[0] + 1 - cycle) / 2
    for axis, values in ((axes[0], np.mean(vanilla, 0)), (axes[2], cycle), (axes[3], JOINT[3:]),
                         (axes[4], np.full((3, 3), 0.7))):  # fmt: skip
        assert np.allclose(axis.images[0].get_array(), values)
        assert axis.images[0].get_clim() == (0, 1)
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3"]
    assert [len(axis.patches) for axis in axes] == [3, 3, 3, 0, 3]
    below = next(axis for axis in figure.axes if axis.get_xlabel() == "iterations")
    curves = {line.get_label(): line for line in below.lines}
    stored = [run.metrics["auc/task_0"] for run in groups(runs, STUDY)[0].of_arm("rotation")]
    assert np.array_equal(curves["rotation"].get_xdata(), stored[0][0])
    assert curves["rotation"].get_ydata() == pytest.approx(np.mean([v for _, v in stored], 0))
    assert curves["rotation"].get_color() == colour_of("rotation")
    assert curves["joint (all at once)"].get_ydata()[-1] == pytest.approx(0.95)
    dashed = [line.get_xdata()[0] for line in below.lines if line.get_linestyle() == "--"]
    assert dashed[0] == 300  # the end of a cycle


# ------------------------------------------------------------------ tables


def test_the_table_of_memory_holds_the_same_numbers(runs):
    table = own_tables.memory(memory.that_tell(runs))
    assert len(memory.that_tell(runs)) == len(runs) - 3  # but for replay, which has no twins
    assert table["arm"].tolist() == ["vanilla"] * 6 + ["rotation"] * 6
    assert table["generators"].tolist()[:6] == [
        "all but the last, at the end", "those at hand", "1 turn after their own",
        "2 turns after their own", "number 1, at the end", "number 2, at the end",
    ]  # fmt: skip
    rows = table[table["arm"] == "vanilla"].set_index("generators")
    at_end = rows.loc["all but the last, at the end"]
    apart = mean_interval([0.1, 0.13, 0.22])
    assert at_end["memory"] == f"+0.150 [{apart.low:+.3f}, {apart.high:+.3f}] undecided"
    assert (at_end["AUC, met"], at_end["AUC, never met"]) == ("0.825", "0.675")
    assert at_end["updates saved"] == "+25.000 [+25.000, +25.000]"
    share = mean_interval([0.2 / 0.5, 0.26 / 0.5, 0.44 / 0.5])
    assert at_end["share of joint's"] == f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"
    assert rows.loc["those at hand", ["AUC, met", "AUC, never met"]].tolist() == ["0.925", "0.600"]
    assert rows.loc["number 2, at the end", "AUC, never met"] == "0.700"
    assert set(table["recordings"]) == {"3"} and own_tables.memory([]).empty


@pytest.mark.parametrize("turn,looked_at", [(100, 1), (300, 0)])
def test_a_plans_claim_of_memory_is_looked_at_in_runs_of_its_settings(
    turn, looked_at, runs, monkeypatch
):
    """Its plan's settings name the data set's label, which is no part of what runs compute from."""
    settings = {"dataset.label": "digits", "stream.name": "fakes", "iterations_per_task": turn}
    terms = (Term(1, "rotation", {}), Term(-1, "vanilla", {}))
    claim = Claim("words", "memory", "above", terms, STUDY, "family", settings, 0.2)
    monkeypatch.setattr(verdicts, "claims", lambda *_: [claim])
    found = verdicts.judged(groups(runs, STUDY))
    assert [of.difference.mean for of in found] == [pytest.approx(0.04)] * looked_at
    assert [of.verdict for of in found] == ["equivalent"] * looked_at


# ------------------------------------------------------------------ from the command's own runs


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """Runs of three generators of a tiny GAN: one, its twins, and the joint reference."""
    folder = tmp_path_factory.mktemp("opponents")
    learner = gan(digits, model="uncond", steps=3, record_every=1, generator_width=4)
    for _ in range(3):
        learner.step()
    settings = {"seed": 3, "generator_width": 4, "model": "uncond"}
    gan_recordings.write(learner, settings, folder / "tiny.pt")
    words = ["quick", "stream.name=fakes", f"stream.recording={folder}/tiny.pt", "device=cpu"]
    words += ["iterations_per_task=2", "width=4", "method=vanilla", f"results_dir={folder}/runs"]
    for own in ("stream.omit=[]", "stream.omit=[1]", "stream.omit=[2]", "stream.switch=none"):
        with pytest.raises(SystemExit) as end:
            runner.main(sequential_tasks.STUDY, ["x", "with", *words, own])
        assert end.value.code == 0
    return folder / "runs"


def test_the_commands_runs_are_drawn_and_every_one_is_named(folder, tmp_path, capsys):
    names = ["opponents", "memory"]  # one arm, and so no cures
    figures.draw([folder], tmp_path, names, tmp_path / "report.html")
    assert "passed over" not in capsys.readouterr().err
    run, *twins, reference = stored_runs(folder)
    page = (tmp_path / "report.html").read_text()
    sections = re.findall(r"<section.*?</section>", page, re.S)
    of_each = [(2, "tiny"), (4, "tiny")]
    for section, (n, name) in zip(sections, of_each, strict=True):
        assert f"From {n} run" in section and run.identity["recording"] in section
        assert name in section and "cannot be made" not in section
    (told, *_) = memory.with_memory([run, *twins, reference])
    expected = [run.metrics[f"auc/task_{j}"][1][-1] - twin.metrics[f"auc/task_{j}"][1][-1]
                for j, twin in enumerate(twins)]  # fmt: skip
    assert told.result["memory"] == pytest.approx(np.mean(expected))
    table = (tmp_path / "memory.csv").read_text()
    assert f"{told.result['memory']:+.3f} undecided" in table.splitlines()[1]
