"""The losses of Chen et al., arXiv 1811.11212, Section 4, all written to be minimised.

    L_D = -V(G, D) - beta  * E_{x~data} E_{r~R} [log Q_D(R = r | x^r)]
    L_G = +V(G, D) - alpha * E_{x~G}    E_{r~R} [log Q_D(R = r | x^r)]

V in practice is the hinge or the non-saturating loss. Logits (N,) float are the discriminator's,
positive for "real"; every loss is a scalar, a mean over the images.
"""

import torch
import torch.nn.functional as F

from forgetting.gradients import of_images
from forgetting.learner import Method


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, kind: str) -> torch.Tensor:
    """-V for the discriminator: hinge (arXiv 1802.05957, equation 16) or log loss
    (arXiv 1406.2661, equation 1). Raises ValueError for another kind."""
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "non_saturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    raise ValueError(f"loss: hinge or non_saturating, not {kind!r}")


def generator_loss(fake: torch.Tensor, kind: str) -> torch.Tensor:
    """V for the generator: -E[D(G(z))] (arXiv 1802.05957, equation 17) or -E[log D(G(z))]
    (arXiv 1406.2661, Section 3). Raises ValueError for another kind."""
    if kind == "hinge":
        return -fake.mean()
    if kind == "non_saturating":
        return F.softplus(-fake).mean()
    raise ValueError(f"loss: hinge or non_saturating, not {kind!r}")


class GradientPenalty(Method):
    """E[(||grad_x D(x)|| - 1)^2] at points between real and fake images (arXiv 1704.00028, eq. 3).

    Real and fake are paired by their position, and the points have the real images' labels.
    """

    name = "gradient_penalty"
    players = ("discriminator",)
    purpose = "penalty"

    def draw(self, player: str, n: int, step: int) -> dict[str, torch.Tensor]:
        return {"share": torch.rand(n, 1, 1, 1, generator=self.draws)}

    def loss(self, learner, batch, out, drawn):
        (own, *_), (fakes, *_) = batch.real, batch.fake
        real, fake = batch.images[own], batch.images[fakes]
        between = real + drawn["share"] * (fake - real)
        labels = None if batch.labels is None else batch.labels[own]
        gradient = of_images(learner, between, labels)
        return self.weight, (gradient.norm(dim=1) - 1).square().mean()
