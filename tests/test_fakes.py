"""A discriminator that meets recorded generators: its stream, what it learns, and the commands."""

import contextlib
import copy
from functools import partial

import pytest
import torch
from conftest import command
from test_commands import in_process
from test_sequential import SETTINGS as SEQUENTIAL

from forgetting import streams
from forgetting.errors import UserError
from forgetting.methods import available
from forgetting.networks import scale_images
from forgetting.sequential import SequentialTasks
from forgetting.streams import Schedule, fakes

GENERATORS = 4


def opponents(digits, recording, **changes) -> SequentialTasks:
    settings = {**SEQUENTIAL, "recording": recording, "method": "vanilla", "eval_images": 100}
    return SequentialTasks(
        digits, torch.device("cpu"), contextlib.nullcontext, **{**settings, **changes}
    )


def losses(learner, steps):
    return [{k: v.item() for k, v in learner.step().items()} for _ in range(steps)]


# ------------------------------------------------------------------ the stream


def test_a_batch_is_half_real_images_and_half_fakes_of_the_turn(digits, recording):
    learner = opponents(digits, recording)
    for step in (0, 5, 17):
        drawn = learner.stream.draw(step)
        batch = learner.stream.batch(drawn, step)
        task = learner.schedule.task(step)
        assert batch.targets.tolist() == [1.0] * 8 + [0.0] * 8
        assert (batch.tasks == task).all() and batch.player == "discriminator"
        real = scale_images(digits.train_images[drawn["rows"]])
        fake = scale_images(learner.stream.fakes[task, drawn["fakes"]])
        assert torch.equal(batch.images[batch.real[0]], real)
        assert torch.equal(batch.images[batch.fake[0]], fake)


def test_all_at_once_shows_every_generator_alike(digits, recording):
    learner = opponents(digits, recording, switch="none", batch_size=1000)
    counts = torch.bincount(learner.stream.draw(0)["tasks"], minlength=GENERATORS)
    assert counts.sum() == 500 and (counts - 125).abs().max() < 50


@pytest.mark.parametrize(
    ("omit", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([2, 6], [0, 0, 2, 3, 4, 4, 6, 7]),
        ([1, 5], [1, 1, 2, 3, 3, 5, 6, 7]),
        ([3, 4], [0, 1, 1, 1, 4, 5, 6, 7]),
        ([1, 2], [2, 2, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_turns_of_omitted_generators_go_to_their_neighbours(omit, expected):
    assert fakes.met(8, omit) == expected


@pytest.mark.parametrize("omit", [[9], [0, 1], list(range(1, 9))])
def test_generators_count_from_one_and_one_is_left(omit):
    with pytest.raises(UserError, match=r"^stream\.omit: "):
        fakes.met(8, omit)


def test_an_omitted_generator_is_never_shown(digits, recording):
    learner = opponents(digits, recording, omit=[2])
    tasks = {int(t) for step in range(learner.total_steps)
             for t in learner.stream.draw(step)["tasks"]}  # fmt: skip
    assert tasks == {0, 2, 3} and learner.info["task_order"] == [0, 0, 2, 3]


def test_a_twin_draws_what_the_full_stream_draws(digits, recording):
    full, twin = (opponents(digits, recording, omit=omit) for omit in ([], [2]))
    for step in range(full.total_steps):
        a, b = (of.stream.draw(step) for of in (full, twin))
        assert torch.equal(a["rows"], b["rows"]) and torch.equal(a["fakes"], b["fakes"])


# ------------------------------------------------------------------ what is learnt, and read off it


@pytest.mark.parametrize("method", [*available(), "replay+rotation"])
def test_every_method_goes_on_to_the_bit_from_the_middle_of_cycle_2(digits, recording, method):
    changes = {"method": method, "spectral_norm": method == "ewc"}
    through = opponents(digits, recording, **changes)
    losses(through, 22)  # 4 generators, 4 updates each, 2 cycles
    restored = opponents(digits, recording, seed=9, **changes)
    restored.load_state_dict(copy.deepcopy(through.state_dict()))
    assert losses(restored, 10) == losses(through, 10)
    restored.learner.seed = through.learner.seed  # relearning draws from it
    assert restored.evaluate() == through.evaluate()


def test_the_losses_have_the_studys_names(digits, recording):
    (logged,) = losses(opponents(digits, recording, method="rotation"), 1)
    assert logged.keys() == {"loss/task", "loss/rotation"}


def test_hinge_is_the_gans(digits, recording):
    from gan.losses import discriminator_loss

    learner = opponents(digits, recording, loss="hinge")
    batch = learner.stream.batch(learner.stream.draw(0), 0)
    logits = torch.linspace(-2, 2, 16)
    (loss,) = learner.learner.objective(batch, logits).values()
    expected = discriminator_loss(logits[batch.real[0]], logits[batch.fake[0]], "hinge")
    assert loss.item() == pytest.approx(expected.item())


def test_what_is_evaluated(digits, recording):
    learner = opponents(digits, recording)
    losses(learner, 4)
    values = learner.evaluate()
    of_tasks = {f"{kind}/task_{j}" for kind in ("accuracy", "auc", "probe") for j in range(4)}
    others = {"accuracy/current", "auc/current", "rate/real", "probe/final_layer"}
    assert values.keys() == of_tasks | others
    net, held_out = learner.net, learner.held_out

    def logits(images):
        with torch.no_grad():
            return net.binary_head(net(scale_images(images)))[:, 0].numpy()

    real, fake = logits(held_out.real), logits(held_out.held_out[2])
    told = ((real > 0).mean() + (fake <= 0).mean()) / 2
    assert values["accuracy/task_2"] == pytest.approx(told)
    assert values["rate/real"] == pytest.approx((real > 0).mean())
    pairs = (real[:, None] > fake[None]).mean() + (real[:, None] == fake[None]).mean() / 2
    assert values["auc/task_2"] == pytest.approx(pairs, abs=1e-6)


def test_evaluating_changes_nothing(digits, recording):
    looked_at, left_alone = (
        opponents(digits, recording, method="rotation", spectral_norm=True) for _ in range(2)
    )
    for _ in range(2):
        losses(looked_at, 16), losses(left_alone, 16)
        looked_at.evaluate()
        for name, value in left_alone.net.state_dict().items():
            assert torch.equal(value, looked_at.net.state_dict()[name]), name
    assert torch.equal(looked_at.stream.draws.get_state(), left_alone.stream.draws.get_state())


def test_an_unlimited_reservoir_draws_old_fakes_by_how_many_were_met(digits, recording):
    learner = opponents(
        digits, recording, method="replay", method_settings={"replay.size": 0}, omit=[3]
    )
    losses(learner, 16)  # generators 1, 2, 2, 4: twice as many of the second
    replay = learner.learner.methods["replay"]
    assert int(replay.seen) == 16 * 8

    def old_rows():
        replay.seen.fill_(16 * 8)
        return replay.draw("discriminator", 8, 0)["old"]

    old = torch.cat([old_rows() for _ in range(400)])
    shares = torch.bincount(replay.tasks[old], minlength=4) / len(old)
    assert torch.allclose(shares, torch.tensor([0.25, 0.5, 0, 0.25]), atol=0.05)


# ------------------------------------------------------------------ the commands


def test_from_a_gan_to_its_opponents_by_the_commands(tmp_path):
    run = partial(command, cwd=tmp_path)
    made = run(
        "gan_probe.py", "with", "quick", "model=uncond", "steps=6", "record_every=2", "width=4",
        "probe_every=6", "quality_images=500", "results_dir=runs", "device=cpu",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    kept = sorted(path.name.split("-")[1] for path in (tmp_path / "runs/1").glob("generator-*.pt"))
    assert kept == ["2", "4", "6"]
    recorded = run("gan_probe.py", "record", "with", "resume=1", "results_dir=runs")
    assert recorded.stdout.startswith("3 generators, 2 to 6 updates, 0."), recorded.stderr
    words = ["with", "quick", "stream.name=fakes", "stream.recording=runs/1/recording.pt"]
    words += ["iterations_per_task=3", "width=4", "results_dir=runs", "device=cpu"]
    met = run("sequential_tasks.py", *words, "method=rotation", "stop_after=0.1s")
    assert met.returncode == 75, met.stderr
    (tmp_path / "runs/1/recording.pt").rename(tmp_path / "recording.pt")
    gone = run("sequential_tasks.py", "with", "resume=2", "results_dir=runs")
    assert gone.returncode == 1 and gone.stderr.startswith("error: stream.recording: ")
    rest = run(
        "sequential_tasks.py", "with", "resume=2", "results_dir=runs",
        "stream.recording=recording.pt",
    )  # fmt: skip
    assert rest.returncode == 0 and "resumed at step" in rest.stdout, rest.stderr
    again = run("sequential_tasks.py", *words[:3], "stream.recording=recording.pt", *words[4:],
                "method=rotation", "resume=auto")  # fmt: skip
    assert "is complete already" in again.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["stream.omit=[1]"], "stream.omit: it is of recorded generators; set stream.name=fakes"),
        (["stream.recording=digits"], "stream.recording: it is of recorded generators"),
        (["stream.name=fakes", "stream.recording=None"], "stream.recording: name the generators"),
        (["stream.name=fakes", "stream.recording=nowhere"], "stream.recording: nowhere cannot be"),
        (["stream.name=fakes", "stream.omit=[9]"], "stream.omit: generators count from 1 to 8"),
        (["stream.name=fakes", "stream.omit=[0]"], "stream.omit: it must be a list of generators"),
        (["stream.name=fakes", "stream.omit=[1,1]"], "stream.omit: it must be a list"),
        (["stream.name=fakes", "head=per_task"], "head: it must be shared with stream.name=fakes"),
        (["stream.name=fakes", "batch_size=33"], "batch_size: half of it are fakes"),
        (["stream.name=fakes", "rotated_images=40"], "rotated_images: it must be at most half of"),
        (
            ["stream.name=fakes", "dataset.size=16"],
            "stream.recording: digits is of handwritten digits (scikit-learn) at 8",
        ),
        (["stream.name=fakes", "stream.order=[0,1]"], "stream.order: it must have each of the 8"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, _, err = in_process(capsys, "with", "quick", "results_dir=runs", "device=cpu", *words)
    assert code == 1 and err.count("\n") == 1
    assert err.startswith(f"error: {line}")
    assert not list(tmp_path.iterdir())


def test_the_settings_of_one_study_do_not_split_the_others_history():
    from experiments.run.identity import identity, same
    from experiments.sequential_tasks import STUDY

    older = identity(STUDY, {"seed": 0, "method": "vanilla"}, images="a")
    newer = identity(
        STUDY, {"seed": 0, "method": "vanilla", "stream.name": "one_vs_all"}, images="a"
    )
    assert older == newer and "stream.omit" not in older
    met = {"seed": 0, "method": "vanilla", "stream.name": "fakes"}
    one, other = (identity(STUDY, met, images="a", recording=name) for name in ("x 1", "x 2"))
    assert not same(one, other) and one["stream.omit"] == []


def test_a_schedule_of_replaced_turns_still_counts_them():
    schedule = Schedule(fakes.met(4, [2]), 5, 2)
    assert schedule.steps == 40
    assert [schedule.task(step) for step in range(0, 40, 5)] == [0, 0, 2, 3] * 2
    assert streams.of_fakes({"stream.name": "fakes"}) and not streams.of_fakes({})
