"""The GANs' losses by hand, and which player learns what from which images."""

import copy
import math
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from test_gan import run, study

from forgetting.learner import Batch
from forgetting.rotation import annealed, rotation_labels
from gan import losses

# ------------------------------------------------------------------ losses


def test_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert losses.discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.25 + 1.0)
    assert losses.generator_loss(fake, "hinge").item() == pytest.approx(1.0)

    def log_sigmoid(x):
        return -math.log(1 + math.exp(-x))

    expected = -(log_sigmoid(2) + log_sigmoid(0.5) + log_sigmoid(3) + log_sigmoid(-1)) / 2
    got = losses.discriminator_loss(real, fake, "non_saturating").item()
    assert got == pytest.approx(expected, rel=1e-6)
    got = losses.generator_loss(fake, "non_saturating").item()
    assert got == pytest.approx(-(log_sigmoid(-3) + log_sigmoid(1)) / 2, rel=1e-6)


def test_an_unknown_loss_is_refused():
    for loss in (
        lambda: losses.discriminator_loss(torch.zeros(2), torch.zeros(2), "wasserstein"),
        lambda: losses.generator_loss(torch.zeros(2), "wasserstein"),
    ):
        with pytest.raises(ValueError, match="hinge or non_saturating, not 'wasserstein'"):
            loss()


def test_losses_are_those_of_torch_mimicry():
    # Values of torch-mimicry 0.1.16 (hinge_loss_dis, hinge_loss_gen, minimax_loss_dis, ns_loss_gen)
    # on these logits; its ns_loss_gen adds 1e-8 inside the logarithm.
    real = torch.tensor([-1.5, -0.25, 0.0, 0.75, 2.0, 3.5])
    fake = torch.tensor([-2.5, -1.0, -0.125, 0.5, 1.25, 4.0])
    for kind, of_discriminator, of_generator in (
        ("hinge", 2.437500000, -0.354166657),
        ("non_saturating", 1.880492687, 0.898984253),
    ):
        d, g = losses.discriminator_loss(real, fake, kind), losses.generator_loss(fake, kind)
        assert d.item() == pytest.approx(of_discriminator, abs=1e-6)
        assert g.item() == pytest.approx(of_generator, abs=1e-6)


def test_gradient_penalty_of_a_linear_critic():
    # D(x) = <w, x> has gradient w everywhere: the penalty is (||w|| - 1)^2.
    weight = torch.randn(3 * 4 * 4)
    real, fake = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    method = losses.GradientPenalty({"weight": 10.0}, seed=0)
    net = Mock(side_effect=lambda x: x.flatten(1))
    learner = Mock(net=net, device=torch.device("cpu"))
    learner.score = lambda features, labels: features @ weight
    batch = discriminator_batch(real, fake)
    drawn = method.draw("discriminator", 5, 0)
    weight_of_it, penalty = method.loss(learner, batch, None, drawn)
    assert weight_of_it == 10
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-4)


def test_alpha_goes_in_a_straight_line():
    assert [annealed(0.2, 0.0, step, 5) for step in range(5)] == pytest.approx(
        [0.2, 0.15, 0.1, 0.05, 0.0]
    )
    assert annealed(0.2, 0.0, 0, 1) == 0.2


# ------------------------------------------------------------------ who learns what from which


def images(seed, n=16, size=8):
    draws = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, size, size, generator=draws) * 2 - 1).requires_grad_()


def discriminator_batch(real, fake) -> Batch:
    n = len(real)
    return Batch(
        images=torch.cat([real, fake]),
        targets=(torch.arange(2 * n) < n).float(),
        tasks=None,
        labels=None,
        real=[slice(0, n)],
        fake=[slice(n, 2 * n)],
        player="discriminator",
        step=0,
    )


def generator_batch(fake) -> Batch:
    zeros = torch.zeros(len(fake))
    return Batch(fake, zeros, None, None, [], [slice(0, len(fake))], "generator", 0)


def losses_of(learner, batch) -> dict[str, torch.Tensor]:
    """By name, without their weights."""
    drawn = learner.learner.draw(batch.player, 16, 0)
    return {name: loss for name, (_, loss) in learner.learner.losses(batch, drawn).items()}


def discriminator_losses(learner, real, fake):
    return losses_of(learner, discriminator_batch(real, fake))


def generator_losses(learner, fake):
    return losses_of(learner, generator_batch(fake))


def touched(loss, tensor):
    """Which images of a batch a loss depends on."""
    (gradient,) = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)
    if gradient is None:
        return torch.zeros(len(tensor), dtype=torch.bool)
    return gradient.flatten(1).abs().sum(1) > 0


def test_the_discriminator_learns_rotation_from_real_images_only(digits):
    learner = study(digits)
    real, fake = images(0), images(1)
    got = discriminator_losses(learner, real, fake)
    assert not touched(got["loss/rotation_d"], fake).any()
    assert touched(got["loss/rotation_d"], real).tolist() == [False] * 12 + [True] * 4


def test_the_generator_learns_rotation_from_its_own_fakes_only(digits):
    learner = study(digits)
    fake = images(1)
    got = generator_losses(learner, fake)
    assert touched(got["loss/rotation_g"], fake).tolist() == [False] * 12 + [True] * 4
    # A step of the generator leaves the discriminator's weights and their gradients alone.
    before = copy.deepcopy(list(learner.discriminator.parameters()))
    batch = learner.gan.generator_batch(learner.gan._draw_fake(learner.gan.draws))
    learner.learner.update(batch, learner.learner.draw("generator", 16, 0))
    for old, new in zip(before, learner.discriminator.parameters(), strict=True):
        assert torch.equal(old, new) and new.requires_grad and new.grad is None


@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_upright_images_alone_enter_v(digits, kind):
    learner = study(digits, loss=kind)
    learner.discriminator.eval()  # no power iteration between the two passes
    real, fake = images(0), images(1)
    d, g = discriminator_losses(learner, real, fake), generator_losses(learner, fake)
    alone = study(digits, loss=kind, model="uncond")
    alone.discriminator.eval()
    # The same gradient, image by image, as without any turned image in the batch.
    for with_turned, without, batch in (
        (d["loss/d"], discriminator_losses(alone, real, fake)["loss/d"], real),
        (d["loss/d"], discriminator_losses(alone, real, fake)["loss/d"], fake),
        (g["loss/g"], generator_losses(alone, fake)["loss/g"], fake),
    ):
        (a,) = torch.autograd.grad(with_turned, batch, retain_graph=True)
        (b,) = torch.autograd.grad(without, batch, retain_graph=True)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert "loss/rotation_d" not in discriminator_losses(alone, real, fake)


def test_the_rotation_loss_is_of_the_last_quarter_in_four_rotations(digits):
    learner = study(digits)
    learner.discriminator.eval()
    real = images(0)
    got = discriminator_losses(learner, real, images(1))["loss/rotation_d"]
    four = torch.cat([torch.rot90(real[-4:], k, (2, 3)) for k in range(4)])
    logits = learner.discriminator.rotation_head(learner.discriminator(four))
    assert got.item() == pytest.approx(F.cross_entropy(logits, rotation_labels(4)).item(), rel=1e-5)


def test_alpha_goes_down_for_the_generator_and_beta_stays_the_discriminators(digits):
    learner = study(digits, alpha=0.2, alpha_end=0.0, beta=1.0, steps=5).learner

    def weights(player):
        drawn = (learner.draw(player, 16, step)["rotation"] for step in range(5))
        return [float(of["weight"]) for of in drawn]

    assert weights("generator") == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])
    assert weights("discriminator") == [1.0] * 5


def test_alpha_and_beta_weigh_the_rotation_losses(digits):
    def weights(net):
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    plain, weightless = (
        study(digits, model="uncond"),
        study(digits, alpha=0.0, alpha_end=0.0, beta=0.0),
    )
    weighty = study(digits)
    for learner in (plain, weightless, weighty):
        run(learner, 1)
    for net in ("generator", "discriminator"):
        a, b, c = (weights(getattr(s, net)) for s in (plain, weightless, weighty))
        if net == "generator":
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)
        assert not torch.allclose(a, c, rtol=1e-4, atol=2e-5)
