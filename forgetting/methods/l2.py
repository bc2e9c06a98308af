"""The control of penalties that weigh weights by importance: all weights are held alike."""

import torch

from forgetting.learner import Method
from forgetting.networks import acting_weights, flattened
from forgetting.settings import Setting, number


class L2(Method):
    """0.5 * weight * ||theta - theta*||^2, theta* of the last boundary: `ewc` with F = 1.

    As with `ewc`, nothing is held before a task has ended, and weights are as they act: divided by
    their spectral norm where they have one.
    """

    source = "Kirkpatrick et al. 2017, arXiv 1612.00796, Figure 2: the L2 control"
    settings = {"weight": Setting(0.1, number(at_least=0), "of the penalty")}

    def setup(self, learner):
        weights = flattened(acting_weights(learner.net).values())
        self.register_buffer("anchor", weights.detach().clone())
        self.register_buffer("ended", torch.zeros((), device=learner.device))  # a task has

    def loss(self, learner, batch, out, drawn):
        moved = flattened(acting_weights(learner.net).values()) - self.anchor
        return self.weight, 0.5 * self.ended * moved.square().sum()

    def boundary(self, learner, batches):
        self.anchor.copy_(flattened(acting_weights(learner.net).values()).detach())
        self.ended.fill_(1)
