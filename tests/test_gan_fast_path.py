"""What makes a GAN's update fast teaches its nets what the plain way teaches them."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_gan import study
from test_gan_losses import discriminator_losses, generator_losses, images
from test_networks import same_with_gradients

from forgetting import learner as learners
from forgetting import networks
from forgetting.rotation import rotation_labels
from gan import losses, training
from gan import networks as gan_networks
from gan.networks import LATENT


def gradients(loss, net):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def test_one_batch_through_the_discriminator_teaches_it_what_three_do(digits):
    learner = study(digits)
    learner.discriminator.eval()  # no power iteration between the passes
    real, fake = images(0), images(1)
    fast = sum(discriminator_losses(learner, real, fake).values())
    net = learner.discriminator

    def logits(batch):
        return net.logits(net(batch))

    v = losses.discriminator_loss(logits(real), logits(fake), "hinge")
    four = torch.cat([torch.rot90(real[-4:], k, (2, 3)) for k in range(4)])
    plain = v + F.cross_entropy(net.rotation_head(net(four)), rotation_labels(4))
    same_with_gradients(fast, plain, [real, fake, *net.parameters()], tolerance=1e-5)


def test_a_frozen_discriminator_teaches_the_generator_the_same(digits):
    learner = study(digits)
    for net in (learner.generator, learner.discriminator):
        net.eval()
    z = torch.randn(16, LATENT, generator=torch.Generator().manual_seed(0))

    def of_the_generator():
        loss = sum(generator_losses(learner, learner.generator(z)).values())
        return gradients(loss, learner.generator)

    plain = of_the_generator()
    learner.discriminator.requires_grad_(False)
    torch.testing.assert_close(of_the_generator(), plain, rtol=0, atol=0)


def test_bf16_is_fp32_within_its_precision(digits):
    """Losses within 2 %, gradients of a cosine of 0.99 and more: bf16 keeps 8 bits."""
    found = []
    for precision in (False, True):
        learner = study(digits, discriminator_width=16, generator_width=32)
        learner.learner.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision)
        for net in (learner.generator, learner.discriminator):
            net.eval()
        z = torch.randn(16, LATENT, generator=torch.Generator().manual_seed(0))
        with learner.learner.autocast():
            fake = learner.generator(z)
        assert fake.dtype == (torch.bfloat16 if precision else torch.float32)
        of_d = discriminator_losses(learner, images(0), fake.detach().float())
        of_g = generator_losses(learner, fake.float())
        found.append(
            (
                [loss.item() for loss in (*of_d.values(), *of_g.values())],
                gradients(sum(of_d.values()), learner.discriminator),
                gradients(sum(of_g.values()), learner.generator),
            )
        )
    (plain, *plain_gradients), (fast, *fast_gradients) = found
    assert fast == pytest.approx(plain, rel=0.02, abs=0.01) and fast != plain
    for a, b in zip(fast_gradients, plain_gradients, strict=True):
        assert F.cosine_similarity(a, b, dim=0) > 0.99


def test_the_fast_path_learns_as_the_plain_one_within_seed_noise(digits, monkeypatch):
    """Whole runs: every exact saving against textbook convolutions, contiguous, with plain Adam."""

    # Without a regularizer, and with momentum, so that rotation is learnt in so few steps.
    betas = (0.5, 0.999)
    settings = {"discriminator_width": 16, "batch_size": 64, "lr": 1e-3, "adam_betas": betas}
    settings["spectral_norm"] = False

    def curve(seed, plain):
        learner = study(digits, seed=seed, **settings)
        if plain:
            for net in (learner.generator, learner.discriminator):
                net.to(memory_format=torch.contiguous_format)
            for name, fused in learner.learner.optimisers.items():
                parameters = fused.param_groups[0]["params"]
                plain_adam = torch.optim.Adam(parameters, settings["lr"], betas)
                learner.learner.optimisers[name] = plain_adam
        accuracies = []
        for step in range(1, 41):
            learner.step()
            if step % 10 == 0:
                held_out = digits.test_images[learner.held_out]
                accuracies.append(learner.learner.evaluate(held_out)["accuracy/rotation"])
        return np.array(accuracies)

    seeds = range(3)
    fast = np.array([curve(seed, plain=False) for seed in seeds])
    monkeypatch.setattr(networks, "conv_then_average_pool", lambda x, c: F.avg_pool2d(c(x), 2))
    up = partial(F.interpolate, scale_factor=2)
    monkeypatch.setattr(gan_networks, "upsample_then_conv", lambda x, c: c(up(x)))
    for module in (training, learners):
        monkeypatch.setattr(module, "scale_images", lambda x: x.float() / 127.5 - 1)
    plain = np.array([curve(seed, plain=True) for seed in seeds])
    noise = plain.std(0, ddof=1) / len(seeds) ** 0.5
    assert plain[:, -1].mean() > 0.4  # it learns
    assert (np.abs(fast.mean(0) - plain.mean(0)) < 3 * noise + 0.02).all()
