"""The losses of Chen et al., arXiv 1811.11212, Section 4, all written to be minimised.

    L_D = -V(G, D) - beta  * E_{x~data} E_{r~R} [log Q_D(R = r | x^r)]
    L_G = +V(G, D) - alpha * E_{x~G}    E_{r~R} [log Q_D(R = r | x^r)]

V in practice is the hinge or the non-saturating loss. Logits (N,) float are the discriminator's,
positive for "real"; every loss is a scalar, a mean over the images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from forgetting.devices import to_device


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


def gradient_penalty(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """E[(||grad_x D(x)|| - 1)^2] at points between real and fake images (arXiv 1704.00028, eq. 3).

    real, fake: (N, 3, H, W) float, paired by their position; `generator` draws the points.
    """
    share = to_device(torch.rand(len(real), 1, 1, 1, generator=generator), real.device)
    between = (real + share * (fake - real)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def annealed(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at the last of `steps`, in a straight line."""
    return start + (end - start) * step / max(1, steps - 1)
