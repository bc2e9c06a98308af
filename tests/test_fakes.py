"""Recordings, and the stream of a discriminator that meets them."""

import contextlib
import copy
import io
from functools import partial

import numpy as np
import pytest
import torch
from conftest import command
from test_commands import in_process
from test_gan import study as gan
from test_sequential import SETTINGS as SEQUENTIAL

from forgetting import streams
from forgetting.errors import UserError
from forgetting.methods import available
from forgetting.networks import scale_images
from forgetting.relearning import updates_to_relearn
from forgetting.seeding import generator
from forgetting.sequential import SequentialTasks
from forgetting.streams import Schedule, fakes
from gan import recordings
from gan.networks import Generator

GENERATORS = 4


@pytest.fixture(scope="module")
def path(digits, tmp_path_factory):
    """The recording of a tiny GAN of digits."""
    learner = gan(digits, model="uncond", steps=8, record_every=2, generator_width=4)
    for _ in range(8):
        learner.step()
    path = tmp_path_factory.mktemp("recordings") / "tiny.pt"
    recordings.write(learner, {"seed": 3, "generator_width": 4, "model": "uncond"}, path)
    return path


@pytest.fixture(scope="module")
def recording(path):
    return recordings.read(str(path))


def opponents(digits, recording, **changes) -> SequentialTasks:
    settings = {**SEQUENTIAL, "recording": recording, "method": "vanilla", "eval_images": 100}
    return SequentialTasks(
        digits, torch.device("cpu"), contextlib.nullcontext, **{**settings, **changes}
    )


def losses(learner, steps):
    return [{k: v.item() for k, v in learner.step().items()} for _ in range(steps)]


# ------------------------------------------------------------------ recordings


def test_a_recording_has_the_generators_as_they_were(digits, recording):
    assert recording.steps == (2, 4, 6, 8) and recording.size == 8
    assert recording.fingerprint == digits.fingerprint
    again = gan(digits, model="uncond", steps=8, record_every=2, generator_width=4)
    train, held_out = recording.pools()
    assert train.shape == (GENERATORS, 5000, 3, 8, 8) and held_out.shape[1] == 1000
    for number in range(GENERATORS):
        again.step(), again.step()
        exact = recordings._fakes(copy.deepcopy(again.generator), number, 3, 1)
        kept = torch.cat([train[number], held_out[number]])
        assert (kept.short() - exact.short()).abs().max() <= 1
        assert exact.float().std() > 1
    assert not torch.equal(train[0], train[1])


def test_its_pools_are_the_same_for_every_seed_and_arm(digits, recording):
    arms = [
        opponents(digits, recording, seed=seed, method=method)
        for seed, method in ((0, "vanilla"), (1, "rotation+replay"))
    ]
    for pool in (lambda of: of.stream.fakes, lambda of: of.held_out.held_out):
        assert torch.equal(*map(pool, arms))
    assert torch.equal(*(arm.held_out.real for arm in arms))


def test_weights_stay_whole_where_halves_would_show():
    of_net = {"size": 8, "width": 4, "modulation": "plain", "classes": None}
    net = Generator(**of_net)
    exact = net.state_dict()
    kept, _ = recordings._halved(exact, of_net, 0, 0)
    assert {v.dtype for v in kept.values()} == {torch.float16, torch.int64}
    # Offsets that cancel, far beyond what a half resolves.
    with torch.no_grad():
        net.linear.bias += 3000.1
        net.blocks[0].norm1.norm.running_mean += 3000.1
        net.blocks[0].shortcut.bias -= net.blocks[0].shortcut.weight.sum((1, 2, 3)) * 3000.1
    kept, images = recordings._halved(net.state_dict(), of_net, 0, 0)
    assert kept["linear.bias"].dtype == torch.float32
    assert (images.short() - recordings._fakes(net, 0, 0, 1).short()).abs().max() <= 1


def test_colour_alone(digits, recording):
    train, held_out = recording.pools()
    both = torch.cat([train, held_out], 1)
    auc = recordings.colour_auc(digits, both)
    assert auc.shape == (GENERATORS, GENERATORS)
    assert np.allclose(auc, recording.colour)
    # Digits are grey; fakes with a cast are told by it, and digits themselves are not.
    red = both[:1].clone()
    red[:, :, 1:] = 0
    assert recordings.colour_auc(digits, red)[0, 0] > 0.99
    rows = torch.arange(6000) % len(digits.train_labels)
    assert 0.4 < recordings.colour_auc(digits, digits.train_images[rows][None])[0, 0] < 0.65


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_version_9(content: bytes) -> bytes:
    changed = torch.load(io.BytesIO(content), weights_only=True) | {"version": 9}
    return saved(changed)


def with_a_tensor_less(content: bytes) -> bytes:
    changed = torch.load(io.BytesIO(content), weights_only=True)
    changed["nets"][1].popitem()
    return saved(changed)


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (damaged, "is no recording, or damaged"),
        (with_a_tensor_less, "is no recording, or damaged"),
        (of_version_9, "is of another version of this program (9, not 1)"),
        (lambda _: saved({"weights": torch.zeros(3)}), "is no recording, or damaged"),
        (lambda _: saved([1]), "is no recording, or damaged"),
        (lambda _: b"", "is no recording, or damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(path, tmp_path, change, line):
    other = tmp_path / "other.pt"
    other.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"^stream\.recording: ") as error:
        recordings.read(str(other))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_other_images_or_another_size_are_one_line(digits, recording):
    from dataclasses import replace

    recording.require(digits)
    with pytest.raises(UserError, match=r"tiny is of images of 8 pixels.*set dataset.size=8"):
        images = digits.train_images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        recording.require(replace(digits, train_images=images))
    with pytest.raises(UserError, match="tiny is of other images"):
        recording.require(replace(digits, fingerprint="another"))


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


# ------------------------------------------------------------------ relearning


class Learns:
    """Its area under the ROC curve after so many updates."""

    player, batch_size, device = "discriminator", 8, torch.device("cpu")

    def __init__(self, curve):
        self.curve, self.updates = curve, 0

    def train(self):
        pass

    def draw(self, player, n, step):
        return {}

    def update(self, batch, drawn):
        self.updates += 1


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda n: 0.95, 0.0),
        (lambda n: 0.5 + n / 100, 40.0),
        (lambda n: 0.5 + n / 250, 100.0),
        (lambda n: 0.8 if n < 30 else 1.0, 25.0),  # between the looks at 20 and 30
        (lambda n: 0.5, 120.0),
    ],
)
def test_updates_to_relearn_by_hand(monkeypatch, digits, recording, curve, expected):
    learner = opponents(digits, recording).learner
    monkeypatch.setattr(learner, "bare", lambda net: Learns(curve))
    got = updates_to_relearn(
        learner,
        iter(range(1000)),
        lambda again: curve(again.updates),
        120,
    )
    assert got == pytest.approx(expected)


def test_relearning_is_of_a_copy_and_without_methods(digits, recording):
    learner = opponents(digits, recording, method="rotation")
    before = copy.deepcopy(learner.net.state_dict())
    batches = learner.stream.of_task(1, generator(0, "again"))
    seen = []

    def auc(again):
        assert not again.methods and again.net is not learner.net
        seen.append(learner.held_out.auc(partial(learner._read, learner=again), 1))
        return seen[-1]

    learner.learner.lr = 1e-2
    updates_to_relearn(learner.learner, batches, auc, 60)
    assert seen[-1] > seen[0]
    assert all(torch.equal(v, before[k]) for k, v in learner.net.state_dict().items())


def test_what_a_twin_relearns_is_what_it_never_met(digits, recording):
    for omit, names in (([], {0, 1, 2}), ([2, 4], {1, 3})):
        learner = opponents(digits, recording, omit=omit, iterations_per_task=2)
        losses(learner, learner.total_steps)
        found = {k for k in learner.evaluate() if k.startswith("relearning/")}
        assert found == {f"relearning/task_{j}" for j in names}


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
        (["stream.name=fakes", "dataset.size=16"], "stream.recording: digits is of images of 8"),
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


def test_what_is_shipped_is_whole_and_small():
    shipped = sorted(recordings.SHIPPED.glob("*.pt"))
    assert sum(path.stat().st_size for path in shipped) < 14e6
    for path in shipped:
        recording = recordings.read(path.stem)
        assert len(recording.nets) == 8 == len(recording.colour)
        model, _, seed = path.stem.partition("_")
        of = recording.settings
        assert path.stem == "digits" or (of["model"], str(of["seed"])) == (model, seed)
