"""Cures for a discriminator: their losses by hand, whom they reach, and the hooks that they use."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_fakes import losses, opponents
from test_gan import study as gan

from experiments.gan_probe import STUDY as GAN
from experiments.run.identity import identity, shared
from experiments.sequential_tasks import STUDY as SEQUENTIAL
from forgetting.errors import UserError
from forgetting.methods import available, parse
from forgetting.methods.diffaugment import augmented
from forgetting.moves import sources, taken
from forgetting.relearning import updates_to_relearn
from forgetting.rotation import rotate
from forgetting.seeding import generator
from gan.models import MODELS, parse_model

WEIGHTED = ["consistency", "lecam", "r1", "ssgan_ms"]


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def batch_of(study, player="discriminator"):
    """A batch of a player's, and what methods draw for it."""
    of_gan = study.gan
    drawn = of_gan._draw_batch(of_gan.draws)
    return getattr(of_gan, f"{player}_batch")(drawn), study.learner.draw(player, 16, 0)


def loss_of(study, name, player="discriminator"):
    """(weight, loss) of a method, the batch as the stream gave it."""
    batch, drawn = batch_of(study, player)
    given = copy.copy(batch)
    end = {"discriminator": "_d", "generator": "_g"}[player]
    weight, loss = study.learner.losses(batch, drawn)[f"loss/{name}{end}"]
    return float(weight), loss, given, drawn.get(name)


@pytest.fixture
def make(digits):
    """A GAN with a method, without spectral norm: then a forward pass can be repeated."""

    def of(name, **own):
        own = {f"{name}.{key}": value for key, value in own.items()}
        changes = {"spectral_norm": False, "regularizer": "none"}
        study = gan(digits, model=f"uncond+{name}", method_settings=own, **changes)
        study.learner.train(), study.generator.train()
        return study

    return of


def logits(study, images):
    return study.discriminator.logits(study.discriminator(images))


# ------------------------------------------------------------------ losses by hand


def test_lecam_by_hand(make):
    study = make("lecam", start=2, decay=0.5)
    method, averages = study.learner.methods["lecam"], None
    for step in range(4):
        batch, _ = batch_of(study)
        now = [rows.mean().item() for rows in logits(study, batch.images).split(16)]
        averages = now if step < 1 else [(a + b) / 2 for a, b in zip(averages, now, strict=True)]
        drawn = {"lecam": method.draw("discriminator", 16, step)}
        weight, loss = study.learner.losses(batch, drawn)["loss/lecam_d"]
        assert float(weight) == pytest.approx(0.3 if step >= 2 else 0.0)
        assert [float(method.real), float(method.fake)] == pytest.approx(averages, rel=1e-4)
        real, fake = logits(study, batch.images).split(16)
        expected = F.relu(real - averages[1]).square().mean()
        expected += F.relu(averages[0] - fake).square().mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)


def test_lecam_follows_the_last_batch_until_it_begins(make):
    draw = make("lecam").learner.methods["lecam"].draw
    decays = [float(draw("discriminator", 16, step)["decay"]) for step in (0, 998, 999, 1000)]
    assert decays == pytest.approx([0, 0, 0.9, 0.9])
    assert [float(draw("discriminator", 16, s)["weight"]) > 0 for s in (999, 1000)] == [False, True]


def test_consistency_by_hand(make):
    study = make("consistency")
    weight, loss, batch, drawn = loss_of(study, "consistency")
    moved = []
    for image, flip, (down, right) in zip(
        batch.images[:16], drawn["flip"], drawn["shift"].tolist(), strict=True
    ):
        wide = F.pad(image[None], (1, 1, 1, 1), mode="reflect")  # an eighth of 8 pixels
        shifted = wide[:, :, 1 - down : 9 - down, 1 - right : 9 - right]
        moved.append(shifted.flip(3) if flip else shifted)
    assert 0 < drawn["flip"].sum() < 16 and drawn["shift"].unique().tolist() == [-1, 0, 1]
    apart = logits(study, batch.images[:16]) - logits(study, torch.cat(moved))
    assert weight == 10 and loss.item() == pytest.approx(apart.square().mean().item(), rel=1e-4)


def test_r1_by_hand(make):
    study = make("r1")
    weight, loss, batch, _ = loss_of(study, "r1")
    images = batch.images[:16].clone()
    step, squares = 1e-2, 0.0
    with torch.no_grad():
        net = study.discriminator.double()
        for i in range(3 * 8 * 8):  # by differences
            there = torch.zeros(3 * 8 * 8, dtype=torch.float64)
            there[i] = step
            there = there.view(3, 8, 8)
            up, down = (net.logits(net(images.double() + s * there)) for s in (1, -1))
            squares += ((up - down) / (2 * step)).square().mean()
    assert weight == 10 and loss.item() == pytest.approx(float(squares) / 2, rel=0.02)
    assert loss.requires_grad


def test_diffaugment_by_hand():
    images = torch.arange(1.0, 65).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    whole = augmented(images, torch.tensor([[1, -1]]), torch.tensor([[20, 20]]))
    assert torch.equal(whole[0, :, 1:, :7], images[0, :, :7, 1:])
    assert whole[0, :, 0].abs().sum() == 0 and whole[0, :, :, 7].abs().sum() == 0
    still = torch.zeros(1, 2, dtype=torch.int64)
    for middle, rows, columns in (
        ((4, 3), slice(2, 6), slice(1, 5)),
        ((0, 8), slice(0, 2), slice(6, 8)),
    ):
        cut = augmented(images, still, torch.tensor([middle]))
        expected = images.clone()
        expected[:, :, rows, columns] = 0
        assert torch.equal(cut, expected)


def test_diffaugment_draws_as_the_authors_do(make):
    method = make("diffaugment").learner.methods["diffaugment"]
    drawn = [method.draw("discriminator", 16, 0) for _ in range(20)]
    assert torch.cat([d["shift"] for d in drawn]).unique().tolist() == [-1, 0, 1]
    assert torch.cat([d["middle"] for d in drawn]).unique().tolist() == list(range(9))


def test_moved_images_come_from_where_they_were():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    rows, columns = (sources(torch.tensor([by]), 8).clamp(0, 7) for by in (2, -1))
    assert taken(image, rows, columns)[0, 0, 5, 3] == image[0, 0, 3, 4]


def test_diffaugment_is_of_all_that_the_net_sees(digits):
    arms = ("uncond+rotation+replay", "uncond+rotation+replay+diffaugment")
    seen = {}
    for arm in arms:
        study = gan(digits, model=arm)
        forward, rows = study.discriminator.forward, []
        study.discriminator.forward = lambda x, f=forward, rows=rows: rows.append(x) or f(x)
        study.step()
        seen[arm] = rows
        kept = study.learner.methods["replay"].images
        assert (kept[:16].flatten(1).float().std(1) > 0).all()  # as they were, not with a hole
    for plain, changed in zip(*seen.values(), strict=True):
        assert plain.shape == changed.shape
        assert ((plain != changed).flatten(1).any(1)).all()
        assert (changed == 0).flatten(1).float().mean(1).min() > 0.06  # a corner's share at least
    # The generator gets its gradient through it.
    study = gan(digits, model="uncond+diffaugment")
    batch, drawn = batch_of(study, "generator")
    ((_, loss),) = study.learner.losses(batch, drawn).values()
    assert any(g.abs().sum() > 0 for g in torch.autograd.grad(loss, study.generator.parameters()))


def test_ssgan_ms_by_hand(make):
    study = make("ssgan_ms")
    weight, loss, batch, _ = loss_of(study, "ssgan_ms")
    method, net = study.learner.methods["ssgan_ms"], study.discriminator
    real, fake = batch.images[12:16], batch.images[28:32]
    terms = [
        F.cross_entropy(method.head(net(rotate(real, k))), torch.full((4,), k)) for k in range(4)
    ]
    terms.append(F.cross_entropy(method.head(net(fake)), torch.full((4,), 4)))
    assert weight == 0.5 and loss.item() == pytest.approx(sum(terms).item() / 5, rel=1e-4)
    weight, loss, batch, _ = loss_of(study, "ssgan_ms", "generator")
    of_kind = []
    for images in (batch.images[12:], real):
        by_turn = [method.head(net(rotate(images, k))) for k in range(4)]
        found = [F.cross_entropy(out, torch.full((4,), k)) for k, out in enumerate(by_turn)]
        of_kind.append(sum(found).item() / 4)
    assert weight == pytest.approx(0.1)
    assert loss.item() == pytest.approx(abs(of_kind[0] - of_kind[1]), rel=1e-3, abs=1e-6)


def test_ssgan_la_by_hand(make):
    study = make("ssgan_la")
    method, net = study.learner.methods["ssgan_la"], study.discriminator

    def entropy(images, kind):
        """Of upright images all 16, turned the last 4."""
        found = []
        for k in range(4):
            out = method.head(net(rotate(images if k == 0 else images[-4:], k)))
            found.append(F.cross_entropy(out, torch.full((len(out),), 2 * k + kind)))
        return sum(found).item() / 4

    weight, loss, batch, _ = loss_of(study, "ssgan_la")
    expected = entropy(batch.images[:16], 0) + entropy(batch.images[16:], 1)
    assert weight == 1 and loss.item() == pytest.approx(expected, rel=1e-4)
    _, loss, batch, _ = loss_of(study, "ssgan_la", "generator")
    expected = entropy(batch.images, 0) - entropy(batch.images, 1)
    assert loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    batch, drawn = batch_of(study)
    assert study.learner.losses(batch, drawn).keys() == {"loss/ssgan_la_d"}  # and no other


# ------------------------------------------------------------------ on recorded opponents


@pytest.mark.parametrize("name", WEIGHTED)
def test_without_weight_it_is_the_baseline_to_the_bit(digits, recording, name):
    plain = opponents(digits, recording, seed=1)
    own = {f"{name}.weight": 0.0}
    weightless = opponents(digits, recording, seed=1, method=name, method_settings=own)
    assert losses(weightless, 5) == losses(plain, 5)
    own = {f"{name}.weight": 1.0} | ({"lecam.start": 0} if name == "lecam" else {})
    weighty = opponents(digits, recording, seed=1, method=name, method_settings=own)
    losses(weighty, 5)
    assert torch.equal(weights(weightless.net), weights(plain.net))
    assert not torch.equal(weights(weighty.net), weights(plain.net))


def test_what_replaces_the_objective_gives_the_score(digits, recording):
    of = opponents(digits, recording, method="ssgan_la")
    assert all(step.keys() == {"loss/ssgan_la"} for step in losses(of, 3))
    images = of.held_out.images(whole=False)
    read, vectors, _ = of._read(images)
    head = of.learner.methods["ssgan_la"].head
    with torch.no_grad():
        out = head(vectors)
    assert torch.allclose(torch.tensor(read[:, 0]), out[:, 0] - out[:, 1], atol=1e-6)
    with torch.no_grad():
        of.net.binary_head.weight.fill_(9)  # which nothing reads
    assert (of._read(images)[0] == read).all()


def test_relearning_keeps_what_stands_in_and_changes_nothing(digits, recording):
    of = opponents(digits, recording, method="ssgan_la")
    losses(of, 3)
    method = of.learner.methods["ssgan_la"]
    before, net = copy.deepcopy(method.state_dict()), weights(of.net)
    heads = []

    def auc(again):
        heads.append(again.methods["ssgan_la"].state_dict()["head.0.weight"].clone())
        assert 0 <= of.held_out.auc(lambda images: of._read(images, again), 1) <= 1
        return 0.5

    updates_to_relearn(of.learner, of.stream.of_task(1, generator(0, "again")), auc, 10)
    assert torch.equal(heads[0], before["head.0.weight"])  # from where it was
    assert not torch.equal(heads[-1], heads[0])
    assert torch.equal(method.state_dict()["head.0.weight"], before["head.0.weight"])
    assert torch.equal(weights(of.net), net)


def test_past_fakes_are_scored_by_it_too(digits):
    study = gan(digits, model="uncond+ssgan_la")
    study.step()
    images, labels = digits.test_images[:20], digits.test_labels[:20]
    before = study._logits(images, labels)
    with torch.no_grad():
        study.discriminator.adversarial.weight.fill_(9)
        assert (study._logits(images, labels) == before).all()
        study.learner.methods["ssgan_la"].head[0].bias[0] += 1
    assert study._logits(images, labels) == pytest.approx(before + 1, abs=1e-5)


# ------------------------------------------------------------------ settings that they go with


def test_r1_goes_without_spectral_norm_in_what_is_used_and_compared():
    for study, arm, key, value in (
        (GAN, "uncond+r1", "regularizer", "none"),
        (SEQUENTIAL, "r1", "spectral_norm", False),
    ):
        assert study.table(arm)[key].default == value
        own = identity(study, {study.arm: arm})
        assert own[key] == value
        plain = identity(study, {study.arm: study.default_arms[0]})
        assert shared(study, own).items() <= shared(study, plain).items()  # it stands beside it
        assert key not in shared(study, own)
    assert GAN.table("uncond+r1")["spectral_norm"].default is False
    assert GAN.table("uncond")["regularizer"].default == "spectral_norm"


def test_what_is_left_open_when_a_run_is_taken_up_again():
    whole = {"model": None, "regularizer": "spectral_norm", "seed": 0}
    assert "regularizer" not in GAN.explicit(whole, {}, preset=True)
    typed = {"regularizer": "spectral_norm"}
    assert GAN.explicit(whole, typed, preset=True)["regularizer"] == "spectral_norm"
    assert GAN.explicit(whole, typed, preset=False) == typed
    assert GAN.explicit({**whole, "model": "uncond"}, {}, preset=True)["regularizer"]


@pytest.mark.parametrize(
    ("arm", "settings", "player", "line"),
    [
        ("r1", {"spectral_norm": True}, "discriminator",
         "spectral_norm: r1 goes with spectral_norm=False, not True"),
        ("r1", {"regularizer": "gradient_penalty"}, "discriminator",
         "regularizer: r1 goes with regularizer=none, not gradient_penalty"),
        ("lecam", {}, "classifier", "method: lecam is for a discriminator; set stream.name=fakes"),
        ("ssgan_ms", {}, "classifier", "method: ssgan_ms is for a discriminator"),
        ("ssgan_la", {}, "classifier", "method: ssgan_la is for a discriminator"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(arm, settings, player, line):
    with pytest.raises(UserError, match=line):
        parse(arm).check({}, settings, player, 16)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("uncond+ssgan_la+replay", "ssgan_la takes the objective's place; it stands alone"),
        ("ssgan+ssgan_la", "it stands alone, as model=uncond.ssgan_la"),
        ("ssgan+ssgan_ms", "ssgan_ms stands in for rotation; take one of them"),
        ("cond+ssgan_la", "ssgan_la takes the place of a logit that knows no class; use uncond"),
    ],
)
def test_what_does_not_go_together(text, line):
    with pytest.raises(UserError, match=line):
        parse_model(text)


def test_a_method_that_replaces_the_objective_must_say_its_score(digits):
    class Bare(type(parse("ssgan_la").methods[0]({}, 0)).__mro__[1]):
        name = "bare"

    with pytest.raises(UserError, match=r"bare: it replaces the objective, so it needs score"):
        Bare({}, 0).score(None, None)


def test_they_are_found_by_their_files_alone():
    for name in (*WEIGHTED, "diffaugment", "ssgan_la"):
        assert name in available() and parse(f"uncond+{name}", "model", MODELS).methods
