"""The consistency regularization of Zhang et al., arXiv 1910.12027 (CR-GAN): a real image and its
augmented copy are to get the same logit.

L_D = -V(G, D) + lambda * E_{x~data} |D(x) - D(T(x))|^2, lambda = 10
"""

import torch

from forgetting.learner import Method
from forgetting.moves import shifts, sources, taken
from forgetting.settings import Setting, number


class Consistency(Method):
    """Each real image is also seen flipped and shifted, and has to get the same logit."""

    source = "Zhang et al. 2020, arXiv 1910.12027"
    settings = {"weight": Setting(10.0, number(at_least=0), "lambda, of the squared difference")}

    def setup(self, learner):
        self.size = learner.image_size

    def draw(self, player, n, step):
        """T: every other image flipped, by chance; all shifted by up to an eighth of the side."""
        flip = torch.rand(n, generator=self.draws) < 0.5
        return {"flip": flip, "shift": shifts(n, self.size, self.draws)}

    def extend(self, batch, drawn):
        down, right = drawn["shift"].unbind(1)
        rows, columns = (_reflected(sources(by, self.size)) for by in (down, right))
        columns = torch.where(drawn["flip"][:, None], columns.flip(1), columns)
        batch.extra[self.name] = taken(batch.images[batch.own], rows, columns)

    def loss(self, learner, batch, out, drawn):
        condition = batch.column(learner.net.condition)
        condition = None if condition is None else condition[batch.own]
        moved = learner.score(out.extra[self.name], condition)
        return self.weight, (out.logits[batch.own] - moved).square().mean()


def _reflected(index: torch.Tensor) -> torch.Tensor:
    """What lies beyond an edge is the mirror image of what lies before it."""
    last = index.shape[1] - 1
    return last - (last - index.abs()).abs()
